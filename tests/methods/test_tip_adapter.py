from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize, one_hot

from mmcl.errors import UserError
from mmcl.methods import tip_adapter
from mmcl.methods.tip_adapter import (
    ELSEWHERE,
    PUBLISHED,
    TipAdapterConfig,
    first_best,
    grid_hits,
    search_values,
)
from tests.methods.encoded import DrawnDataset, accuracies, drawn_task, go_through
from tests.methods.tips import SEARCHLESS, right_answers, tip, tip_f, tip_keys


def test_scores_are_the_papers_formula() -> None:
    task = drawn_task(DrawnDataset())
    method = tip(search="fixed", alpha=2.0, beta=3.0)
    go_through(method, task)
    shots = task.encoded.train(4, 3)
    keys = normalize(shots.features[:, 1:].mean(1), dim=1)
    features = task.encoded.test(1).features
    plain = normalize(features[:, 0], dim=1)
    cache = torch.exp(-3.0 * (1 - plain @ keys.T)) @ one_hot(shots.labels).float()
    expected = 100 * plain @ method.text_features.T + 2.0 * cache
    torch.testing.assert_close(method.scores(features)["tip"], expected)


def test_the_cache_helps() -> None:
    task = drawn_task(DrawnDataset(noise=0.3))
    method = tip(alpha_limit=50.0)
    go_through(method, task)
    found = accuracies(method, task)
    assert found["tip"] > found["text"]


@given(st.integers(0, 2**31), st.integers(1, 40))
@settings(max_examples=20, deadline=None)
def test_the_grid_counts_what_a_loop_counts(seed: int, chunk_elements: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    text = torch.randn(9, 3, generator=generator)
    closeness = torch.rand(9, 3, 2, generator=generator)
    labels = torch.randint(3, (9,), generator=generator)
    betas, alphas = search_values(7, 3), search_values(3, 4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tip_adapter, "CHUNK_ELEMENTS", chunk_elements)
        hits = grid_hits(text, closeness, labels, betas, alphas)
    for row, beta in enumerate(betas):
        for column, alpha in enumerate(alphas):
            logits = text + alpha * torch.exp(-beta * (1 - closeness)).sum(2)
            assert hits[row, column] == (logits.argmax(1) == labels).sum()


def test_the_first_of_equal_cells_is_taken_in_order_of_beta() -> None:
    assert first_best(torch.tensor([[1, 2, 5], [5, 5, 0]])) == (0, 2)


def test_search_values_begin_at_a_tenth_and_stay_below_the_limit() -> None:
    torch.testing.assert_close(search_values(7, 200)[:2], [0.1, 0.1 + 6.9 / 200])
    assert search_values(7, 200)[-1] < 7


def test_the_search_takes_the_best_of_the_validation_images() -> None:
    task = drawn_task(DrawnDataset())
    method = tip(alpha_limit=50.0)
    go_through(method, task)
    validation = task.encoded.validation(None, 1)
    best = right_answers(method, validation.features, validation.labels)
    for beta in search_values(ELSEWHERE.beta_limit, 7):
        for alpha in search_values(50.0, 5):
            method.alpha.fill_(alpha)
            method.beta.fill_(beta)
            assert right_answers(method, validation.features, validation.labels) <= best


def test_the_oracle_searches_on_the_test_labels_batch_by_batch() -> None:
    task = drawn_task(DrawnDataset())
    method = tip(alpha_limit=50.0)
    go_through(method, task)
    test = task.encoded.test(1)
    oracle = method.oracles(task)["tip"]
    for rows in torch.split(torch.arange(len(test)), 7):
        oracle.update(method.scores(test.features[rows]), test.labels[rows])
    best = oracle.compute()
    method.alpha.fill_(best["alpha"])
    method.beta.fill_(best["beta"])
    assert float(best["accuracy"]) == pytest.approx(right_answers(method, test.features, test.labels) / len(test))
    assert float(best["accuracy"]) >= accuracies(method, task)["text"]


def test_without_validation_images_only_fixed_values_go() -> None:
    task = drawn_task(DrawnDataset(labelled=False))
    with pytest.raises(UserError, match="no validation images"):
        go_through(tip(), task)
    go_through(tip(search="fixed"), task)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"shots": 0}, "method.shots=0"),
        ({"passes": 0}, "method.passes=0"),
        ({"search": "test"}, "expected val or fixed"),
        ({"alpha_steps": 0}, "method.alpha_steps=0"),
        ({"beta": -1.0}, r"method.beta=-1.0"),
    ],
)
def test_values_that_make_no_sense_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        tip(**changed)


def test_what_is_typed_comes_before_what_is_published() -> None:
    config = TipAdapterConfig(**tip_keys(alpha=4.0, beta_limit=9.0))
    assert config.settings_of("flowers102") == PUBLISHED["flowers102"]._replace(alpha=4.0, beta_limit=9.0)
    assert config.settings_of("mine") == ELSEWHERE._replace(alpha=4.0, beta_limit=9.0)


@pytest.mark.parametrize("make", [tip, tip_f])
def test_the_state_is_enough_to_answer(make: Any) -> None:
    task = drawn_task(DrawnDataset())
    method, resumed = make(), make()
    go_through(method, task)
    resumed.grow(task)
    resumed.load_state_dict(method.state_dict())
    features = task.encoded.test(1).features
    assert resumed.scores(features)["tip"].equal(method.scores(features)["tip"])


def test_bytes_of_the_cache_are_memory_and_learned_keys_are_heads() -> None:
    task = drawn_task(DrawnDataset())
    fixed, learned = tip(**SEARCHLESS), tip_f(**SEARCHLESS)
    for method in (fixed, learned):
        method.grow(task)
    cache = 4 * 4 * 16 * 4
    assert (fixed.byte_report().memory_bytes, fixed.byte_report().exemplars) == (cache, 16)
    assert learned.byte_report().memory_bytes == 0
    assert learned.byte_report().head_bytes == fixed.byte_report().head_bytes + cache
