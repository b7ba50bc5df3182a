from __future__ import annotations

import io
import json
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcl.errors import UserError
from mmcl.metrics.readouts import confusion_matrix, figures, load_state, readout_metrics, synced_state
from tests.metrics.sequences import by_loops, confusion_by_loops, feed, flat, made_up

SIZES = [4, 3, 3, 1]
task_sizes = st.lists(st.integers(1, 6), min_size=1, max_size=5)


@settings(max_examples=25, deadline=None)
@given(task_sizes, st.integers(0, 2**32 - 1), st.integers(2, 5))
def test_figures_equal_plain_loops(sizes: list[int], seed: int, k: int) -> None:
    answers, collection = made_up(sizes, seed), readout_metrics(sizes, k)
    feed(collection, answers)
    assert flat(figures(collection)) == pytest.approx(flat(by_loops(sizes, answers, k)))
    assert confusion_matrix(collection).tolist() == confusion_by_loops(sum(sizes), answers[-1])


def test_figures_are_ready_for_json() -> None:
    collection = readout_metrics(SIZES)
    feed(collection, made_up(SIZES, seed=0)[:2])
    values = json.loads(json.dumps(figures(collection), allow_nan=False))
    assert values["accuracy_matrix"][0][1] is None
    assert values["accuracy_curve"][2:] == [None, None]
    assert values == figures(collection)


def test_a_sequence_under_way_has_the_figures_of_its_tasks() -> None:
    answers, collection = made_up(SIZES, seed=1), readout_metrics(SIZES)
    for tasks in range(1, len(SIZES) + 1):
        feed(collection, answers[tasks - 1 : tasks])
        values, expected = figures(collection), by_loops(SIZES[:tasks], answers[:tasks], k=5)
        for name in set(figures(collection)) - {"accuracy_matrix", "accuracy_curve", "top5_curve", "forward_transfer"}:
            assert values[name] == pytest.approx(expected[name]), name
        assert values["accuracy_curve"][:tasks] == pytest.approx(expected["accuracy_curve"])
        assert confusion_matrix(collection).tolist() == confusion_by_loops(sum(SIZES), answers[tasks - 1])


def test_a_readout_that_answers_last_alone_has_no_average() -> None:
    answers, collection = made_up(SIZES, seed=2), readout_metrics(SIZES)
    feed(collection, answers[-1:])
    values = figures(collection)
    assert values["accuracy_matrix"][:-1] == [[None] * 4] * 3
    assert values["average_incremental_accuracy"] is None
    assert values["forgetting"] is None
    assert values["first_task_forgetting"] is None
    assert values["last_accuracy"] == pytest.approx(by_loops(SIZES, answers, k=5)["last_accuracy"])


def test_a_state_continues_exactly() -> None:
    answers, whole, first, second = made_up(SIZES, seed=3), *(readout_metrics(SIZES) for _ in range(3))
    feed(whole, answers)
    feed(first, answers[:2])
    saved = io.BytesIO()
    torch.save(synced_state(first), saved)
    saved.seek(0)
    load_state(second, torch.load(saved, weights_only=True), is_global_zero=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert figures(second) == figures(first)
    feed(second, answers[2:])
    assert figures(second) == figures(whole)
    assert torch.equal(confusion_matrix(second), confusion_matrix(whole))


def test_a_loaded_state_is_a_copy_and_replaces_what_was_counted() -> None:
    collection, other = readout_metrics(SIZES), readout_metrics(SIZES)
    feed(collection, made_up(SIZES, seed=4))
    feed(other, made_up(SIZES, seed=5))
    figures(other)
    state = synced_state(collection)
    kept = {name: counts.clone() for name, counts in state.items()}
    load_state(other, state, is_global_zero=True)
    assert figures(other) == figures(collection)
    feed(other, made_up(SIZES, seed=6))
    assert all(torch.equal(state[name], kept[name]) for name in kept)


def test_other_processes_start_from_zero() -> None:
    collection, other = readout_metrics(SIZES), readout_metrics(SIZES)
    feed(collection, made_up(SIZES, seed=7))
    load_state(other, synced_state(collection), is_global_zero=False)
    assert figures(other)["last_accuracy"] is None
    assert not confusion_matrix(other).any()


def test_the_state_of_another_sequence_is_refused_and_nothing_changes() -> None:
    collection = readout_metrics(SIZES)
    feed(collection, made_up(SIZES, seed=8))
    before = figures(collection)
    with pytest.raises(UserError, match=r"do not fit.*has shape \(3, 3\), expected \(4, 4\)"):
        load_state(collection, synced_state(readout_metrics([2, 5, 4])), is_global_zero=True)
    assert figures(collection) == before


def test_metrics_with_equal_counts_are_updated_once() -> None:
    groups = list(readout_metrics(SIZES).compute_groups.values())
    assert sorted(map(len, groups)) == [1, 1, 8]
