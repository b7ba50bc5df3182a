"""Images that are read one by one, transformed and batched by workers, with randomness keyed by image."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mmcl import randomness
from mmcl.benchmarks.order import Step, StepOrder
from mmcl.errors import UserError
from mmcl.protocol import Batch, Images, Samples

UNREADABLE = (OSError, EOFError, SyntaxError, ValueError, LookupError, Image.DecompressionBombError)
Transform = Callable[[Image.Image], Tensor]
T = TypeVar("T")


class ImageTransforms(NamedTuple):
    """Transforms from a PIL image to uint8 pixels ``(3, H, W)``: with augmentation, and without."""

    train: Transform
    test: Transform


def open_image(images: Images, row: int) -> Image.Image:
    """Read one image as RGB, from its file or out of uint8 pixels ``(N, 3, H, W)``.

    Raises:
        UserError: the file is missing, truncated or no image.
    """
    if isinstance(images, Tensor):
        return Image.fromarray(images[row].permute(1, 2, 0).numpy())
    path = images.root / images.paths[row]
    try:
        with Image.open(path) as image:
            rgb: Image.Image = image.convert("RGB")
            return rgb
    except UNREADABLE as error:
        raise UserError(
            f"cannot read the image {path}: {error}. Replace the file by a good copy, or delete it, and run again."
        ) from error


class ImageStepLoader:
    """Training steps of images that are read one by one, each a list with one batch of uint8 pixels.

    The numbers behind an image's augmentation are keyed by (draw, epoch, source): neither the worker nor the
    process that reads an image changes what becomes of it. Lightning finds the order as ``sampler`` and sets
    its epoch.

    Args:
        samples: samples whose images are files, or uint8 pixels in memory of another size than the network sees.
        order: which rows each step takes.
        draw: what the stage's randomness is for, such as ``(seed, task, stage)``.
        transform: from a PIL image to uint8 pixels; may draw from PyTorch's default CPU generator.
        workers: processes that read; 0 reads in this one.
    """

    def __init__(
        self,
        samples: Samples,
        order: StepOrder,
        draw: tuple[int | str, ...],
        transform: Transform,
        workers: int,
    ) -> None:
        self.sampler = order
        self.steps = _TrainingSteps(samples, draw, transform)
        self.workers = workers

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[list[Batch]]:
        for batch in fetched(self.steps, self.sampler, self.workers):
            yield [batch]


class ImageLoader:
    """Batches of images that are read one by one, in order, as uint8 pixels without augmentation."""

    def __init__(self, samples: Samples, transform: Transform, batch_size: int, workers: int) -> None:
        self.parts = _PlainParts(samples, transform)
        self.row_parts = torch.split(torch.arange(len(samples)), batch_size) if len(samples) else ()
        self.workers = workers

    def __len__(self) -> int:
        return len(self.row_parts)

    def __iter__(self) -> Iterator[Batch]:
        return fetched(self.parts, self.row_parts, self.workers)


class _TrainingSteps(Dataset[Batch]):
    def __init__(self, samples: Samples, draw: tuple[int | str, ...], transform: Transform) -> None:
        self.samples, self.draw, self.transform = samples, draw, transform

    def __getitem__(self, step: Step) -> Batch:
        part = self.samples.select(step.rows)
        pixels = []
        with torch.random.fork_rng(devices=[]):
            for row, source in enumerate(part.sources.tolist()):
                draw_key = randomness.key(*self.draw, "augment", step.epoch, source)
                torch.default_generator.manual_seed(draw_key)
                pixels.append(self.transform(open_image(part.images, row)))
        return Batch(torch.stack(pixels), part.labels, part.sources, step.share)


class _PlainParts(Dataset[Batch]):
    def __init__(self, samples: Samples, transform: Transform) -> None:
        self.samples, self.transform = samples, transform

    def __getitem__(self, rows: Tensor) -> Batch:
        part = self.samples.select(rows)
        pixels = [self.transform(open_image(part.images, row)) for row in range(len(part))]
        return Batch(torch.stack(pixels), part.labels, part.sources)


def fetched(parts: Dataset[T], requests: object, workers: int) -> Iterator[T]:
    """Fetch the requested parts in order. A worker's error reaches the user without its traceback."""
    loader = DataLoader(
        parts,
        sampler=requests,  # type: ignore[arg-type]
        batch_size=None,
        num_workers=min(workers, os.cpu_count() or 1),  # more would wait for each other, and torch would warn
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator().manual_seed(0),  # else the loader would draw from the default generator
    )
    try:
        yield from loader
    except UserError as error:
        raise UserError(str(error).rsplit("UserError: ", 1)[-1].strip()) from None
