from __future__ import annotations

import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcl.memory.ranking import (
    LOWEST_KEY,
    kth_largest,
    largest,
    monotone,
    pair_products,
    places_of_true,
    rank_keys,
    ranked_places,
    ranked_scores,
)

NUMBERS = st.floats(width=32, allow_nan=False)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1, 3, 16, 100, 512]), st.sampled_from([torch.float16, torch.float32]))
def test_products_are_right_and_the_same_bits_in_any_company(seed: int, dimension: int, kind: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(seed)
    left = torch.randn(4, dimension, generator=generator)
    right = torch.randn(9, dimension, generator=generator).to(kind)
    counts, partners = torch.tensor([3, 0, 1, 9]), torch.randint(0, 9, (13,), generator=generator)
    products = pair_products(left, counts, right, partners)
    for place, (owner, partner) in enumerate(zip([0, 0, 0, 2] + [3] * 9, partners.tolist(), strict=True)):
        alone = pair_products(
            left[owner : owner + 1], torch.tensor([1]), right[partner : partner + 1], torch.tensor([0])
        )
        assert torch.equal(alone[0], products[place])
        true = left[owner].double() @ right[partner].double()
        size = left[owner].double().norm() * right[partner].double().norm()
        assert abs(float(products[place] - true)) <= 1e-6 * float(size)


def test_no_pairs_have_no_products() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    assert pair_products(torch.ones(2, 3), torch.tensor([0, 0]), torch.ones(4, 3), none).shape == (0,)


def test_products_warn_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pair_products(torch.ones(1, 3), torch.tensor([1]), torch.ones(4, 3), torch.tensor([2]))


def test_rows_that_do_not_lie_close_have_the_same_products() -> None:
    right = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
    asked = torch.ones(1, 3), torch.tensor([4])
    for apart in (right[::2, ::2], right.T[::2, ::2].contiguous().T[:4]):
        partners = torch.arange(len(apart)).repeat(2)[:4]
        left = asked[0][:, : apart.shape[1]]
        products = pair_products(left, asked[1], apart, partners)
        assert torch.equal(products, pair_products(left, asked[1], apart.contiguous(), partners))


@settings(max_examples=50, deadline=None)
@given(st.lists(NUMBERS, min_size=1, max_size=20))
def test_keys_rank_as_a_stable_sort_and_give_back_what_they_hold(numbers: list[float]) -> None:
    scores, places = torch.tensor(numbers), torch.arange(len(numbers))
    keys = rank_keys(scores, places)
    assert (keys > LOWEST_KEY).all()
    assert torch.equal(ranked_scores(keys), scores + 0.0)
    assert torch.equal(ranked_places(keys), places)
    expected = scores.sort(descending=True, stable=True).indices
    assert torch.equal(keys.argsort(descending=True), expected)


@pytest.mark.parametrize("kinds", [(torch.bfloat16, torch.int16), (torch.float32, torch.int32)])
def test_bits_get_the_order_of_the_numbers_and_come_back(kinds: tuple[torch.dtype, torch.dtype]) -> None:
    floats = torch.tensor([-torch.inf, -3.0, -0.5, -0.0, 0.0, 1e-30, 0.5, 2.0, torch.inf], dtype=kinds[0])
    ordered = monotone(floats.view(kinds[1]))
    assert (ordered[1:] > ordered[:-1]).all()
    assert torch.equal(monotone(ordered).view(kinds[0]), floats)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 9), st.data(), st.sampled_from([torch.int16, torch.int32, torch.int64]))
def test_the_largest_of_each_row_are_found(seed: int, width: int, data: st.DataObject, kind: torch.dtype) -> None:
    count = data.draw(st.integers(1, width))
    table = torch.randint(-4, 5, (5, width), generator=torch.Generator().manual_seed(seed)).to(kind)
    expected = table.sort(dim=1, descending=True).values[:, :count]
    assert torch.equal(largest(table, count), expected)
    assert torch.equal(kth_largest(table, count), expected[:, -1:])


@pytest.mark.parametrize("shape", [(4, 7), (0, 3), (3, 0)])
def test_places_of_what_is_true_come_row_by_row(shape: tuple[int, int]) -> None:
    table = torch.rand(shape, generator=torch.Generator().manual_seed(0)) < 0.4
    for found, expected in zip(places_of_true(table), table.nonzero(as_tuple=True), strict=True):
        assert torch.equal(found, expected)
