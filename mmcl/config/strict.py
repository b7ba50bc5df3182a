"""Check a composed configuration against its schema, all of it, before any data is touched."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import is_dataclass
from typing import Any, get_type_hints

import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mmcl.config.components import build, locate, schema_of
from mmcl.config.locate import options
from mmcl.config.schema import RunConfig, TrainerConfig
from mmcl.errors import UserError, nearest
from mmcl.memory.quota import MemoryConfig, NoMemoryConfig
from mmcl.protocol import ClassTask, DatasetTask, MemoryTask, StreamTask, Task

TYPED_BY_TARGET = ("benchmark", "backbone", "method")
KINDS: dict[type[Task], tuple[str, str]] = {
    ClassTask: ("classes that come task by task", "digits"),
    DatasetTask: ("data sets with texts about their classes", "shapes"),
    MemoryTask: ("memories that are replaced", "shapes_memory"),
    StreamTask: ("an online stream", "modes2d"),
}


def checked(config: DictConfig) -> DictConfig:
    """Return the resolved configuration of a run, with every key known and every value of its type.

    Raises:
        UserError: no method chosen; or a list of all unknown keys, wrong types and missing values at once.
    """
    if config.get("method") is None or "_target_" not in config.method:
        names = ", ".join(options("method"))
        raise UserError(f"no method chosen. Methods: {names}\nType for example: python -m mmcl.run +method=memo")
    _refuse_other_kind(config)
    schemas: dict[str, type] = {name: schema_of(config[name]["_target_"]) for name in TYPED_BY_TARGET}
    schemas["memory"] = NoMemoryConfig if config.memory.get("name") == "none" else MemoryConfig
    problems = _problems(config, RunConfig, "", schemas)
    if problems:
        raise UserError("the configuration has errors:\n  " + "\n  ".join(problems))
    resolved: DictConfig = OmegaConf.create(OmegaConf.to_container(config, resolve=True))  # type: ignore[assignment,arg-type]
    refused = list(_refused(resolved, {**schemas, "trainer": TrainerConfig}))
    if refused:
        raise UserError("\n".join(refused))
    return resolved


def _refuse_other_kind(config: DictConfig) -> None:
    """Refuse a method on tasks that it is not made for, before their keys are compared with each other's."""
    wanted, found = (locate(config[group]["_target_"]).task_type for group in ("method", "benchmark"))
    if not issubclass(found, wanted):
        kind, example = KINDS[wanted]
        method = config.method.get("name")
        raise UserError(
            f"method={method} needs {kind}; benchmark={config.benchmark.get('name')} has another kind of tasks. "
            f"Type for example: python -m mmcl.run +method={method} benchmark={example}"
        )


def _refused(config: DictConfig, schemas: dict[str, type]) -> Iterator[str]:
    """Yield what the components say against their values; a backbone is built, without memory for its weights."""
    for name, schema in schemas.items():
        try:
            OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), config[name]))
            if name == "backbone":
                with torch.device("meta"):
                    build(config.backbone)
        except UserError as error:
            yield str(error) if str(error).startswith(f"{name}.") else f"{name}: {error}"


def _problems(node: DictConfig, schema: type, prefix: str, schemas: dict[str, type]) -> list[str]:
    """Collect what is wrong below ``prefix``."""
    hints = {**get_type_hints(schema), **({} if prefix else schemas)}
    typed = OmegaConf.structured(schema)
    found = [
        f"unknown key '{prefix}{key}'.{nearest(f'{prefix}{key}', [prefix + name for name in hints])}"
        for key in map(str, node)
        if key not in hints
    ]
    for key, hint in hints.items():
        if key not in node or OmegaConf.is_missing(node, key):
            found.append(f"'{prefix}{key}' has no value; type for example {prefix}{key}=...")
        elif is_dataclass(hint):
            value = node[key]
            if isinstance(value, DictConfig):
                found += _problems(value, hint, f"{prefix}{key}.", schemas)  # type: ignore[arg-type]
            else:
                found.append(f"'{prefix}{key}' is a group of keys, not a value: {value!r}")
        else:
            found += _wrong_type(typed, node, key, f"{prefix}{key}")
    return found


def _wrong_type(typed: DictConfig, node: DictConfig, key: str, full_key: str) -> list[str]:
    try:
        value: Any = node[key]
        typed[key] = value
    except OmegaConfBaseException as error:
        return [f"'{full_key}': {str(error).splitlines()[0]}"]
    return []
