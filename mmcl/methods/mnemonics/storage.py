"""How learned exemplars are kept: as they are, or as bytes like any other image (Mnemonics, CVPR 2020)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mmcl.pixels import PixelScale


def as_floats(pixels: Tensor) -> Tensor:
    """Keep pixels on the scale 0 to 255 as they are, float32, neither rounded nor clamped."""
    return pixels


def as_rounded_bytes(pixels: Tensor) -> Tensor:
    """Round pixels to the nearest of 0, 1, ..., 255, uint8."""
    return pixels.round().clamp(0, 255).to(torch.uint8)


def as_truncated_bytes(pixels: Tensor) -> Tensor:
    """Cut the fraction off and let what lies outside 0 to 255 wrap around, uint8, as the released code does.

    It darkens: about every sixth pixel loses 1 by being normalised and kept alone.
    """
    # Floats outside 0 to 255 have no defined byte; integers have.
    return pixels.to(torch.int32).to(torch.uint8)


STORAGES: dict[str, Callable[[Tensor], Tensor]] = {
    "float": as_floats,
    "uint8_round": as_rounded_bytes,
    "uint8_trunc": as_truncated_bytes,
}


def stored(images: Tensor, scale: PixelScale, storage: str) -> Tensor:
    """Return exemplars as the memory keeps them.

    Args:
        images: normalised, float32 ``(R, 3, H, W)``.
        scale: takes them back to the scale 0 to 255.
        storage: a name of :data:`STORAGES`.

    Returns:
        Pixels ``(R, 3, H, W)``: float32 with ``storage="float"``, uint8 otherwise.
    """
    return STORAGES[storage](scale.denormalise(images.detach()))
