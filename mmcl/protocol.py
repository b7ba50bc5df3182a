"""The words that engine, benchmarks and methods share: samples, batch, task, stage."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from mmcl.config.schema import Schedule


@dataclass(frozen=True)
class FileImages:
    """Images that stay in files until a loader reads them.

    Attributes:
        root: folder below which the files lie.
        paths: path of each image relative to ``root``; ``len(paths)`` is N.
    """

    root: Path
    paths: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, rows: Tensor) -> FileImages:
        return FileImages(self.root, tuple(self.paths[row] for row in rows.tolist()))

    @property
    def nbytes(self) -> int:
        """Size of the files in bytes."""
        return sum((self.root / path).stat().st_size for path in self.paths)


Images = Tensor | FileImages


@dataclass(frozen=True)
class Samples:
    """Images with their labels.

    Attributes:
        images: uint8 pixels ``(N, 3, H, W)``, or files.
        labels: class as position in the class order, int64 ``(N,)``.
        sources: identity of each image in the benchmark's split, int64 ``(N,)``; keys its augmentation.
    """

    images: Images
    labels: Tensor
    sources: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, rows: Tensor) -> Samples:
        """Return the rows named by an int64 index or a bool mask ``(N,)``."""
        if rows.dtype == torch.bool:
            rows = rows.nonzero().flatten()
        return Samples(self.images[rows], self.labels[rows], self.sources[rows])

    @staticmethod
    def concatenate(parts: Sequence[Samples]) -> Samples:
        """Join parts of one benchmark in the given order; empty parts are welcome, no part at all is not."""
        labels, sources = (torch.cat([getattr(part, name) for part in parts]) for name in ("labels", "sources"))
        images = [part.images for part in parts]
        if isinstance(images[0], FileImages):
            paths = tuple(path for files in images for path in files.paths)  # type: ignore[union-attr]
            return Samples(FileImages(images[0].root, paths), labels, sources)
        return Samples(torch.cat(images), labels, sources)  # type: ignore[arg-type]


class Batch(NamedTuple):
    """What a network sees at once.

    ``images`` float32 ``(B, 3, H, W)`` normalised, ``labels`` int64 ``(B,)``, ``sources`` int64 ``(B,)``. ``share`` is
    the factor that turns this process's mean loss into its part of the global mean: 1 on one process.
    """

    images: Tensor
    labels: Tensor
    sources: Tensor
    share: float = 1.0


class PlainBatches(Protocol):
    """Batches of samples under the test transform, in order, on a device."""

    def __call__(self, samples: Samples, device: torch.device) -> Iterator[Batch]:
        """Yield all samples, the last batch being what remains."""
        ...


@dataclass(frozen=True)
class Task:
    """One step of a benchmark's sequence.

    Attributes:
        index: position in the sequence, from 0.
        known: number of classes seen before; the new ones are ``range(known, seen)``.
        seen: number of classes seen, this task's included.
        train: training images of the new classes, by class, in the order of the data set.
        test: test images of all seen classes, by class.
        past: training images of all earlier tasks. For upper bounds only: no method with a budget may ask.
        plain_batches: reads samples under the test transform.
    """

    index: int
    known: int
    seen: int
    train: Samples
    test: Samples
    past: Callable[[], Samples] = field(repr=False)
    plain_batches: PlainBatches = field(repr=False)

    @property
    def size(self) -> int:
        """Number of new classes."""
        return self.seen - self.known


@dataclass(frozen=True)
class Stage:
    """One training pass inside a task.

    Attributes:
        name: what the pass is for, as it appears in logs and results.
        samples: what it trains on, in data-set order before shuffling.
        schedule: epochs, batch size and optimiser.
    """

    name: str
    samples: Samples
    schedule: Schedule
