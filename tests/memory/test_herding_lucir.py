from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcl.memory import herding_lucir
from mmcl.memory.herding import selector
from mmcl.memory.herding_lucir import MOST_OF_A_CLASS, STEPS, TIE_STEP, herd_lucir
from tests.memory.test_herding import KINDS, features_of


def herd_by_steps(features: torch.Tensor, count: int, near: float = 0.0) -> list[int]:
    """The rule as it is written, for one class; the first of the scores within ``near`` of the largest wins."""
    v = features.double().numpy()
    norms = np.linalg.norm(v, axis=1, keepdims=True)
    v = v / np.where(norms > 0, norms, 1.0)
    mu = v.mean(0)
    w, ranked = mu, []
    for _ in range(STEPS):
        if len(ranked) == min(count, MOST_OF_A_CLASS):
            break
        scores = v @ w
        pick = int(np.flatnonzero(scores >= scores.max() - near)[0])
        if pick not in ranked:
            ranked.append(pick)
        w = w + mu - v[pick]
    return ranked


@settings(max_examples=60, deadline=None)
@given(st.integers(3, 60), st.integers(0, 65), st.integers(0, 10**6))  # two rows are always equally near their mean
def test_picks_are_those_of_the_loop(rows: int, count: int, seed: int) -> None:
    features = features_of("gaussian", rows, seed)
    assert herd_lucir(features, torch.zeros(rows, dtype=torch.int64), count).tolist() == herd_by_steps(features, count)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(KINDS), st.integers(1, 30), st.integers(0, 35), st.integers(0, 10**6))
def test_the_first_of_equal_maxima_wins(kind: str, rows: int, count: int, seed: int) -> None:
    features = features_of(kind, rows, seed)
    expected = herd_by_steps(features, count, near=1e-11)
    assert herd_lucir(features, torch.zeros(rows, dtype=torch.int64), count).tolist() == expected


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 4), max_size=60), st.integers(0, 15))
def test_classes_side_by_side_equal_classes_one_by_one(labels: list[int], count: int) -> None:
    features, target = features_of("gaussian", len(labels), 3), torch.tensor(labels, dtype=torch.int64)
    one_by_one = []
    for label in sorted(set(labels)):
        rows = (target == label).nonzero().flatten()
        one_by_one += [int(rows[place]) for place in herd_by_steps(features[rows], count, near=1e-11)]
    assert selector("herding_lucir", 7)(features, target, count).tolist() == one_by_one


@pytest.mark.parametrize("run_bytes", [0, 2 * 12 * 5 * 4])
def test_less_room_for_a_run_changes_nothing(run_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = features_of("gaussian", 36, 5), torch.arange(36) % 3
    expected = herd_lucir(features, labels, 9)
    monkeypatch.setattr(herding_lucir, "RUN_BYTES", run_bytes)
    assert torch.equal(herd_lucir(features, labels, 9), expected)


def test_float64_decides_where_float32_cannot() -> None:
    features = features_of("gaussian", 40, 0).double()
    features[7:] = features[7] + 1e-9 * features[7:]
    picked = herd_lucir(features, torch.zeros(40, dtype=torch.int64), 10).tolist()
    assert picked == herd_by_steps(features, 10)
    assert TIE_STEP * len(features) < 1e-10


@pytest.mark.parametrize("factors", [(1e-30, 1.0), (1e30, 1.0), (1e-42, 1e30), (1e-42, 0.0)])
def test_rows_of_any_length_are_herded(factors: tuple[float, float]) -> None:
    features = features_of("gaussian", 40, 2) * torch.tensor(factors).repeat(20)[:, None]
    assert herd_lucir(features, torch.zeros(40, dtype=torch.int64), 10).tolist() == herd_by_steps(features, 10)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_features_of_other_types_are_herded(kind: torch.dtype) -> None:
    features, labels = features_of("gaussian", 40, 4).to(kind), torch.zeros(40, dtype=torch.int64)
    assert herd_lucir(features, labels, 10).tolist() == herd_by_steps(features, 10)


@pytest.mark.parametrize("kind", ["gaussian", "duplicated", "zero rows"])
@pytest.mark.parametrize("at_once", [1, 3])
def test_steps_at_once_change_nothing(kind: str, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = features_of(kind, 50, 6), torch.arange(50) % 3
    expected = herd_lucir(features, labels, 12)
    monkeypatch.setattr(herding_lucir, "STEPS_AT_ONCE", at_once)
    assert torch.equal(herd_lucir(features, labels, 12), expected)


def test_a_class_of_equal_rows_gives_its_first_alone() -> None:
    features = torch.cat([torch.ones(6, 3), features_of("gaussian", 6, 1)[:, :3]])
    labels = torch.arange(12) // 6
    assert labels[herd_lucir(features, labels, 4)].tolist() == [0, 1, 1, 1, 1]
    assert herd_lucir(features, labels, 4)[0] == 0


def test_no_class_gives_more_than_500() -> None:
    rows = herd_lucir(torch.eye(510), torch.zeros(510, dtype=torch.int64), 510)
    assert rows.tolist() == list(range(500))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_features_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        herd_lucir(torch.tensor([[1.0], [value]]), torch.tensor([0, 0]), 1)
