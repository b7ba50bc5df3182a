"""Where a result comes from: command, commit, versions, hardware."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("mmcl", "torch", "torchvision", "lightning", "hydra-core", "omegaconf", "torchmetrics", "timm", "numpy")


def provenance() -> dict[str, Any]:
    """Return commit, versions, hardware and date as plain values; ``commit`` is None outside a checkout."""
    return {
        "commit": _commit(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "hardware": _hardware(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def command(arguments: list[str]) -> str:
    """Return what to type to get this run again."""
    return "python -m mmcl.run " + shlex.join(arguments)


def _hardware() -> dict[str, Any]:
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {"machine": platform.machine(), "cpus": os.cpu_count(), "threads": torch.get_num_threads(), "gpus": gpus}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Return the commit of the checkout, with ``+`` if there are changes on top of it."""
    here = Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():
        return None
    git = ["git", "-C", str(here)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changes = subprocess.run(
            [*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+" if changes.strip() else "")
