"""Images of the non-stationary mini-ImageNet: which sample is where in the stream, and what noise makes of it.

A sample's number is ``(domain * classes + class) * per_class + index``, index being its place among the images of its
class in the files; its distribution is the number without the index. The settings are those of the Memory Head paper
(Tiezzi et al., CoLLAs 2024, Sec. 4.2).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from mmcl.randomness import key

Pixels = NDArray[np.uint8]


class Noise(NamedTuple):
    """Gaussian noise of a domain: its factor and standard deviation, on the scale of 0 to 1."""

    factor: float
    std: float


DOMAINS = (Noise(0.0, 0.0), Noise(0.25, 0.1), Noise(0.5, 0.2))
VALIDATION_SHARE, TEST_SHARE = 0.1, 0.2


class Size(NamedTuple):
    """Number of classes, and of images in each of them."""

    classes: int
    per_class: int

    @property
    def images(self) -> int:
        """Number of images of a domain."""
        return self.classes * self.per_class

    @property
    def samples(self) -> int:
        """Number of samples of all domains."""
        return len(DOMAINS) * self.images


def split_samples(size: Size) -> dict[str, Tensor]:
    """Return the sample numbers of ``train``, ``validation`` and ``test`` in the order of the stream, int64.

    Of each class and domain the first images train, a tenth of them validate and the last fifth tests. Validation has
    the first half of the distributions alone.
    """
    numbers = torch.arange(size.samples)
    index, distribution = numbers % size.per_class, numbers // size.per_class
    test = size.per_class - int(size.per_class * TEST_SHARE)
    validation = test - int(size.per_class * VALIDATION_SHARE)
    early = distribution < len(DOMAINS) * size.classes // 2
    return {
        "train": numbers[index < validation],
        "validation": numbers[(index >= validation) & (index < test) & early],
        "test": numbers[index >= test],
    }


def with_noise(images: NDArray[np.floating[Any]], factor: float, noise: NDArray[np.float64]) -> NDArray[Any]:
    """Return ``clip(x + factor * noise, 0, 1)`` of images x on the scale of 0 to 1, of any shape."""
    noisy: NDArray[Any] = np.clip(images + factor * noise, 0, 1)
    return noisy


def as_pixels(images: NDArray[Any]) -> Pixels:
    """Turn images on the scale of 0 to 1 into uint8, cut off and not rounded, as published."""
    pixels: Pixels = (images * 255).astype(np.uint8)
    return pixels


def noise_of(noise_seed: int, number: int, std: float, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Draw the noise of a sample, float64, from NumPy's default generator keyed by (seed, sample number)."""
    return np.random.default_rng(key("ns_imagenet", noise_seed, number)).normal(0.0, std, shape)


def enlarged(pixels: Pixels, side: int) -> Tensor:
    """Resize an image ``(H, W, 3)`` by PIL's bilinear interpolation, uint8 ``(3, side, side)``."""
    image = Image.fromarray(pixels).resize((side, side), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


class NoisyImages(Dataset[Tensor]):
    """Samples by their numbers, int64 ``(B,)``, as a network sees them: uint8 ``(B, 3, side, side)``.

    Args:
        images: of all classes in the order of the files, uint8 ``(classes * per_class, H, W, 3)``.
        noise_seed: keys the noise.
        side: of the enlarged images, in pixels.
    """

    def __init__(self, images: Pixels, noise_seed: int, side: int) -> None:
        self.images, self.noise_seed, self.side = images, noise_seed, side

    def __getitem__(self, numbers: Tensor) -> Tensor:
        return torch.stack([enlarged(self.pixels(number), self.side) for number in numbers.tolist()])

    def pixels(self, number: int) -> Pixels:
        """Return a sample in its own size, uint8 ``(H, W, 3)``."""
        domain, place = divmod(number, len(self.images))
        original = self.images[place].astype(np.float32) / 255
        factor, std = DOMAINS[domain]
        if factor == 0:
            return as_pixels(original)
        return as_pixels(with_noise(original, factor, noise_of(self.noise_seed, number, std, original.shape)))
