"""Queries, responses and attention of a Memory Head."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcl.errors import UserError
from mmcl.methods.memory_head import matching

DISTANCES = st.sampled_from(matching.DISTANCES)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), DISTANCES, st.integers(1, 3), st.integers(1, 30), st.floats(0, 50))
def test_attention_is_over_the_best_keys_alone(seed: int, distance: str, banks: int, units: int, gamma: float) -> None:
    torch.manual_seed(seed)
    queries, keys = matching.unit(torch.randn(4, 5)), matching.unit(torch.randn(banks, units, 5))
    matches = matching.responses(queries, keys, distance, 1.0, cosine_scale=True)
    count = min(3, units)
    best, chosen = matching.best(matches, count)
    shares = matching.attention(best, gamma)
    torch.testing.assert_close(shares.sum(dim=2), torch.ones(4, banks))
    assert (best.diff(dim=2) <= 0).all()
    assert (shares.diff(dim=2) <= 1e-6).all()
    assert best[:, :, 0].equal(matches.amax(dim=2))
    assert best.equal(matches.gather(2, chosen))


@pytest.mark.parametrize("units", [3, 40])  # torch.cdist takes another way beyond 25
def test_responses_read_as_defined(units: int) -> None:
    torch.manual_seed(0)
    queries, keys = torch.randn(4, 9), torch.randn(2, units, 9)
    matches = {name: matching.responses(queries, keys, name, 0.7, cosine_scale=True) for name in matching.DISTANCES}
    for sample, key in itertools.product(range(4), range(units)):
        x, k = queries[sample], keys[1, key]
        product = (x * k).sum().item() / 3
        defined = {"cosine": product, "dot_scaled": product}
        defined["euclidean"] = math.exp(-(x - k).square().sum().item() / (3 * 0.7))
        for distance, value in defined.items():
            assert matches[distance][sample, 1, key].item() == pytest.approx(value, rel=1e-4, abs=1e-6)
    plain = matching.responses(queries, keys, "cosine", 1.0, cosine_scale=False)
    torch.testing.assert_close(plain / 3, matching.responses(queries, keys, "cosine", 1.0, cosine_scale=True))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(2, 9), st.integers(2, 9), st.integers(4, 60))
def test_images_are_resized_within_the_key(channels: int, height: int, width: int, key_size: int) -> None:
    images = torch.rand(2, channels, height, width) + 1
    area = key_size // channels
    if area // max(1, round(math.sqrt(area / (width * height)) * width)) < 1:
        with pytest.raises(UserError, match="too small"):
            matching.query(images, "resize2d", key_size, unit_length=False)
    elif area * channels == key_size:
        queries = matching.query(images, "resize2d", key_size, unit_length=False)
        filled = (queries != 0).sum(dim=1)
        assert (filled > 0).all()
        assert (queries[:, int(filled[0]) :] == 0).all(), "zeros at the end"


def test_a_query_of_another_size_is_refused() -> None:
    with pytest.raises(UserError, match="turns inputs .5,. into 5 numbers, but key_size is 4.*psi_fn=resize1d"):
        matching.query(torch.ones(2, 5), "identity", 4, unit_length=True)
    with pytest.raises(UserError, match="needs images"):
        matching.query(torch.ones(2, 5), "resize2d", 4, unit_length=True)


def test_ids_of_units_have_known_modes() -> None:
    with pytest.raises(UserError, match="Did you mean 'topk'"):
        matching.with_unit_ids(torch.ones(1, 2), torch.eye(3), torch.zeros(1, 1, 2, dtype=torch.int64), "topkk")


def test_a_query_that_is_zero_stays_zero() -> None:
    assert matching.query(torch.zeros(1, 4), "identity", 4, unit_length=True).equal(torch.zeros(1, 4))
    assert math.isclose(matching.query(torch.full((1, 4), 7.0), "sign", 4, unit_length=True)[0, 0].item(), 0.5)
