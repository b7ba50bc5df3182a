"""Exemplar records as the engine writes them, made for tests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from mmcl.engine.exemplar_record import write_exemplar_record
from mmcl.memory.exemplar_record import ExemplarRecord
from mmcl.randomness import generator

WIDTH, PER_CLASS, KEPT, SIDE = 8, 20, 4, 6


def record(shown: int = 3, others: int = 2, shift: float = 0.0, **changes: Any) -> ExemplarRecord:
    """Return a record of some classes with 20 images and four exemplars each, around axes of the feature space.

    Args:
        shown: classes that are drawn; the axes are theirs, then those of the others.
        others: classes that are seen, too.
        shift: how far the exemplars lie from their class towards the next one, 0 to 1.
        changes: of fields.
    """
    draw = generator(3, shown, others)
    axes = torch.eye(WIDTH)
    labels = torch.arange(shown).repeat_interleave(PER_CLASS)
    features = axes[labels] + 0.1 * torch.randn(len(labels), WIDTH, generator=draw)
    kept = torch.arange(shown).repeat_interleave(KEPT)
    exemplars = (1 - shift) * axes[kept] + shift * axes[(kept + 1) % shown]
    before = torch.randint(60, 200, (len(kept), 3, SIDE, SIDE), generator=draw).byte()
    rows = torch.cat([PER_CLASS * label + torch.arange(KEPT) for label in range(shown)])
    made = ExemplarRecord(
        mode="nme",
        images_before=before,
        images_after=before + 2,
        labels=kept,
        chosen_in=torch.zeros_like(kept),
        drift=torch.rand(len(kept), generator=draw),
        drift_labels=kept,
        features=5 * features,
        feature_labels=labels,
        exemplar_features=exemplars + 0.05 * torch.randn(exemplars.shape, generator=draw),
        picks_random=rows,
        picks_herding=rows + KEPT,
        class_means=axes[shown : shown + others],
    )
    return replace(made, **changes)


def put(folder: Path, made: ExemplarRecord, task: int = 0, class_names: list[str] | None = None) -> Path:
    """Write a record as the engine does, of classes a, b, c, ... unless they are named; return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    seen = int(made.labels.max()) + 1 + len(made.class_means)
    names = class_names or [chr(ord("a") + label) for label in range(seen)]
    write_exemplar_record(made, names, SimpleNamespace(index=task), folder)  # type: ignore[arg-type]
    return folder / f"exemplars_{task:03d}.npz"
