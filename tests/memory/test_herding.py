from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcl.errors import UserError
from mmcl.memory import herding
from mmcl.memory.herding import herd, herd_classes, select_first, selector, unit_rows

KINDS = ("gaussian", "relu", "duplicated", "zero rows", "all zero", "integer")


def features_of(kind: str, rows: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(rows, 5, generator=generator)
    if kind == "relu":
        return features.relu()
    if kind == "duplicated":
        return features[torch.randint(0, 1 + rows // 3, (rows,), generator=generator)]
    if kind == "zero rows":
        return features * torch.randint(0, 2, (rows, 1), generator=generator)
    if kind == "all zero":
        return torch.zeros(rows, 5)
    return features.round() if kind == "integer" else features


def herd_by_distances(features: torch.Tensor, count: int) -> list[int]:
    """The rule as it is written: whole distances, picked rows deleted, first of those within 1e-12."""
    v = unit_rows(features).double().numpy()
    mean, total, left, picked = v.mean(0), np.zeros(v.shape[1]), list(range(len(v))), []
    for k in range(1, min(count, len(v)) + 1):
        costs = ((k * mean - total - v[left]) ** 2).sum(1)
        place = int(np.flatnonzero(costs <= costs.min() + herding.TIE_TOLERANCE)[0])
        total += v[left[place]]
        picked.append(left.pop(place))
    return picked


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(KINDS), st.integers(1, 30), st.integers(0, 35), st.integers(0, 10**6))
def test_herding_is_the_greedy_rule(kind: str, rows: int, count: int, seed: int) -> None:
    features = features_of(kind, rows, seed)
    assert herd(features, count).tolist() == herd_by_distances(features, count)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(KINDS), st.lists(st.integers(0, 4), max_size=40), st.integers(0, 12))
def test_classes_side_by_side_equal_classes_one_by_one(kind: str, labels: list[int], count: int) -> None:
    features, target = features_of(kind, len(labels), 3), torch.tensor(labels, dtype=torch.int64)
    one_by_one = []
    for label in sorted(set(labels)):
        rows = (target == label).nonzero().flatten()
        one_by_one += rows[herd(features[rows], count)].tolist()
    assert herd_classes(features, target, count).tolist() == one_by_one


@pytest.mark.parametrize("gram_bytes", [0, 12 * 12 * 8, 2 * 12 * 12 * 8])
def test_less_room_for_gram_matrices_changes_nothing(gram_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = features_of("duplicated", 36, 5), torch.arange(36) % 3
    expected = herd_classes(features, labels, 9)
    monkeypatch.setattr(herding, "GRAM_BYTES", gram_bytes)
    assert torch.equal(herd_classes(features, labels, 9), expected)


def test_equal_rows_are_taken_in_order() -> None:
    assert herd(torch.ones(5, 3), 5).tolist() == [0, 1, 2, 3, 4]


def test_features_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        herd(torch.tensor([[1.0], [float("nan")]]), 1)


def test_unit_rows_keep_zero_rows_and_float32() -> None:
    rows = unit_rows(torch.tensor([[3.0, 4.0], [0.0, 0.0]], dtype=torch.float64))
    assert rows.dtype == torch.float32
    assert torch.allclose(rows, torch.tensor([[0.6, 0.8], [0.0, 0.0]]))


def test_first_keeps_data_set_order_and_short_classes_whole() -> None:
    labels = torch.tensor([1, 0, 1, 0, 1, 2])
    assert select_first(torch.zeros(6, 1), labels, 2).tolist() == [1, 3, 0, 2, 5]


def test_random_choice_depends_on_its_key_alone() -> None:
    labels, features = torch.arange(60) % 2, torch.zeros(60, 1)
    chosen = selector("random", 7)(features, labels, 5)
    torch.rand(3)
    assert torch.equal(selector("random", 7)(features, labels, 5), chosen)
    assert not torch.equal(selector("random", 8)(features, labels, 5), chosen)
    assert labels[chosen].tolist() == [0] * 5 + [1] * 5
    assert len(set(chosen.tolist())) == 10


def test_unknown_selector_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"memory.select=herdin: .*Did you mean 'herding'"):
        selector("herdin")
