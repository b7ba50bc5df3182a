"""The store of kept samples: rows grouped by class, ranked inside a class, saved with the method's state."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmcl.images import FileImages, FloatPixels, Images, MixedImages
from mmcl.memory.class_rows import class_rows
from mmcl.protocol import Samples


class RowStore(nn.Module):
    """Kept samples of past classes, best first inside each class.

    A row is a payload with its label and source. The payload is whatever :class:`mmcl.protocol.Samples` holds, of one
    kind: uint8 pixels, float pixels, values served as they are (any tensor with N as first dimension) or files. The
    place of a row inside its class is its rank, so that any prefix of a class is what a smaller memory would hold.

    Rows are copies, stay on the device they came on, and are neither parameters nor buffers: moving the
    module does not move them, and they are saved through ``state_dict`` as tensors and plain types.

    Attributes:
        version: grows with every change; what was derived from the rows at an older version is out of date.
    """

    def __init__(self) -> None:
        super().__init__()
        self._of_class: dict[int, Samples] = {}
        self.version = 0

    def __len__(self) -> int:
        return sum(len(samples) for samples in self._of_class.values())

    @property
    def classes(self) -> list[int]:
        """Classes that have rows, ascending."""
        return sorted(self._of_class)

    def counts(self, classes: int) -> Tensor:
        """Return the number of rows of each class in ``range(classes)``, int64 ``(classes,)``."""
        return torch.tensor([len(self._of_class.get(label, ())) for label in range(classes)])

    def rows(self, label: int) -> Samples:
        """Return the rows of a class in rank order.

        Raises:
            KeyError: the class has no rows.
        """
        return self._of_class[label]

    def samples(self) -> Samples:
        """Return all rows by class ascending, in rank order inside a class.

        Raises:
            LookupError: the store is empty, so that the kind of its payload is unknown.
        """
        if not self._of_class:
            raise LookupError("the memory is empty; ask len() first, or join_after() what it should follow")
        return Samples.concatenate([self._of_class[label] for label in self.classes])

    def join_after(self, fresh: Samples) -> Samples:
        """Return the fresh samples followed by all rows: the training set of a method with replay."""
        return Samples.concatenate([fresh, *(self._of_class[label] for label in self.classes)])

    def append(self, samples: Samples) -> None:
        """Add samples of one or more classes, in rank order inside each class, behind the rows of these
        classes.

        Files may lie below another folder than those kept, when the data has moved between two starts of a
        run; the folder of the latest samples then holds for all.

        Raises:
            TypeError: the kind of payload differs from the one kept, or is mixed.
        """
        if not len(samples):
            return
        self._require_payload_of(samples, self._of_class.values())
        self._take_over_folder(samples)
        for group in class_rows(samples.labels):
            label, added = int(samples.labels[group[0]]), samples.select(group)
            kept = self._of_class.get(label)
            self._of_class[label] = added if kept is None else Samples.concatenate([kept, added])
        self.version += 1

    def keep_first(self, per_class: int) -> None:
        """Cut every class to its ``per_class`` best rows; 0 empties the store."""
        for label, samples in list(self._of_class.items()):
            if per_class <= 0:
                del self._of_class[label]
            elif len(samples) > per_class:
                self._of_class[label] = samples.select(torch.arange(per_class, device=samples.labels.device))
        self.version += 1

    def remove_classes(self, labels: Iterable[int]) -> None:
        """Drop all rows of these classes; classes without rows are passed over."""
        for label in labels:
            self._of_class.pop(label, None)
        self.version += 1

    def replace_class(self, label: int, samples: Samples) -> None:
        """Put samples, in rank order, in the place of a class's rows; no samples at all drop the class.

        Raises:
            ValueError: a sample has another label.
            TypeError: the kind of payload differs from the other classes'.
        """
        if (samples.labels != label).any():
            raise ValueError(f"rows for class {label} carry labels {sorted(set(samples.labels.tolist()))}")
        others = [kept for other, kept in self._of_class.items() if other != label]
        self._require_payload_of(samples, others)
        self._of_class.pop(label, None)
        self.append(samples)
        self.version += 1

    @property
    def payload_bytes(self) -> int:
        """Bytes of the kept images or features: of their tensors, or of their files."""
        return sum(samples.images.nbytes for samples in self._of_class.values())

    @property
    def memory_bytes(self) -> int:
        """Bytes of everything kept: payload, labels and sources."""
        index = sum(samples.labels.nbytes + samples.sources.nbytes for samples in self._of_class.values())
        return self.payload_bytes + index

    def get_extra_state(self) -> dict[str, Any]:
        """Return the rows as tensors and plain types, which ``torch.load(weights_only=True)`` reads."""
        if not self._of_class:
            return {}
        samples = self.samples()
        state: dict[str, Any] = {"labels": samples.labels, "sources": samples.sources}
        if isinstance(samples.images, FileImages):
            return state | {"root": str(samples.images.root), "paths": list(samples.images.paths)}
        if isinstance(samples.images, FloatPixels):
            return state | {"float_pixels": samples.images.values}
        return state | {"images": samples.images}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Put saved rows in the place of all rows; the version grows, as with every other change."""
        self._of_class = {}
        if "labels" in state:
            self.append(Samples(_saved_images(state), state["labels"], state["sources"]))
        self.version += 1

    def _take_over_folder(self, samples: Samples) -> None:
        if not isinstance(samples.images, FileImages):
            return
        for label, kept in self._of_class.items():
            if isinstance(kept.images, FileImages):
                self._of_class[label] = replace(kept, images=replace(kept.images, root=samples.images.root))

    @staticmethod
    def _require_payload_of(samples: Samples, kept: Iterable[Samples]) -> None:
        if isinstance(samples.images, MixedImages):
            raise TypeError("the memory keeps images of one kind, the added rows are of several")
        added = _payload_kind(samples.images)
        for kind in {_payload_kind(part.images) for part in kept} - {added}:
            raise TypeError(f"the memory keeps {kind}, the added rows are {added}")


def _saved_images(state: dict[str, Any]) -> Images:
    if "paths" in state:
        return FileImages(Path(state["root"]), tuple(state["paths"]))
    images: Images = FloatPixels(state["float_pixels"]) if "float_pixels" in state else state["images"]
    return images


def _payload_kind(images: Images) -> str:
    assert not isinstance(images, MixedImages)
    if isinstance(images, FileImages):
        return "files"
    if isinstance(images, FloatPixels):
        return f"float pixels of shape {tuple(images.values.shape[1:])}"
    return f"{images.dtype} rows of shape {tuple(images.shape[1:])}"
