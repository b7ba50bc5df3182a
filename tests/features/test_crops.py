"""Random crops lie in their image, and are resized as Pillow does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcl.features.crops import CROP_DRAWS, crop_exact, random_crops, resize_crops
from mmcl.randomness import uniforms
from tests.features.pictures import picture


@settings(max_examples=40, deadline=None)
@given(height=st.integers(1, 300), width=st.integers(1, 300), draw=st.integers(0, 1000))
def test_crops_lie_in_the_image(height: int, width: int, draw: int) -> None:
    sizes = (torch.full((20,), side) for side in (height, width))
    crops = random_crops(uniforms(draw, torch.arange(20), CROP_DRAWS), *sizes)
    assert ((crops.tops >= 0) & (crops.lefts >= 0)).all()
    assert ((crops.heights > 0) & (crops.tops + crops.heights <= height)).all()
    assert ((crops.widths > 0) & (crops.lefts + crops.widths <= width)).all()


def test_area_and_ratio_are_as_published() -> None:
    sizes = (torch.full((2000,), side) for side in (300, 400))
    crops = random_crops(uniforms(0, torch.arange(2000), CROP_DRAWS), *sizes)
    area, ratio = crops.heights * crops.widths / 120_000, crops.widths / crops.heights
    assert 0.49 < float(area.min()) < 0.51
    assert 0.9 < float(area.max()) <= 1.0
    assert 0.74 < float(ratio.min()) < 0.8
    assert 1.25 < float(ratio.max()) < 1.35
    assert 0.45 < float(crops.flips.float().mean()) < 0.55


def test_no_permitted_ratio_fits() -> None:
    crops = random_crops(uniforms(0, torch.arange(3), CROP_DRAWS), torch.full((3,), 10), torch.full((3,), 100))
    assert crops.heights.tolist() == [10, 10, 10]
    assert crops.widths.tolist() == [13, 13, 13]
    assert crops.lefts.tolist() == [43, 43, 43]


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [20, 64])
def test_both_ways_to_resize(interpolation: str, size: int) -> None:
    image = picture()
    numbers = uniforms(5, torch.arange(6), CROP_DRAWS)
    crops = random_crops(numbers, torch.full((6,), image.height), torch.full((6,), image.width))
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    batched = resize_crops(pixels, crops, size, interpolation).permute(0, 2, 3, 1).numpy().astype(int)
    exact = np.stack([np.asarray(crop) for crop in crop_exact(image, crops, size, interpolation)]).astype(int)
    assert np.abs(batched - exact).max() <= (1 if interpolation == "bilinear" else 2)
