"""Views of images as a frozen encoder sees them: the plain one, crops, and AugMix on crops.

The numbers behind a view are a function of the seed, the image's source and the number of the view alone. So the
first views are the same however many there are, whatever batch or process an image is in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode, functional

from mmcl import randomness
from mmcl.errors import UserError, nearest
from mmcl.features.augmix import MIX_DRAWS, MixDraws, augmix, mix_draws
from mmcl.features.augmix_exact import augmix_exact
from mmcl.features.crops import CROP_DRAWS, INTERPOLATIONS, Crops, crop_exact, random_crops, resize_crops
from mmcl.features.job import ALTERATIONS, Views
from mmcl.pixels import normalise

MOST_VIEWS = 1 << 20
_CHUNK_PIXELS, _CHUNK_PIXELS_GPU = 1 << 23, 1 << 27  # altered at once; a CPU shall find them in its cache


def check_views(views: Views) -> None:
    """Raise UserError where a description of views makes no sense."""
    if not 1 <= views.count < MOST_VIEWS:
        raise UserError(f"views: a count of {views.count} is not between 1 and {MOST_VIEWS - 1}")
    for word, known in ((views.alteration, ALTERATIONS), (views.interpolation, INTERPOLATIONS)):
        if word not in known:
            raise UserError(f"views: '{word}' is none of {', '.join(known)}.{nearest(word, known)}")
    if views.count > 1 and views.alteration == "none":
        raise UserError(f"views: {views.count} views need an alteration: crop or augmix")


def view_batch(
    images: Tensor | Sequence[Image.Image],
    sources: Tensor,
    views: Views,
    image_size: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> Tensor:
    """Return the views of some images.

    Args:
        images: uint8 pixels ``(B, 3, H, W)``, or RGB images of any sizes.
        sources: identity of each image in its split, int64 ``(B,)``.
        views: how each becomes several, V of them.
        image_size: side S of a view.
        mean: mean of each channel on the scale 0 to 1.
        std: standard deviation of each channel on the scale 0 to 1.

    Returns:
        Normalised float32 ``(B, V, 3, S, S)`` on the CPU; view 0 is plain.
    """
    maker = ViewMaker(views, image_size, mean, std)
    return maker.finish(maker.read(images, sources), sources)


@dataclass(frozen=True)
class ViewMaker:
    """Makes views of one kind.

    Attributes:
        views: how each image becomes several, V of them.
        image_size: side S of a view.
        mean: mean of each channel on the scale 0 to 1.
        std: standard deviation of each channel on the scale 0 to 1.
        interpolation: of the plain view, ``bicubic`` or ``bilinear``.
    """

    views: Views
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bicubic"

    def __post_init__(self) -> None:
        check_views(self.views)

    def read(self, images: Tensor | Sequence[Image.Image], sources: Tensor) -> Tensor:
        """Do what needs the images in full size, on the CPU.

        Args:
            images: uint8 pixels ``(B, 3, H, W)``, or RGB images of any sizes.
            sources: identity of each image in its split, int64 ``(B,)``.

        Returns:
            uint8 ``(B, V, 3, S, S)``, plain view and crops, for :meth:`finish`; in exact mode finished views.
        """
        if isinstance(images, Tensor):
            images = [Image.fromarray(pixels) for pixels in images.permute(0, 2, 3, 1).contiguous().numpy()]
        others = self.views.count - 1
        numbers = self._numbers(sources, "crop", CROP_DRAWS)[:, 1:].flatten(0, 1)
        sizes = torch.tensor([(image.height, image.width) for image in images]).repeat_interleave(others, 0)
        crops = random_crops(numbers, sizes[:, 0], sizes[:, 1])
        parts = [crops.select(slice(row * others, (row + 1) * others)) for row in range(len(images))]
        if self.views.exact:
            draws = [mix_draws(part[1:]) for part in self._mix_numbers(sources)]
            made = [self._exact(*each) for each in zip(images, parts, draws, strict=True)]
        else:
            made = [self._plain_and_crops(image, part) for image, part in zip(images, parts, strict=True)]
        return torch.stack(made)

    def finish(self, pixels: Tensor, sources: Tensor) -> Tensor:
        """Turn what :meth:`read` gave, perhaps moved to a device, into normalised float32 ``(B, V, 3, S, S)``."""
        if pixels.dtype == torch.float32:
            return pixels
        if self.views.alteration != "augmix" or self.views.count == 1:
            return normalise(pixels, self.mean, self.std)
        # The plain views go along and nothing is done to them: so all of it lies in one piece.
        draws = mix_draws(self._mix_numbers(sources).flatten(0, 1)).spare(slice(0, None, self.views.count))
        images, finished = pixels.flatten(0, 1), torch.empty(pixels.shape, device=pixels.device)
        at_once = max(1, (_CHUNK_PIXELS_GPU if pixels.is_cuda else _CHUNK_PIXELS) // images[0].numel())
        for start in range(0, len(images), at_once):
            part = slice(start, start + at_once)
            augmix(images[part], draws.select(part), self.mean, self.std, out=finished.flatten(0, 1)[part])
        return finished

    def _mix_numbers(self, sources: Tensor) -> Tensor:
        return self._numbers(sources, "augmix", MIX_DRAWS)

    def _numbers(self, sources: Tensor, purpose: str, draws: int) -> Tensor:
        """Return the numbers behind all views, float32 ``(B, V, draws)`` in [0, 1) on the CPU."""
        identities = sources.cpu()[:, None] * MOST_VIEWS + torch.arange(self.views.count)
        draw_key = randomness.key(self.views.seed, "views", purpose)
        return randomness.uniforms(draw_key, identities.flatten(), draws).view(*identities.shape, draws)

    # Image by image

    def _plain(self, image: Image.Image) -> Image.Image:
        resized = functional.resize(image, [self.image_size], InterpolationMode(self.interpolation))
        plain: Image.Image = functional.center_crop(resized, [self.image_size])
        return plain

    def _plain_and_crops(self, image: Image.Image, crops: Crops) -> Tensor:
        plain = functional.pil_to_tensor(self._plain(image))[None]
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        return torch.cat([plain, resize_crops(pixels, crops, self.image_size, self.views.interpolation)])

    def _exact(self, image: Image.Image, crops: Crops, draws: MixDraws) -> Tensor:
        views = [self._preprocess(self._plain(image))]
        for row, crop in enumerate(crop_exact(image, crops, self.image_size, self.views.interpolation)):
            if self.views.alteration == "augmix":
                views.append(augmix_exact(crop, draws.select(slice(row, row + 1)), self._preprocess))
            else:
                views.append(self._preprocess(crop))
        return torch.stack(views)

    def _preprocess(self, image: Image.Image) -> Tensor:
        pixels: Tensor = functional.normalize(functional.to_tensor(image), list(self.mean), list(self.std))
        return pixels
