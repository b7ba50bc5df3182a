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
from mmcl.benchmarks.order import Order, Step
from mmcl.errors import UserError
from mmcl.images import FloatPixels, Images, ImagesOfOneKind, MixedImages
from mmcl.pixels import PixelScale
from mmcl.protocol import Batch, Samples

UNREADABLE = (OSError, EOFError, SyntaxError, ValueError, LookupError, Image.DecompressionBombError)
Transform = Callable[[Image.Image | Tensor], Tensor]
T = TypeVar("T")


class ImageTransforms(NamedTuple):
    """Transforms to pixels ``(3, H, W)`` of the size that the network sees: with augmentation, and without.

    From a PIL image to uint8 pixels. The training transform also takes float32 pixels ``(3, H, W)`` on the scale 0 to
    255, draws the same numbers for them, and neither rounds nor clamps them.
    """

    train: Transform
    test: Transform


def open_image(images: Images, row: int) -> Image.Image:
    """Read one image as RGB, from its file or out of uint8 pixels ``(N, 3, H, W)``.

    Raises:
        UserError: the file is missing, truncated or no image.
        TypeError: float pixels, which no RGB image can hold.
    """
    if isinstance(images, MixedImages):
        return open_image(images.parts[int(images.part_of[row])], int(images.places[row]))
    if isinstance(images, FloatPixels):
        raise TypeError("float pixels have no RGB image: round and clamp them first")
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
    """Training steps of images that are read one by one, each a list with one batch.

    A batch has uint8 pixels; or normalised images, if float pixels are among them.

    The numbers behind an image's augmentation are keyed by (draw, epoch, source): neither the worker nor the
    process that reads an image changes what becomes of it. Lightning finds the order as ``sampler`` and sets
    its epoch.

    Args:
        samples: samples whose images are files, or pixels in memory, perhaps of another size than the network sees.
        order: which rows each step takes.
        draw: what the stage's randomness is for, such as ``(seed, task, stage)``.
        transform: the training transform; may draw from PyTorch's default CPU generator.
        workers: processes that read; 0 reads in this one.
        scale: by what batches with float pixels are normalised.
    """

    def __init__(
        self,
        samples: Samples,
        order: Order,
        draw: tuple[int | str, ...],
        transform: Transform,
        workers: int,
        scale: PixelScale,
    ) -> None:
        self.sampler = order
        self.steps = _TrainingSteps(samples, draw, transform, scale)
        self.workers = workers

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[list[Batch]]:
        for batch in fetched(self.steps, self.sampler, self.workers):
            yield [batch]


class ImageLoader:
    """Batches of images that are read one by one, in order, without augmentation.

    A batch has uint8 pixels; or normalised images, if float pixels are among them.

    Args:
        samples: samples whose images are files or pixels in memory. Float pixels, and uint8 pixels of another shape
            than ``own_shape``, have the size that the network sees: they are taken as they are.
        transform: the test transform.
        own_shape: shape ``(3, H, W)`` of the images that the data set holds in memory; None where they lie in files.
        batch_size: images of a batch.
        workers: processes that read; 0 reads in this one.
        scale: by what batches with float pixels are normalised.
    """

    def __init__(
        self,
        samples: Samples,
        transform: Transform,
        own_shape: tuple[int, ...] | None,
        batch_size: int,
        workers: int,
        scale: PixelScale,
    ) -> None:
        self.parts = _PlainParts(samples, transform, own_shape, scale)
        self.row_parts = torch.split(torch.arange(len(samples)), batch_size) if len(samples) else ()
        self.workers = workers

    def __len__(self) -> int:
        return len(self.row_parts)

    def __iter__(self) -> Iterator[Batch]:
        return fetched(self.parts, self.row_parts, self.workers)


class _TrainingSteps(Dataset[Batch]):
    def __init__(self, samples: Samples, draw: tuple[int | str, ...], transform: Transform, scale: PixelScale) -> None:
        self.samples, self.draw, self.transform, self.scale = samples, draw, transform, scale

    def __getitem__(self, step: Step) -> Batch:
        part = self.samples.select(step.rows)
        pixels = []
        with torch.random.fork_rng(devices=[]):
            for (images, row), source in zip(_each_image(part.images), part.sources.tolist(), strict=True):
                draw_key = randomness.key(*self.draw, "augment", step.epoch, source)
                torch.default_generator.manual_seed(draw_key)
                opened = images.values[row] if isinstance(images, FloatPixels) else open_image(images, row)
                pixels.append(self.transform(opened))
        return Batch(_stacked(pixels, self.scale), part.labels, part.sources, step.share)


class _PlainParts(Dataset[Batch]):
    def __init__(
        self, samples: Samples, transform: Transform, own_shape: tuple[int, ...] | None, scale: PixelScale
    ) -> None:
        self.samples, self.transform, self.own_shape, self.scale = samples, transform, own_shape, scale

    def __getitem__(self, rows: Tensor) -> Batch:
        part = self.samples.select(rows)
        pixels = [self._plain(images, row) for images, row in _each_image(part.images)]
        return Batch(_stacked(pixels, self.scale), part.labels, part.sources)

    def _plain(self, images: ImagesOfOneKind, row: int) -> Tensor:
        if isinstance(images, FloatPixels):
            return images.values[row]
        if isinstance(images, Tensor) and tuple(images.shape[1:]) != self.own_shape:
            return images[row]
        return self.transform(open_image(images, row))


def _each_image(images: Images) -> Iterator[tuple[ImagesOfOneKind, int]]:
    """Yield, for each image in order, the images of its kind and its row among them."""
    if isinstance(images, MixedImages):
        for part, row in zip(images.part_of.tolist(), images.places.tolist(), strict=True):
            yield images.parts[part], row
    else:
        yield from ((images, row) for row in range(len(images)))


def _stacked(pixels: list[Tensor], scale: PixelScale) -> Tensor:
    """Return uint8 pixels ``(B, 3, H, W)``; or normalised images, if some pixels are float values."""
    if any(image.is_floating_point() for image in pixels):
        return scale.normalise(torch.stack([image.to(torch.float32) for image in pixels]))
    return torch.stack(pixels)


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
