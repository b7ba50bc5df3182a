"""AugMix as published for test-time views, image by image with Pillow: the definition that the batched form follows.

AugMix: Hendrycks et al., "AugMix: A Simple Data Processing Method to Improve Robustness and Uncertainty", ICLR 2020.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from PIL import Image, ImageOps
from torch import Tensor

from mmcl.features.augmix import CHAINS, OPERATIONS, MixDraws, amounts

Preprocess = Callable[[Image.Image], Tensor]
_AFFINE, _BILINEAR = Image.Transform.AFFINE, Image.Resampling.BILINEAR


def alter_exact(name: str, image: Image.Image, level: float, sign: float) -> Image.Image:
    """Apply one operation to an image.

    Args:
        name: one of :data:`mmcl.features.augmix.OPERATIONS`.
        image: square, RGB.
        level: strength on a scale to 10; without effect on autocontrast and equalize.
        sign: number in [0, 1); above 0.5 turns, shears and shifts the other way.
    """
    levels, signs = (torch.tensor([value], dtype=torch.float64) for value in (level, sign))
    return _ALTER[name](image, float(amounts(name, levels, signs, image.width)))


def augmix_exact(image: Image.Image, draws: MixDraws, preprocess: Preprocess) -> Tensor:
    """Mix an image with three altered copies of it.

    Args:
        image: the crop, square, RGB.
        draws: the choices of this one view, N = 1.
        preprocess: from an image to normalised float32 ``(3, S, S)``.

    Returns:
        ``m pre(x) + (1 - m) sum_i w_i pre(chain_i(x))``, float32 ``(3, S, S)``.
    """
    chains = torch.zeros(3, image.height, image.width)
    for chain in range(CHAINS):
        altered = image
        for step in range(int(draws.depths[0, chain])):
            name = OPERATIONS[int(draws.operations[0, chain, step])]
            level, sign = (float(part[0, chain, step]) for part in (draws.levels, draws.signs))
            altered = alter_exact(name, altered, level, sign)
        chains += draws.weights[0, chain] * preprocess(altered)
    return draws.blends[0] * preprocess(image) + (1 - draws.blends[0]) * chains


def _affine(image: Image.Image, *coefficients: float) -> Image.Image:
    return image.transform(image.size, _AFFINE, coefficients, resample=_BILINEAR)


_ALTER: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "autocontrast": lambda image, _: ImageOps.autocontrast(image),
    "equalize": lambda image, _: ImageOps.equalize(image),
    # Pillow refuses to keep no bit at all, which leaves black.
    "posterize": lambda image, bits: ImageOps.posterize(image, int(bits)) if bits >= 1 else image.point(lambda _: 0),
    "rotate": lambda image, degrees: image.rotate(degrees, resample=_BILINEAR),
    "solarize": lambda image, threshold: ImageOps.solarize(image, int(threshold)),
    "shear_x": lambda image, slope: _affine(image, 1, slope, 0, 0, 1, 0),
    "shear_y": lambda image, slope: _affine(image, 1, 0, 0, slope, 1, 0),
    "translate_x": lambda image, shift: _affine(image, 1, 0, shift, 0, 1, 0),
    "translate_y": lambda image, shift: _affine(image, 1, 0, 0, 0, 1, shift),
}
