"""Transforms from a PIL image to uint8 pixels of the size that a network sees, as the papers' loaders have them."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from mmcl.benchmarks.files import ImageTransforms
from mmcl.errors import UserError

BILINEAR, BICUBIC = InterpolationMode.BILINEAR, InterpolationMode.BICUBIC


def check_sizes(image_size: int, resize: int, key: str = "resize") -> None:
    """Refuse to cut a square out of a smaller one.

    Args:
        image_size: side of the square that the network sees.
        resize: shorter side of what it is cut out of.
        key: what the second one is called.

    Raises:
        UserError: names both keys.
    """
    if not 0 < image_size <= resize:
        raise UserError(
            f"benchmark.image_size={image_size}, benchmark.{key}={resize}: "
            f"image_size must be at least 1 and {key} no smaller, such as 224 and 256."
        )


def crop_transforms(size: int, resize: int, brightness: float, interpolation: InterpolationMode) -> ImageTransforms:
    """Return random resized crop and flip to train, resize and centre crop to test, as for ImageNet.

    Args:
        size: side of the square that the network sees.
        resize: shorter side of a test image before its centre is cut.
        brightness: training brightness factors lie in 1 -+ brightness; 0 leaves it.
        interpolation: by which images are resized.
    """
    crop = v2.RandomResizedCrop(size, interpolation=interpolation)
    return ImageTransforms(_training([crop], brightness), _test(size, resize, interpolation))


def shift_transforms(
    size: int, resize: int, train_resize: int, brightness: float, interpolation: InterpolationMode
) -> ImageTransforms:
    """Return resize, random shift and flip to train, resize and centre crop to test: for fine-grained classes.

    Training images are resized to squares of ``train_resize``, whatever their proportion was; else as
    :func:`crop_transforms`.
    """
    shift = [v2.Resize((train_resize, train_resize), interpolation=interpolation), v2.RandomCrop(size)]
    return ImageTransforms(_training(shift, brightness), _test(size, resize, interpolation))


class BrightnessJitter(v2.ColorJitter):
    """Random brightness, for tensors of any scale, too: they are multiplied alone, where torchvision clamps to 1."""

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Brighten one image."""
        return inpt * params["brightness_factor"] if isinstance(inpt, Tensor) else super().transform(inpt, params)


def _training(first: list[Any], brightness: float) -> v2.Compose:
    jitter = [BrightnessJitter(brightness=brightness)] if brightness else []
    return v2.Compose([*first, v2.RandomHorizontalFlip(), *jitter, v2.PILToTensor()])


def _test(size: int, resize: int, interpolation: InterpolationMode) -> v2.Compose:
    return v2.Compose([v2.Resize(resize, interpolation=interpolation), v2.CenterCrop(size), v2.PILToTensor()])
