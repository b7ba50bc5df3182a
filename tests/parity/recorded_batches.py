"""A benchmark that serves recorded batches in the recorded order, so that golden runs go through the engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

from mmcl.benchmarks.augmentation import Augmentation
from mmcl.benchmarks.class_incremental import ClassIncrementalBenchmark, ClassIncrementalBenchmarkConfig, RawData
from mmcl.protocol import Batch, ImageFeatures, Samples

Epochs = list[list[Batch]]


class RecordedBatches(ClassIncrementalBenchmark):
    """Data of a golden run, normalised as CIFAR-100; every stage trains on what ``epochs_of`` says.

    Args:
        data: images and labels, as :meth:`read` gives them.
        sizes: new classes of each task; those after the first are alike.
        order: the classes as they come.
        epochs_of: from the samples of a stage, its batch size, and what its order is for, to the batches of each epoch.
    """

    augmentation = Augmentation(pad=0, flip=False, brightness=0.0)
    mean, std = (0.5071, 0.4866, 0.4409), (0.2009, 0.1984, 0.2023)

    def __init__(
        self,
        data: RawData,
        sizes: list[int],
        order: list[int],
        epochs_of: Callable[[Samples, int, tuple[int | str, ...]], Epochs],
    ) -> None:
        super().__init__(ClassIncrementalBenchmarkConfig("", "golden", "", sizes[0], sizes[-1], 0, order, False, 0, 1))
        self.data, self.epochs_of = data, epochs_of

    def read(self) -> RawData:
        """Return the recorded images."""
        return self.data

    def serve_training(self, samples: Samples | ImageFeatures, batch_size: int, draw: tuple[int | str, ...]) -> None:
        """Look up the batches of the stage."""
        assert isinstance(samples, Samples)
        self._epochs = self.epochs_of(samples, batch_size, draw)

    def train_dataloader(self) -> Iterable[Any]:
        """Serve an epoch as one block."""
        return _Blocks(self._epochs)


class _Blocks:
    """The next epoch each time it is iterated."""

    def __init__(self, epochs: Epochs) -> None:
        self.epochs = iter(epochs)

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[list[Batch]]:
        yield next(self.epochs)


def batches_of(images: Iterable[torch.Tensor], labels: Iterable[torch.Tensor]) -> list[Batch]:
    """Return recorded images ``(B, 3, H, W)`` and labels ``(B,)`` of several steps as batches."""
    return [Batch(*pair, torch.arange(len(pair[1]))) for pair in zip(images, labels, strict=True)]
