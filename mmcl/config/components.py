"""Classes and factories that a configuration names by ``_target_``: find them, know their keys, build them."""

from __future__ import annotations

import importlib
import inspect
from dataclasses import field, is_dataclass, make_dataclass
from typing import Any, get_type_hints

from omegaconf import MISSING, DictConfig, OmegaConf

from mmcl.errors import UserError, nearest


def locate(target: str) -> Any:
    """Import what ``package.module.Name`` names.

    Raises:
        UserError: no such module or name.
    """
    module_name, _, name = target.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except (ImportError, ValueError) as error:
        raise UserError(f"_target_={target}: cannot import {module_name!r}: {error}") from error
    if not hasattr(module, name):
        raise UserError(f"_target_={target}: {module_name} has no {name!r}.{nearest(name, vars(module))}")
    return getattr(module, name)


def schema_of(target: str) -> type:
    """Return the dataclass of a component's keys: its ``Config``, or one made from a factory's signature."""
    component = locate(target)
    config = getattr(component, "Config", None)
    if config is not None and is_dataclass(config):
        return config  # type: ignore[return-value]
    hints = get_type_hints(component)
    fields: list[Any] = [("_target_", str, field(default=MISSING)), ("name", str, field(default=MISSING))]
    for parameter in inspect.signature(component).parameters.values():
        if parameter.name == "name":
            continue
        default = MISSING if parameter.default is parameter.empty else parameter.default
        fields.append((parameter.name, hints.get(parameter.name, Any), field(default=default)))
    return make_dataclass(f"{component.__name__}_keys", fields)


def build(node: DictConfig, *ingredients: Any) -> Any:
    """Build the component that a checked node names.

    A class with a ``Config`` gets the filled-in dataclass first; a factory gets its keys as keyword arguments.
    """
    component = locate(node["_target_"])
    if hasattr(component, "Config"):
        return component(
            OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(component.Config), node)), *ingredients
        )
    accepted = inspect.signature(component).parameters
    keywords: dict[str, Any] = OmegaConf.to_container(node, resolve=True)  # type: ignore[assignment]
    return component(*ingredients, **{key: value for key, value in keywords.items() if key in accepted})


def describe(schema: type) -> list[tuple[str, str]]:
    """List (key, meaning) of a schema; keys of nested dataclasses are joined by dots."""
    rows: list[tuple[str, str]] = []
    hints = get_type_hints(schema)
    for name, entry in schema.__dataclass_fields__.items():  # type: ignore[attr-defined]
        rows.append((name, entry.metadata.get("help", "")))
        if is_dataclass(hints[name]):
            rows += [(f"{name}.{key}", meaning) for key, meaning in describe(hints[name])]  # type: ignore[arg-type]
    return rows
