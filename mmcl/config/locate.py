"""Where the configuration files are, in a checkout and in an installed package."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent
GROUPS = ("trainer", "logger", "memory", "backbone", "benchmark", "method", "preset", "recipe", "experiment")


def shipped_folder(name: str) -> Path:
    """Return ``conf`` or ``experiments``: beside the package in a checkout, inside it when installed."""
    checkout = PACKAGE.parent / name
    in_checkout = checkout.is_dir() and (PACKAGE.parent / "pyproject.toml").is_file()
    return checkout if in_checkout else PACKAGE / name


def options(group: str) -> list[str]:
    """List the names that ``group=NAME`` accepts, such as ``memo`` or ``memo/cifar100_b0_inc10``."""
    folder = shipped_folder("conf") / group
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))
