from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcl.metrics.sequence import (
    accuracy_curve,
    accuracy_matrix,
    average_incremental_accuracy,
    backward_transfer,
    correct_within,
    first_task_forgetting,
    forgetting,
    forward_transfer,
    group_accuracy,
    grouped_by_width,
    last_accuracy,
    rounded_percent,
    task_ends,
    task_of_class,
    top_classes,
    until_last_evaluated,
)

NAN = math.nan
MATRIX = torch.tensor([[0.9, NAN, NAN], [0.5, 0.8, NAN], [0.6, 0.7, 0.4]], dtype=torch.float64)


@pytest.mark.parametrize("sizes", [[50, 10, 10], [40, 7, 7, 4], [1], [1, 1, 1]])
def test_each_class_belongs_to_the_task_that_brought_it(sizes: list[int]) -> None:
    expected = np.repeat(np.arange(len(sizes)), sizes)
    assert task_of_class(torch.arange(sum(sizes)), task_ends(sizes)).tolist() == expected.tolist()


def test_matrix_and_curve_weigh_samples_and_leave_out_classes_to_come() -> None:
    correct, total = torch.tensor([[3, 9], [1, 1]]), torch.tensor([[4, 9], [4, 1]])
    assert accuracy_matrix(correct, total).tolist() == [[0.75, 1.0], [0.25, 1.0]]
    assert accuracy_curve(correct, total).tolist() == [0.75, 0.4]


def test_what_was_not_evaluated_is_nan() -> None:
    zeros = torch.zeros(2, 2, dtype=torch.int64)
    assert accuracy_matrix(zeros, zeros).isnan().all()
    assert accuracy_curve(zeros, zeros).isnan().all()


def test_figures_of_a_known_matrix() -> None:
    assert forgetting(MATRIX).item() == pytest.approx((0.3 + 0.1) / 2)
    assert backward_transfer(MATRIX).item() == pytest.approx((-0.3 - 0.1) / 2)
    assert forward_transfer(MATRIX, torch.zeros(3)).isnan()


def test_forgetting_counts_a_later_rise_as_none() -> None:
    rising = torch.tensor([[0.5, NAN], [0.7, 0.9]])
    assert forgetting(rising).item() == 0
    assert backward_transfer(rising).item() == pytest.approx(0.2)


def test_the_first_task_forgets_from_its_own_accuracy_not_from_its_best() -> None:
    risen = torch.tensor([[0.5, NAN, NAN], [0.7, 0.9, NAN], [0.6, 0.1, 0.2]])
    assert first_task_forgetting(MATRIX).item() == pytest.approx(0.3)
    assert first_task_forgetting(risen).item() == pytest.approx(-0.1)
    assert first_task_forgetting(risen[1:, 1:]).item() == pytest.approx(0.8)


def test_forgetting_of_the_first_task_needs_both_its_accuracies() -> None:
    for missing in (0, 2):
        matrix = MATRIX.clone()
        matrix[missing, 0] = NAN
        assert first_task_forgetting(matrix).isnan()
    assert first_task_forgetting(torch.full((3, 3), NAN)).isnan()


def test_forgetting_ignores_accuracy_before_a_class_was_learned() -> None:
    ahead = torch.tensor([[0.9, 0.99, NAN], [0.9, 0.5, 0.99], [0.9, 0.4, 0.5]])
    assert forgetting(ahead).item() == pytest.approx(0.05)


def test_forward_transfer_compares_with_chance_one_task_ahead() -> None:
    ahead = torch.tensor([[0.9, 0.5, 0.2], [0.9, 0.5, 0.4], [0.9, 0.4, 0.5]])
    assert forward_transfer(ahead, torch.tensor([1.0, 0.5, 0.1])).item() == pytest.approx((0.0 + 0.3) / 2)


