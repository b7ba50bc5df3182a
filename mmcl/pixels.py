"""Grey values and what a network sees of them: normalising pixels of 0 to 255, and the way back."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor


@dataclass(frozen=True)
class PixelScale:
    """By what a benchmark normalises pixels.

    Attributes:
        mean: mean of each channel on the scale 0 to 1.
        std: standard deviation of each channel on the scale 0 to 1.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def normalise(self, pixels: Tensor) -> Tensor:
        """Return ``(pixels / 255 - mean) / std``, float32; see :func:`normalise`."""
        return normalise(pixels, self.mean, self.std)

    def denormalise(self, images: Tensor) -> Tensor:
        """Return the pixels ``(images * std + mean) * 255`` of normalised images, neither rounded nor clamped.

        Args:
            images: normalised, float32 ``(N, 3, H, W)``.

        Returns:
            Float32 ``(N, 3, H, W)`` on the scale 0 to 255, computed in just that order of float32 operations.
        """
        mean, std = _mean_and_std(self.mean, self.std, images.device)
        return (images * std + mean) * 255.0


def normalise(pixels: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Return ``(pixels / 255 - mean) / std`` for each channel, float32.

    Args:
        pixels: ``(B, 3, H, W)`` with values from 0 to 255, uint8 or float32.
        mean: mean of each channel on the scale 0 to 1.
        std: standard deviation of each channel on the scale 0 to 1.
    """
    return normalise_(pixels.to(torch.float32, copy=True), mean, std)


def normalise_(pixels: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Do in place what :func:`normalise` does, to float32 pixels ``(B, 3, H, W)``, and return them."""
    scale, shift = _scale_and_shift(mean, std, pixels.device)
    return pixels.mul_(scale).add_(shift)


@lru_cache(maxsize=64)
def _scale_and_shift(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Kept, because copying constants to a GPU in every step would make the host wait for it."""
    with torch.inference_mode(False):  # the first caller may be in inference mode, the next may train
        mean_, std_ = torch.tensor(mean, dtype=torch.float64), torch.tensor(std, dtype=torch.float64)
        pair = torch.stack([1.0 / (255.0 * std_), -mean_ / std_]).to(device, torch.float32)
    return pair[0].view(-1, 1, 1), pair[1].view(-1, 1, 1)


@lru_cache(maxsize=64)
def _mean_and_std(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    with torch.inference_mode(False):
        pair = torch.tensor([mean, std], dtype=torch.float32).to(device)
    return pair[0].view(-1, 1, 1), pair[1].view(-1, 1, 1)
