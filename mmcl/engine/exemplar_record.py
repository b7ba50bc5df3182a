"""``exemplars_<task>.npz`` in the directory of a run: what ``mmcl exemplars`` draws."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mmcl.memory.exemplar_record import ExemplarRecord
from mmcl.protocol import ClassTask
from mmcl.whole_files import write_whole

SCHEMA = 1


@runtime_checkable
class KeepsExemplarRecord(Protocol):
    """A method that can tell about its exemplars when it has learned a task."""

    def exemplar_record(self, task: ClassTask) -> ExemplarRecord | None:
        """Return what there is to draw; None where it is not wanted after this task."""
        ...


def write_exemplar_record(record: ExemplarRecord, class_names: list[str], task: ClassTask, folder: Path) -> None:
    """Write a record, whole or not at all: images as uint8, features as float16 of unit length.

    Args:
        record: tensors on any device.
        class_names: of all classes seen so far, by label.
        task: the one that was just learned.
        folder: directory of the run.

    Raises:
        UserError: the disk is full.
    """
    values = {
        "schema": np.array(SCHEMA),
        "mode": np.array(record.mode),
        "class_names": np.array(class_names, dtype=np.str_),
        "images_before": _grey_values(record.images_before),
        "images_after": _grey_values(record.images_after),
        "drift": record.drift.detach().float().cpu().numpy(),
    }
    for name in ("features", "exemplar_features", "class_means"):
        unit = functional.normalize(getattr(record, name).detach().float(), dim=1)
        values[name] = unit.half().cpu().numpy()
    for name in ("labels", "chosen_in", "drift_labels", "feature_labels", "picks_random", "picks_herding"):
        values[name] = getattr(record, name).cpu().numpy().astype(np.int32)

    def write(part: Path) -> None:
        with part.open("wb") as file:
            np.savez_compressed(file, **values)

    write_whole(folder / f"exemplars_{task.index:03d}.npz", write)


def _grey_values(images: Tensor) -> Any:
    if images.dtype != torch.uint8:
        images = images.detach().round().clamp(0, 255).byte()
    return images.cpu().numpy()
