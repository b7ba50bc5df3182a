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
)
from mmcl.benchmarks.order import Order
from mmcl.images import FileImages, FloatPixels, ImagesOfOneKind, MixedImages
from mmcl.pixels import normalise_
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
    """How pixels become training images.

    Attributes:
        augmentation: what may happen to an image.
        mean: mean of each channel on the scale 0 to 1.
        std: standard deviation of each channel on the scale 0 to 1.
        exact: alter image by image with PIL instead of batched on the device; not so float pixels, which PIL cannot
            hold: they are altered in batches all the same.
    """

    augmentation: Augmentation
    mean: tuple[float, ...]
    std: tuple[float, ...]
    exact: bool = False


class ResidentSamples:
    """Training samples of one stage, copied to the device once; pixels are served augmented, float values as they are.

    Args:
        samples: samples with uint8 pixels ``(N, 3, H, W)``, float pixels of one size, both of them mixed; or with
            float32 values ``(N, ...)``.
        recipe: how pixels are altered.
        draw: what the stage's randomness is for, such as ``(seed, task, stage)``.
    """

    def __init__(self, samples: Samples, recipe: Recipe, draw: tuple[int | str, ...]) -> None:
        self.labels, self.sources = samples.labels, samples.sources
        images = samples.images
        self._is_final = isinstance(images, Tensor) and images.is_floating_point()
        self._parts = [_tensor(part) for part in (images.parts if isinstance(images, MixedImages) else (images,))]
        self._index = [images.part_of, images.places] if isinstance(images, MixedImages) else []
        self.recipe = recipe
        self.draw = draw

    def batch(self, rows: Tensor, epoch: int, share: float) -> Batch:
        """Build the batch of some rows, int64 ``(B,)``, on the device of the rows."""
        if self._parts[0].device != rows.device:
            self._move(rows.device)
        sources = self.sources.index_select(0, rows)
        if self._is_final:
            images = self._parts[0].index_select(0, rows)
        else:
            draw_key = randomness.key(*self.draw, "augment", epoch)
            numbers = randomness.uniforms(draw_key, sources, DRAWS_PER_IMAGE)
            images = normalise_(self._altered(rows, numbers), self.recipe.mean, self.recipe.std)
        return Batch(images, self.labels.index_select(0, rows), sources, share)

    def _move(self, device: torch.device) -> None:
        self._parts = [part.to(device) for part in self._parts]
        self._index = [part.to(device) for part in self._index]
        self.labels, self.sources = self.labels.to(device), self.sources.to(device)

    def _altered(self, rows: Tensor, numbers: Tensor) -> Tensor:
        if not self._index:
            return self._altered_part(self._parts[0].index_select(0, rows), numbers)
        part_of, places = (index.index_select(0, rows) for index in self._index)
        # Every part alters the whole batch and then gives its own images: to ask the device which these are would make
        # the host wait for it in every step.
        altered = None
        for number, part in enumerate(self._parts):
            here = part_of == number
            images = self._altered_part(part.index_select(0, torch.where(here, places, 0)), numbers)
            altered = images if altered is None else torch.where(here[:, None, None, None], images, altered)
        assert altered is not None
        return altered

    def _altered_part(self, images: Tensor, numbers: Tensor) -> Tensor:
        pad = self.recipe.augmentation.pad
        if self.recipe.exact and not images.is_floating_point():
            drawn = alterations(numbers.cpu(), self.recipe.augmentation)
            return augment_exact(images.cpu(), *drawn, pad).to(images.device, torch.float32)
        return augment(images, *alterations(numbers, self.recipe.augmentation), pad)


def _tensor(images: ImagesOfOneKind) -> Tensor:
    assert not isinstance(images, FileImages)
    return images.values if isinstance(images, FloatPixels) else images


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
