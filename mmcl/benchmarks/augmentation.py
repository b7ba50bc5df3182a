"""Augmentation of small images, batched on the device: crop, horizontal flip, brightness.

The recipe of the class-incremental papers for CIFAR: ``RandomCrop(32, padding=4)``,
``RandomHorizontalFlip()``, ``ColorJitter(brightness=63/255)`` on 8-bit images. Every image of a batch gets
its own numbers, and these depend on the image and on what the draw is for alone, never on the other images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

DRAWS_PER_IMAGE = 4


@dataclass(frozen=True)
class Augmentation:
    """What may happen to a training image.

    Attributes:
        pad: black pixels added on each side before the crop back to the size; 0 means no shift.
        flip: mirror every second image.
        brightness: factors are drawn from [1 - brightness, 1 + brightness]; 0 leaves the brightness.
    """

    pad: int = 4
    flip: bool = True
    brightness: float = 63 / 255


class Alterations(NamedTuple):
    """What happens to each image of a batch.

    ``offsets`` int64 ``(B, 2)``, row and column of the crop in the padded image; ``flips`` bool ``(B,)``;
    ``brightness`` float32 ``(B,)``.
    """

    offsets: Tensor
    flips: Tensor
    brightness: Tensor


def alterations(numbers: Tensor, augmentation: Augmentation) -> Alterations:
    """Turn uniform numbers in [0, 1), float32 ``(B, 4)``, into alterations."""
    offsets = (numbers[:, :2] * (2 * augmentation.pad + 1)).long()
    flips = numbers[:, 2] < (0.5 if augmentation.flip else 0.0)
    brightness = 1.0 - augmentation.brightness + numbers[:, 3] * (2.0 * augmentation.brightness)
    return Alterations(offsets, flips, brightness)


def augment(images: Tensor, offsets: Tensor, flips: Tensor, brightness: Tensor, pad: int) -> Tensor:
    """Crop, flip and brighten images as PIL does, without leaving their device.

    Args:
        images: uint8 ``(B, 3, H, W)``; or float32 pixels on the scale 0 to 255, which PIL cannot hold.
        offsets: row and column of the crop in the image padded by ``pad``, int64 ``(B, 2)``.
        flips: which images are mirrored after the crop, bool ``(B,)``.
        brightness: factor for each image, float32 ``(B,)``.
        pad: black pixels on each side.

    Returns:
        Float32 ``(B, 3, H, W)``. Of uint8 images, whole numbers from 0 to 255, the pixels that PIL would give. Of
        float32 images, the same products neither rounded nor clamped.
    """
    size, channels, height, width = images.shape
    columns = torch.arange(width, device=images.device)
    rows = torch.arange(height, device=images.device) + (offsets[:, :1] - pad)
    columns = torch.where(flips[:, None], width - 1 - columns, columns) + (offsets[:, 1:] - pad)
    # What lies outside the image reads some pixel inside it, times zero: cheaper than a padded copy.
    row_factor = ((rows >= 0) & (rows < height)) * brightness[:, None]
    factor = row_factor[:, :, None] * ((columns >= 0) & (columns < width))[:, None, :]
    positions = rows.clamp(0, height - 1)[:, :, None] * width + columns.clamp(0, width - 1)[:, None, :]
    index = positions.view(size, 1, height * width).expand(size, channels, height * width)
    # All in place: on a CPU, fresh memory for each step costs more than the arithmetic.
    pixels = images.flatten(2).gather(2, index).view(images.shape).to(torch.float32).mul_(factor[:, None])
    if images.is_floating_point():
        return pixels
    # PIL blends with black in float32 and truncates: pixels are not negative, so floor is truncation.
    return pixels.floor_().clamp_(max=255.0)


def augment_exact(images: Tensor, offsets: Tensor, flips: Tensor, brightness: Tensor, pad: int) -> Tensor:
    """Do what :func:`augment` does, with PIL and image by image.

    Takes tensors on the CPU, returns uint8 ``(B, 3, H, W)``.
    """
    altered = []
    for pixels, (row, column), flip, factor in zip(
        images.permute(0, 2, 3, 1).numpy(), offsets.tolist(), flips.tolist(), brightness.tolist(), strict=True
    ):
        height, width = pixels.shape[:2]
        image = ImageOps.expand(Image.fromarray(pixels), border=pad, fill=0)
        image = image.crop((column, row, column + width, row + height))
        if flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        altered.append(np.asarray(ImageEnhance.Brightness(image).enhance(factor)))
    return torch.from_numpy(np.stack(altered)).permute(0, 3, 1, 2).contiguous()
