"""What the user typed, in the one form that Hydra needs: any spelling and any order mean the same run."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf

from mmcl.config.locate import GROUPS
from mmcl.errors import UserError

METHOD_FILES = "MMCL_METHOD_FILES"
# Hydra's flags whose value is an argument of its own: --cfg job, --config-dir my_conf.
FLAGS_WITH_VALUE = {"--cfg", "-c", "--package", "-p", "--config-name", "-cn", "--config-dir", "-cd"}


def normalise(argv: list[str]) -> list[str]:
    """Bring command-line arguments into canonical form.

    ``+method=memo`` and ``method=memo`` become the same group choice; choices stand in the fixed order of the groups;
    any other ``key=value`` becomes ``++key=value``, so that an unknown key reaches our own check, which knows the
    nearest valid one. Of a key that is typed twice, the last value counts. Flags go first: Hydra's parser does not
    accept them between overrides. ``+method=my_file.py`` loads the file and chooses the method that it defines.
    """
    flags: list[str] = []
    choices: dict[str, str] = {}
    values: dict[str, str] = {}
    rest: list[str] = []
    for before, argument in zip(["", *argv], argv, strict=False):
        name, equals, value = argument.lstrip("+").partition("=")
        if argument.startswith("-") or before in FLAGS_WITH_VALUE:
            flags.append(argument)
        elif name in GROUPS and equals:
            choices[name] = _method_names(value) if name == "method" else value
        elif not equals or name.startswith(("hydra", "~")) or "@" in name:
            rest.append(argument)
        else:
            values[name] = _quoted_path(value)
    chosen = [f"{group}={choices[group]}" for group in GROUPS if group in choices]
    return [*flags, *chosen, *(f"++{name}={values[name]}" for name in sorted(values)), *rest]


def documented(overrides: list[str]) -> list[str]:
    """Return normalised overrides as the documentation spells them: ``+method=memo method.lr=0.1``."""
    plain = [override.lstrip("+") for override in overrides]
    return [f"+{override}" if override.startswith(("method=", "experiment=")) else override for override in plain]


def _quoted_path(value: str) -> str:
    """Quote a path, whose characters mean something else to Hydra's parser: ``~`` is an error there."""
    is_path = value.startswith(("~", "/")) and "," not in value
    return "'{}'".format(value.replace("'", "\\'")) if is_path else value


def _method_names(choice: str) -> str:
    return ",".join(_register_file(Path(name)) if name.endswith(".py") else name for name in choice.split(","))


def _register_file(path: Path) -> str:
    """Load a user's method file and offer its ``METHOD`` under the file's name; child processes find it, too."""
    if not path.is_file():
        raise UserError(
            f"method={path}: no such file. Name a Python file that defines METHOD, or type: mmcl ls methods"
        )
    known = os.environ.get(METHOD_FILES, "").split(os.pathsep)
    resolved = str(path.resolve())
    if resolved not in known:
        os.environ[METHOD_FILES] = os.pathsep.join([*filter(None, known), resolved])
    return load_method_file(Path(resolved))


def load_method_file(path: Path) -> str:
    """Import a method file and offer it as group option ``method=<stem>``.

    The file defines ``METHOD``, a method class whose config has defaults, and may name in ``LIKE`` a shipped method
    whose values it begins with.

    Returns:
        The stem.

    Raises:
        UserError: no ``METHOD`` in the file.
    """
    module_name = f"mmcl_method_{path.stem}"
    if module_name not in sys.modules:
        spec = importlib.util.spec_from_file_location(module_name, path)
        if spec is None or spec.loader is None:
            raise UserError(f"{path}: not a Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module
        spec.loader.exec_module(module)
    loaded = sys.modules[module_name]
    method = getattr(loaded, "METHOD", None)
    if method is None:
        raise UserError(f"{path}: defines no METHOD. End the file with: METHOD = YourMethodClass")
    own = _given(OmegaConf.to_container(OmegaConf.structured(method.Config)))
    parent = [loaded.LIKE] if hasattr(loaded, "LIKE") else []
    node = {**own, "defaults": [*parent, "_self_"], "_target_": f"{module_name}.{method.__name__}", "name": path.stem}
    ConfigStore.instance().store(name=path.stem, node=node, group="method")
    return path.stem


def _given(node: Any) -> Any:
    """Drop the keys that have no default, in nested groups, too."""
    if not isinstance(node, dict):
        return node
    kept = {key: _given(value) for key, value in node.items() if value != MISSING}
    return {key: value for key, value in kept.items() if value != {}}


def load_method_files() -> None:
    """Load the method files that a parent process was given."""
    for path in filter(None, os.environ.get(METHOD_FILES, "").split(os.pathsep)):
        load_method_file(Path(path))
