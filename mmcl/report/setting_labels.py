"""Names for configurations: few settings that tell each from the others."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

# What a sweep over budgets varies: configurations that differ in these alone are one method with more or less memory.
BUDGET_KEYS = (
    *(f"memory.{name}" for name in ("size", "per_class", "bytes", "align_to")),
    *(f"method.{name}" for name in ("shots", "total_bytes", "buffer_size")),
)
Flat = dict[str, str]


def flattened(node: Any, prefix: str = "") -> Flat:
    """Return the leaves of a configuration as text by their dotted keys."""
    if not isinstance(node, Mapping):
        return {prefix: f"[{', '.join(map(str, node))}]" if isinstance(node, list) else str(node)}
    return {
        key: value
        for name, part in sorted(node.items())
        for key, value in flattened(part, f"{prefix}.{name}" if prefix else str(name)).items()
    }


def labels_of(method: str, settings: Sequence[Flat]) -> list[tuple[str, str]]:
    """Return of each configuration of a method its label, and that of its family: the same whatever its budget."""
    bare = [{key: value for key, value in flat.items() if key not in BUDGET_KEYS} for flat in settings]
    keys = [json.dumps(flat) for flat in bare]
    families: dict[str, list[Flat]] = {}
    for key, flat in zip(keys, settings, strict=True):
        families.setdefault(key, []).append(flat)
    apart = dict(zip(keys, bare, strict=True))
    told = {key: telling(flat, list(apart.values())) for key, flat in apart.items()}
    return [
        (method + in_brackets([*told[key], *telling(flat, families[key])]), method + in_brackets(told[key]))
        for key, flat in zip(keys, settings, strict=True)
    ]


def telling(one: Flat, others: Sequence[Flat]) -> list[str]:
    """Return few settings that together no other has; each tells it from most of those that are left."""
    left, told = [other for other in others if other != one], []
    keys = sorted(one, key=lambda key: (key.count("."), key)) if left else []
    while left:
        counts = {key: sum(other.get(key) != one[key] for other in left) for key in keys}
        best = max(keys, key=lambda key: (counts[key], one[key] != "None"))
        if not counts[best]:
            break  # the others have all that it has, and more
        told.append(f"{best.partition('.')[2]}={shortened(one[best])}")
        left = [other for other in left if other.get(best) == one[best]]
    return told


def in_brackets(told: Sequence[str]) -> str:
    """Return settings as they stand behind a name."""
    return f" ({', '.join(told)})" if told else ""


def shortened(value: str) -> str:
    """Return a value without the folders of a file."""
    return value.rpartition("/")[2] if value.startswith(("/", "~")) else value
