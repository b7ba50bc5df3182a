"""Random crops of images, resized to a square.

Boxes follow torchvision's ``RandomResizedCrop``: ten attempts at an area and an aspect ratio, and the largest centred
box of a permitted ratio when all fail.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

SCALE, RATIO = (0.5, 1.0), (3 / 4, 4 / 3)
ATTEMPTS = 10
CROP_DRAWS = 2 * ATTEMPTS + 3
INTERPOLATIONS = ("bilinear", "bicubic")


class Crops(NamedTuple):
    """N crops.

    ``tops``, ``lefts``, ``heights``, ``widths`` int64 ``(N,)`` in pixels of the image; ``flips`` bool ``(N,)``: which
    are mirrored afterwards.
    """

    tops: Tensor
    lefts: Tensor
    heights: Tensor
    widths: Tensor
    flips: Tensor

    def select(self, rows: slice) -> Crops:
        """Return some of them."""
        return Crops(*(part[rows] for part in self))


def random_crops(numbers: Tensor, image_height: Tensor, image_width: Tensor) -> Crops:
    """Turn uniform numbers in [0, 1), ``(N, 23)``, into crops of images of the given sizes, int64 ``(N,)``."""
    numbers = numbers.double()
    tall, wide = image_height[:, None], image_width[:, None]
    area = (SCALE[0] + numbers[:, :ATTEMPTS] * (SCALE[1] - SCALE[0])) * (tall * wide)
    low, high = math.log(RATIO[0]), math.log(RATIO[1])
    ratio = (low + numbers[:, ATTEMPTS : 2 * ATTEMPTS] * (high - low)).exp()
    widths, heights = (area * ratio).sqrt().round().long(), (area / ratio).sqrt().round().long()
    fits = (widths > 0) & (widths <= wide) & (heights > 0) & (heights <= tall)
    first = fits.long().argmax(1, keepdim=True)
    fallback_heights, fallback_widths = _largest_centred(image_height, image_width)
    some = fits.any(1)
    heights = torch.where(some, heights.gather(1, first)[:, 0], fallback_heights)
    widths = torch.where(some, widths.gather(1, first)[:, 0], fallback_widths)
    free_rows, free_columns = image_height - heights, image_width - widths
    tops = torch.where(some, (numbers[:, -3] * (free_rows + 1)).long(), free_rows // 2)
    lefts = torch.where(some, (numbers[:, -2] * (free_columns + 1)).long(), free_columns // 2)
    return Crops(tops, lefts, heights, widths, numbers[:, -1] < 0.5)


def _largest_centred(image_height: Tensor, image_width: Tensor) -> tuple[Tensor, Tensor]:
    """Return height and width of the largest box whose ratio is permitted."""
    heights = torch.minimum(image_height, (image_width / RATIO[0]).round().long())
    widths = torch.minimum(image_width, (image_height * RATIO[1]).round().long())
    return heights, widths


def resize_crops(image: Tensor, crops: Crops, size: int, interpolation: str) -> Tensor:
    """Resize crops of one image to squares and mirror some; antialiased as by Pillow, up to a rounding of one level.

    Args:
        image: uint8 ``(3, H, W)`` on the CPU, fastest where the colours of a pixel lie side by side.
        crops: N of them.
        size: side S of the square.
        interpolation: ``bilinear`` or ``bicubic``.

    Returns:
        uint8 ``(N, 3, S, S)``.
    """
    resized = torch.empty(len(crops.tops), 3, size, size, dtype=torch.uint8)
    for row, (top, left, height, width, flip) in enumerate(zip(*(part.tolist() for part in crops), strict=True)):
        box = image[None, :, top : top + height, left : left + width]
        square = functional.interpolate(box, (size, size), mode=interpolation, align_corners=False, antialias=True)[0]
        resized[row] = square.flip(2) if flip else square
    return resized


def crop_exact(image: Image.Image, crops: Crops, size: int, interpolation: str) -> list[Image.Image]:
    """Do what :func:`resize_crops` does with Pillow, as ``RandomResizedCrop`` and ``RandomHorizontalFlip`` do."""
    resampling = Image.Resampling[interpolation.upper()]
    squares = []
    for top, left, height, width, flip in zip(*(part.tolist() for part in crops), strict=True):
        square = image.crop((left, top, left + width, top + height)).resize((size, size), resampling)
        squares.append(square.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else square)
    return squares
