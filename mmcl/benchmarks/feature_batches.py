"""Batches of features: training steps whose epoch chooses the view, and a stream of test samples in a given order."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from mmcl.benchmarks.resident import StepBlock
from mmcl.protocol import FeatureBatch, ImageFeatures


class ResidentFeatures:
    """Features of one stage, copied to the device once; epoch e is served view ``e mod V``."""

    def __init__(self, features: ImageFeatures) -> None:
        self.features, self.labels, self.sources = features.features, features.labels, features.sources

    def batch(self, rows: Tensor, epoch: int, share: float) -> FeatureBatch:
        """Build the batch of some rows, int64 ``(B,)``, on the device of the rows."""
        if self.features.device != rows.device:
            self.features = self.features.to(rows.device)
            self.labels, self.sources = self.labels.to(rows.device), self.sources.to(rows.device)
        view = epoch % self.features.shape[1]
        features = self.features[:, view : view + 1].index_select(0, rows).float()
        return FeatureBatch(features, self.labels.index_select(0, rows), self.sources.index_select(0, rows), share)


class FeatureSteps:
    """The batches of a block, each built when the iteration reaches it."""

    def __init__(self, block: StepBlock, features: ResidentFeatures) -> None:
        self.block = block
        self.features = features

    def __len__(self) -> int:
        return len(self.block.sizes)

    def __iter__(self) -> Iterator[FeatureBatch]:
        for rows, share in zip(torch.split(self.block.rows, self.block.sizes), self.block.shares, strict=True):
            yield self.features.batch(rows, self.block.epoch, share)


class StreamLoader:
    """Test samples in the order of a stream, from a position on, in batches that do not depend on the position.

    Args:
        features: of all test samples, perhaps mapped from a file: only the rows of a batch are read.
        order: row at each place of the stream, int64 ``(N,)``.
        batch_size: samples of all processes together.
        start: first batch to serve.
        part: (rank, world): every world-th sample of each batch from the rank-th on; ``(0, 1)`` serves all. A process
            without a sample gets the first one with share 0.
    """

    def __init__(
        self, features: ImageFeatures, order: Tensor, batch_size: int, start: int = 0, part: tuple[int, int] = (0, 1)
    ) -> None:
        self.features = features
        self.batches = torch.split(order, batch_size)[start:]
        self.part = part

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[FeatureBatch]:
        rank, world = self.part
        images = self.features
        for batch in self.batches:
            rows = batch[rank::world]
            share = len(rows) * world / len(batch)
            rows = rows if len(rows) else batch[:1]
            yield FeatureBatch(images.features[rows].float(), images.labels[rows], images.sources[rows], share)
