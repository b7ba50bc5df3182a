"""Training samples whose pixels stay on the device, where the batches of a block are built one by one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

from mmcl import randomness
from mmcl.benchmarks.augmentation import (
    DRAWS_PER_IMAGE,
    Augmentation,
    alterations,
    augment,
    augment_exact,
    normalise_,
)
from mmcl.benchmarks.order import Order
from mmcl.protocol import Batch, Samples


class StepBlock(NamedTuple):
    """What the loader yields: the rows of several steps, so that one transfer and one engine round serve all.

    Attributes:
        epoch: epoch of the steps.
        rows: rows of all steps one after the other, int64 ``(sum(sizes),)``.
        sizes: number of rows of each step.
        shares: share of each step, see :class:`mmcl.benchmarks.order.Step`.
    """

    epoch: int
    rows: Tensor
    sizes: list[int]
    shares: list[float]


class BlockLoader:
    """Yields the steps of an order in blocks. Lightning finds the order as ``sampler`` and sets its epoch."""

    def __init__(self, order: Order, steps_per_block: int) -> None:
        self.sampler = order
        self.steps_per_block = steps_per_block

    def __len__(self) -> int:
        return -(-len(self.sampler) // self.steps_per_block)

    def __iter__(self) -> Iterator[StepBlock]:
        steps = iter(self.sampler)
        while block := list(islice(steps, self.steps_per_block)):
            rows = torch.cat([step.rows for step in block])
            sizes = [len(step.rows) for step in block]
            yield StepBlock(block[0].epoch, rows, sizes, [step.share for step in block])


@dataclass(frozen=True)
class Recipe:
    """How uint8 pixels become training images.

    Attributes:
        augmentation: what may happen to an image.
        mean: mean of each channel on the scale 0 to 1.
        std: standard deviation of each channel on the scale 0 to 1.
        exact: alter image by image with PIL instead of batched on the device.
    """

    augmentation: Augmentation
    mean: tuple[float, ...]
    std: tuple[float, ...]
    exact: bool = False


class ResidentSamples:
    """Training samples of one stage, copied to the device once; pixels are served augmented, float values as they are.

    Args:
        samples: samples with uint8 pixels ``(N, 3, H, W)`` or float32 values ``(N, ...)``.
        recipe: how pixels are altered.
        draw: what the stage's randomness is for, such as ``(seed, task, stage)``.
    """

    def __init__(self, samples: Samples, recipe: Recipe, draw: tuple[int | str, ...]) -> None:
        assert isinstance(samples.images, Tensor)
        self.images, self.labels, self.sources = samples.images, samples.labels, samples.sources
        self.recipe = recipe
        self.draw = draw

    def batch(self, rows: Tensor, epoch: int, share: float) -> Batch:
        """Build the batch of some rows, int64 ``(B,)``, on the device of the rows."""
        if self.images.device != rows.device:
            self.images = self.images.to(rows.device)
            self.labels, self.sources = self.labels.to(rows.device), self.sources.to(rows.device)
        images, sources = self.images.index_select(0, rows), self.sources.index_select(0, rows)
        if not images.is_floating_point():
            draw_key = randomness.key(*self.draw, "augment", epoch)
            numbers = randomness.uniforms(draw_key, sources, DRAWS_PER_IMAGE)
            images = normalise_(self._altered(images, numbers), self.recipe.mean, self.recipe.std)
        return Batch(images, self.labels.index_select(0, rows), sources, share)

    def _altered(self, images: Tensor, numbers: Tensor) -> Tensor:
        pad = self.recipe.augmentation.pad
        if self.recipe.exact:
            drawn = alterations(numbers.cpu(), self.recipe.augmentation)
            return augment_exact(images.cpu(), *drawn, pad).to(images.device, torch.float32)
        return augment(images, *alterations(numbers, self.recipe.augmentation), pad)


class BlockBatches:
    """The batches of a block, each built when the iteration reaches it."""

    def __init__(self, block: StepBlock, samples: ResidentSamples) -> None:
        self.block = block
        self.samples = samples

    def __len__(self) -> int:
        return len(self.block.sizes)

    def __iter__(self) -> Iterator[Batch]:
        rows_of_steps = torch.split(self.block.rows, self.block.sizes)
        for rows, share in zip(rows_of_steps, self.block.shares, strict=True):
            yield self.samples.batch(rows, self.block.epoch, share)