@pytest.mark.parametrize("tasks", [1, 2, 3])
def test_a_sequence_under_way_is_judged_up_to_its_last_task(tasks: int) -> None:
    under_way, curve = torch.full((5, 5), NAN).double(), torch.full((5,), NAN)
    under_way[:tasks, :tasks] = MATRIX[:tasks, :tasks]
    curve[:tasks] = torch.tensor([0.9, 0.65, 0.6])[:tasks]
    assert torch.equal(forgetting(under_way), forgetting(MATRIX[:tasks, :tasks]))
    assert torch.equal(first_task_forgetting(under_way), first_task_forgetting(MATRIX[:tasks, :tasks]))
    assert torch.equal(backward_transfer(under_way), backward_transfer(MATRIX[:tasks, :tasks]))
    assert average_incremental_accuracy(curve).item() == pytest.approx(np.mean([0.9, 0.65, 0.6][:tasks]))
    assert last_accuracy(curve) == curve[tasks - 1]


def test_one_task_forgets_nothing() -> None:
    assert forgetting(MATRIX[:1, :1]).item() == 0
    assert backward_transfer(MATRIX[:1, :1]).item() == 0
    assert forward_transfer(MATRIX[:1, :1], torch.zeros(1)).isnan()


def test_answers_after_the_last_task_alone_have_only_a_last_accuracy() -> None:
    matrix, curve = MATRIX.clone(), torch.tensor([NAN, NAN, 0.6])
    matrix[:2] = NAN
    assert last_accuracy(curve) == curve[2]
    assert average_incremental_accuracy(curve).isnan()
    assert forgetting(matrix).isnan()
    assert backward_transfer(matrix).isnan()


def test_nothing_evaluated_has_no_figures() -> None:
    matrix = torch.full((3, 3), NAN)
    assert until_last_evaluated(matrix).shape == (0, 0)
    assert forgetting(matrix).isnan()
    assert backward_transfer(matrix).isnan()
    assert forward_transfer(matrix, torch.zeros(3)).isnan()
    assert last_accuracy(matrix[0]).isnan()
    assert average_incremental_accuracy(matrix[0]).isnan()


def test_a_task_without_test_samples_is_left_out() -> None:
    matrix = MATRIX.clone()
    matrix[:, 1] = NAN
    assert forgetting(matrix).item() == pytest.approx(0.3)
    assert backward_transfer(matrix).item() == pytest.approx(-0.3)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 6), st.integers(0, 2**32 - 1))
def test_forgetting_and_transfer_equal_loops(tasks: int, seed: int) -> None:
    matrix = np.random.default_rng(seed).random((tasks, tasks))
    drops = [max(matrix[j:, j]) - matrix[-1, j] for j in range(tasks - 1)]
    gains = [matrix[-1, j] - matrix[j, j] for j in range(tasks - 1)]
    leads = [matrix[j - 1, j] - 1 / tasks for j in range(1, tasks)]
    actual = torch.from_numpy(matrix)
    assert forgetting(actual).item() == pytest.approx(np.mean(drops))
    assert backward_transfer(actual).item() == pytest.approx(np.mean(gains))
    chance = torch.full((tasks,), 1 / tasks, dtype=torch.float64)
    assert forward_transfer(actual, chance).item() == pytest.approx(np.mean(leads))


def test_group_accuracy_takes_groups_of_any_size() -> None:
    confusion = torch.tensor([[2, 2, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [4, 0, 0, 0]])
    assert group_accuracy(confusion, torch.tensor([1, 2])).tolist() == [0.5, 1.0]
    shares = group_accuracy(confusion, torch.tensor([2, 3, 4])).tolist()
    assert shares[0] == 0.6
    assert math.isnan(shares[1])
    assert shares[2] == 0.0


def test_groups_by_width_round_and_skip_a_last_class_on_the_edge() -> None:
    labels = torch.tensor([0, 0, 0, 1, 2])
    groups = grouped_by_width(torch.tensor([0, 0, 1, 1, 0]), labels, known=0, width=2)
    assert groups == {"total": 60.0, "00-01": 75.0, "old": 0.0, "new": 60.0}
    assert rounded_percent(torch.tensor([True, True, False])) == 66.67


def test_more_ranks_than_classes_means_all_classes() -> None:
    ranking = top_classes(torch.tensor([[0.1, 0.9]]), k=5)
    assert ranking.tolist() == [[1, 0]]
    assert correct_within(ranking, torch.tensor([0])).all()
