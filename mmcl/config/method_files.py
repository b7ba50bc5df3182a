"""Methods that a user keeps in one Python file: ``+method=my_method.py``."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf

from mmcl.config.locate import options
from mmcl.errors import UserError

VARIABLE = "MMCL_METHOD_FILES"


def register_method_file(path: Path) -> str:
    """Offer the method of a file as group option ``method=<stem>``, here and in child processes.

    The file defines ``METHOD``, a method class whose config has defaults, and may name in ``LIKE`` a shipped method
    whose values it begins with.

    Returns:
        The stem.

    Raises:
        UserError: no such file, no ``METHOD`` in it, or a name that is taken.
    """
    path = path.expanduser().resolve()
    if not path.is_file():
        raise UserError(f"method={path}: no such file. Name a file that defines METHOD, or type: mmcl ls methods")
    taken = path.stem in options("method") or method_files().get(path.stem, path) != path
    if taken:
        raise UserError(f"{path}: there is another method called {path.stem!r}. Rename the file")
    module = _load(path)
    method = getattr(module, "METHOD", None)
    if method is None:
        raise UserError(f"{path}: defines no METHOD. End the file with: METHOD = YourMethodClass")
    own = _given(OmegaConf.to_container(OmegaConf.structured(method.Config)))
    parent = [module.LIKE] if hasattr(module, "LIKE") else []
    target = f"{module.__name__}.{method.__name__}"
    node = {**own, "defaults": [*parent, "_self_"], "_target_": target, "name": path.stem}
    ConfigStore.instance().store(name=path.stem, node=node, group="method")
    os.environ[VARIABLE] = os.pathsep.join(str(file) for file in {**method_files(), path.stem: path}.values())
    return path.stem


def method_files() -> dict[str, Path]:
    """Return the files registered so far, here or in a parent process, by stem."""
    return {Path(name).stem: Path(name) for name in os.environ.get(VARIABLE, "").split(os.pathsep) if name}


def load_method_files() -> None:
    """Register the method files that a parent process was given."""
    for path in method_files().values():
        register_method_file(path)


def _load(path: Path) -> ModuleType:
    """Import a file under a name that holds the digest of its content, which so becomes part of a run's identity."""
    name = f"mmcl_method_{path.stem}_{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def _given(node: Any) -> Any:
    """Drop the keys that have no default, in nested groups, too."""
    if not isinstance(node, dict):
        return node
    kept = {key: _given(value) for key, value in node.items() if value != MISSING}
    return {key: value for key, value in kept.items() if value != {}}
