"""Figures over distributions: by their definition in loops, what they depend on, and what they do not."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchmetrics import MetricCollection

from mmcl.metrics.readouts import confusion_matrix, figures, load_state, synced_state
from mmcl.metrics.sequence import average_incremental_accuracy, last_accuracy
from mmcl.metrics.stream import (
    accuracy_over_distributions,
    stream_backward_transfer,
    stream_forgetting,
    stream_forward_transfer,
)
from mmcl.metrics.stream_metrics import stream_metrics

NAN = math.nan
CLASSES = 3


@st.composite
def matrices(draw: st.DrawFn) -> Tensor:
    """Accuracies of one to six distributions, all of them evaluated after each."""
    count = draw(st.integers(1, 6))
    values = st.lists(st.integers(0, 20), min_size=count * count, max_size=count * count)
    return torch.tensor(draw(values), dtype=torch.float64).reshape(count, count) / 20


def by_loops(matrix: list[list[float]]) -> dict[str, float]:
    count = len(matrix)
    curve = [sum(matrix[i][: i + 1]) / (i + 1) for i in range(count)]
    falls = [max(matrix[i][j] for i in range(count - 1)) - matrix[-1][j] for j in range(count - 1)]
    gains = [matrix[i][j] - matrix[j][j] for i in range(count) for j in range(i)]
    ahead = [matrix[i][j] for i in range(count) for j in range(i + 1, count)]
    return {
        "average_incremental_accuracy": sum(curve) / count,
        "last_accuracy": curve[-1],
        "forgetting": sum(falls) / len(falls) if falls else 0.0,
        "backward_transfer": max(0.0, sum(gains) / len(gains)) if gains else 0.0,
        "forward_transfer": sum(ahead) / len(ahead) if ahead else 0.0,
    }


def by_functions(matrix: Tensor) -> dict[str, float]:
    curve = accuracy_over_distributions(matrix)
    return {
        "average_incremental_accuracy": average_incremental_accuracy(curve).item(),
        "last_accuracy": last_accuracy(curve).item(),
        "forgetting": stream_forgetting(matrix).item(),
        "backward_transfer": stream_backward_transfer(matrix).item(),
        "forward_transfer": stream_forward_transfer(matrix).item(),
    }


@given(matrices())
def test_figures_are_those_of_the_definition(matrix: Tensor) -> None:
    assert by_functions(matrix) == pytest.approx(by_loops(matrix.tolist()))


@given(matrices(), st.integers(1, 3))
def test_a_stream_under_way_is_judged_up_to_its_last_evaluation(matrix: Tensor, to_come: int) -> None:
    count = len(matrix)
    under_way = torch.full((count + to_come,) * 2, NAN, dtype=torch.float64)
    under_way[:count] = 1.0  # what is said about distributions further on has no part in it
    under_way[:count, :count] = matrix
    assert by_functions(under_way) == pytest.approx(by_functions(matrix))


@given(matrices())
def test_transfers_and_curve_look_at_their_side_of_the_diagonal(matrix: Tensor) -> None:
    early, late = matrix.tril() + torch.ones_like(matrix).triu(1), matrix.triu() + torch.ones_like(matrix).tril(-1)
    assert torch.equal(accuracy_over_distributions(early), accuracy_over_distributions(matrix))
    assert stream_backward_transfer(early).item() == pytest.approx(stream_backward_transfer(matrix).item())
    assert stream_forward_transfer(late).item() == pytest.approx(stream_forward_transfer(matrix).item())


def test_the_best_before_the_last_row_counts_even_before_the_distribution_came() -> None:
    ahead = torch.tensor([[0.5, 0.9, 0.0], [0.5, 0.1, 0.0], [0.5, 0.4, 0.8]], dtype=torch.float64)
    assert stream_forgetting(ahead).item() == pytest.approx((0.0 + 0.5) / 2)
    risen = torch.tensor([[0.5, 0.0], [0.7, 0.9]], dtype=torch.float64)
    assert stream_forgetting(risen).item() == pytest.approx(-0.2)


def test_a_loss_is_no_backward_transfer() -> None:
    fallen = torch.tensor([[0.9, 0.0], [0.2, 0.9]], dtype=torch.float64)
    assert stream_backward_transfer(fallen).item() == 0


def test_nothing_evaluated_is_nan() -> None:
    assert all(math.isnan(value) for value in by_functions(torch.full((3, 3), NAN, dtype=torch.float64)).values())


# Metrics


class Answers(NamedTuple):
    """Scores ``(N, C)`` of samples with labels and distributions ``(N,)`` after one window."""

    task: int
    scores: Tensor
    labels: Tensor
    distributions: Tensor


def made_up(count: int, samples: int = 30) -> list[Answers]:
    """Return answers after each window, about half of them right; distributions have unequal sizes."""
    random = np.random.default_rng(count)
    distributions = np.concatenate([np.arange(count), np.minimum(random.geometric(0.5, samples) - 1, count - 1)])
    labels = random.integers(0, CLASSES, len(distributions))
    answers = []
    for task in range(count):
        scores = random.random((len(labels), CLASSES)) + 0.5 * (labels[:, None] == np.arange(CLASSES))
        answers.append(Answers(task, *map(torch.from_numpy, (scores, labels, distributions))))
    return answers


def feed(collection: MetricCollection, answers: list[Answers], rank: int = 0, ranks: int = 1) -> None:
    """Update with the rows that belong to one of several processes, in batches."""
    for task, scores, labels, distributions in answers:
        for rows in torch.arange(rank, len(labels), ranks).split(7):
            collection.update(scores[rows], labels[rows], task=task, distributions=distributions[rows])


def matrix_by_loops(answers: list[Answers]) -> list[list[float]]:
    matrix = []
    for _, scores, labels, distributions in answers:
        hits = [
            (place, int(row.argmax() == label))
            for row, label, place in zip(scores, labels, distributions.tolist(), strict=True)
        ]
        columns = [[hit for place, hit in hits if place == column] for column in range(len(answers))]
        matrix.append([sum(column) / len(column) for column in columns])
    return matrix


@pytest.mark.parametrize("count", [1, 4])
def test_metrics_count_samples_by_distribution(count: int) -> None:
    answers, collection = made_up(count), stream_metrics(count, CLASSES)
    feed(collection, answers)
    values, matrix = cast("dict[str, Any]", figures(collection)), matrix_by_loops(answers)
    assert np.allclose(values["accuracy_matrix"], matrix)
    assert {name: values[name] for name in by_loops(matrix)} == pytest.approx(by_loops(matrix))
    counts = np.zeros((CLASSES, CLASSES), dtype=int)
    np.add.at(counts, (answers[-1].labels.numpy(), answers[-1].scores.argmax(dim=1).numpy()), 1)
    assert confusion_matrix(collection).tolist() == counts.tolist()


def test_windows_to_come_have_no_figure() -> None:
    collection = stream_metrics(4, CLASSES)
    feed(collection, made_up(4)[:2])
    values = cast("dict[str, Any]", figures(collection))
    assert values["accuracy_curve"][2:] == [None, None]
    assert values["accuracy_matrix"][2:] == [[None] * 4] * 2
    assert values["last_accuracy"] == values["accuracy_curve"][1]


def test_counts_go_on_where_they_were_saved() -> None:
    answers, whole, first, second = made_up(4), *(stream_metrics(4, CLASSES) for _ in range(3))
    feed(whole, answers)
    feed(first, answers[:2])
    load_state(second, synced_state(first), is_global_zero=True)
    feed(second, answers[2:])
    assert figures(second) == figures(whole)


def _process(rank: int, folder: str) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    collection = stream_metrics(4, CLASSES)
    feed(collection, made_up(4), rank, ranks=2)
    torch.save((figures(collection), confusion_matrix(collection)), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_give_the_figures_of_one(tmp_path: Path) -> None:
    mp.spawn(_process, (str(tmp_path),), nprocs=2)  # type: ignore[no-untyped-call]
    collection = stream_metrics(4, CLASSES)
    feed(collection, made_up(4))
    for rank in range(2):
        values, counts = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert values == figures(collection)
        assert torch.equal(counts, confusion_matrix(collection))
