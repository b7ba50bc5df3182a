"""The batched operations do what Pillow does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mmcl.features.augmix import MIX_DRAWS, OPERATIONS, alter, augmix, mix_draws
from mmcl.features.augmix_exact import alter_exact
from mmcl.randomness import uniforms
from tests.features.pictures import picture

BY_LEVEL = ("autocontrast", "equalize", "posterize", "solarize", "translate_x", "translate_y")
SIDES = (24, 33)


def pixels_of(side: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.array(picture(side, side, seed))).permute(2, 0, 1)[None].contiguous()


@pytest.mark.parametrize("name", OPERATIONS)
@settings(max_examples=15, deadline=None)
@given(level=st.floats(0.1, 10.0), sign=st.floats(0, 0.99), side=st.sampled_from(SIDES), seed=st.integers(0, 9))
def test_one_operation(name: str, level: float, sign: float, side: int, seed: int) -> None:
    levels, signs = (torch.tensor([value], dtype=torch.float64) for value in (level, sign))
    batched = alter(name, pixels_of(side, seed), levels, signs)[0].permute(1, 2, 0).numpy().astype(int)
    exact = np.asarray(alter_exact(name, picture(side, side, seed), level, sign)).astype(int)
    difference = np.abs(batched - exact)
    if name in BY_LEVEL:
        assert difference.max() == 0
    else:  # a place that lies on the border of the image may fall on either side of it
        assert (difference > 1).mean() < 0.002


@pytest.mark.parametrize("name", ["autocontrast", "equalize"])
def test_flat_images_stay(name: str) -> None:
    flat = torch.full((2, 3, 8, 8), 77, dtype=torch.uint8)
    level = torch.zeros(2, dtype=torch.float64)
    assert torch.equal(alter(name, flat, level, level), flat)


def test_a_batch_is_its_images() -> None:
    images = torch.cat([pixels_of(24, seed) for seed in range(5)])
    draws = mix_draws(uniforms(3, torch.arange(5), MIX_DRAWS))
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)
    together = augmix(images, draws, mean, std)
    for row in range(5):
        part = slice(row, row + 1)
        torch.testing.assert_close(together[part], augmix(images[part], draws.select(part), mean, std), rtol=0, atol=0)


def test_draws_have_their_distributions() -> None:
    draws = mix_draws(uniforms(1, torch.arange(20_000), MIX_DRAWS))
    torch.testing.assert_close(draws.weights.sum(1), torch.ones(20_000))
    # Dirichlet(1, 1, 1): mean 1/3, variance 1/18 each; Beta(1, 1): mean 1/2, variance 1/12.
    torch.testing.assert_close(draws.weights.mean(0), torch.full((3,), 1 / 3), rtol=0, atol=0.01)
    torch.testing.assert_close(draws.weights.var(0), torch.full((3,), 1 / 18), rtol=0, atol=0.002)
    assert abs(float(draws.blends.mean()) - 0.5) < 0.01
    assert abs(float(draws.blends.var()) - 1 / 12) < 0.002
    assert sorted(draws.depths.unique().tolist()) == [1, 2, 3]
    counts = torch.bincount(draws.operations.flatten(), minlength=len(OPERATIONS)).float()
    assert float(counts.max() / counts.min()) < 1.06
    assert 0.1 <= float(draws.levels.min()) < float(draws.levels.max()) < 1.0
