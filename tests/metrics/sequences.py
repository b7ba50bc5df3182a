"""Made-up readouts of a sequence, and their figures by plain loops over numpy arrays."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchmetrics import MetricCollection


class Answers(NamedTuple):
    """Scores ``(N, C)`` and labels ``(N,)`` after one task."""

    task: int
    scores: Tensor
    labels: Tensor


def made_up(sizes: list[int], seed: int, samples: int = 23) -> list[Answers]:
    """Return answers after every task, about half of them right; every seen class has at least one sample."""
    random, answers = np.random.default_rng(seed), []
    for task, seen in enumerate(np.cumsum(sizes)):
        labels = np.concatenate([np.arange(seen), random.integers(0, seen, samples)])
        scores = random.random((len(labels), seen)) + 0.5 * (labels[:, None] == np.arange(seen))
        answers.append(Answers(task, torch.from_numpy(scores).float(), torch.from_numpy(labels)))
    return answers


def feed(collection: MetricCollection, answers: list[Answers], rank: int = 0, ranks: int = 1) -> None:
    """Update with the rows that belong to one of several processes, in batches."""
    for task, scores, labels in answers:
        for rows in torch.arange(rank, len(labels), ranks).split(7):
            collection.update(scores[rows], labels[rows], task)


def by_loops(sizes: list[int], answers: list[Answers], k: int) -> dict[str, object]:
    """Return the figures of a complete sequence, computed one sample at a time."""
    tasks, group = len(sizes), np.repeat(np.arange(len(sizes)), sizes)
    matrix: list[list[float | None]] = [[None] * tasks for _ in sizes]
    curve, top = [], []
    for task, scores, labels in answers:
        orders = [row.argsort(descending=True).tolist() for row in scores]
        ranks = [order.index(label) for order, label in zip(orders, labels.tolist(), strict=True)]
        curve.append(sum(rank < 1 for rank in ranks) / len(ranks))
        top.append(sum(rank < k for rank in ranks) / len(ranks))
        for column in range(task + 1):
            own = [rank < 1 for rank, label in zip(ranks, labels, strict=True) if group[label] == column]
            matrix[task][column] = sum(own) / len(own)
    drops = [max(matrix[t][j] for t in range(j, tasks)) - matrix[-1][j] for j in range(tasks - 1)]
    gains = [matrix[-1][j] - matrix[j][j] for j in range(tasks - 1)]
    return {
        "accuracy_matrix": matrix,
        "accuracy_curve": curve,
        f"top{k}_curve": top,
        "average_incremental_accuracy": sum(curve) / tasks,
        "last_accuracy": curve[-1],
        "forgetting": sum(drops) / len(drops) if drops else 0.0,
        "first_task_forgetting": matrix[0][0] - matrix[-1][0],
        "backward_transfer": sum(gains) / len(gains) if gains else 0.0,
        "forward_transfer": None,
    }


def confusion_by_loops(classes: int, last: Answers) -> list[list[int]]:
    """Return counts[true][predicted] after one task."""
    counts = [[0] * classes for _ in range(classes)]
    for row, label in zip(last.scores, last.labels.tolist(), strict=True):
        counts[label][int(row.argmax())] += 1
    return counts


def flat(figures: dict[str, object]) -> dict[str, object]:
    """Return nested lists as one value per ``name.i.j``, for comparison with a tolerance."""
    values: dict[str, object] = {}
    for name, value in figures.items():
        if isinstance(value, list):
            values.update(flat({f"{name}.{index}": item for index, item in enumerate(value)}))
        else:
            values[name] = value
    return values
