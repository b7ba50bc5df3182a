"""Accuracy over a sequence of tasks, forgetting and transfer, as pure functions of tensors.

Row t of a matrix is what was measured after task t, column j the classes that were new in task j. T is the
number of tasks, C of classes. NaN stands for "not evaluated". Accuracies are fractions or said to be percent.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad


def top_classes(scores: Tensor, k: int) -> Tensor:
    """Rank the ``min(k, C)`` best classes of each row of scores ``(N, C)``, int64 ``(N, min(k, C))``.

    Of equal scores the lowest class comes first, which ``torch.topk`` does not promise.
    """
    return scores.sort(dim=1, descending=True, stable=True).indices[:, :k]


def correct_within(ranking: Tensor, labels: Tensor) -> Tensor:
    """Say whether each label ``(N,)`` is in its row of ranked classes ``(N, K)``, bool ``(N,)``."""
    return (ranking == labels[:, None]).any(dim=1)


def task_ends(task_sizes: Sequence[int]) -> Tensor:
    """Return the number of classes seen after each task, int64 ``(T,)``."""
    return torch.tensor(task_sizes, dtype=torch.int64).cumsum(0)


def task_of_class(labels: Tensor, ends: Tensor) -> Tensor:
    """Return the task that brought each label ``(N,)``, int64 ``(N,)``; ``ends`` as :func:`task_ends`."""
    return torch.bucketize(labels, ends, right=True)


def accuracy_matrix(correct: Tensor, total: Tensor) -> Tensor:
    """Turn counts of right answers and of samples, int64 ``(T, T)``, into accuracies, float64 ``(T, T)``."""
    return correct.double() / total  # 0 / 0 is NaN: not evaluated


def accuracy_curve(correct: Tensor, total: Tensor) -> Tensor:
    """Return the accuracy over the samples of all seen classes after each task, float64 ``(T,)``.

    Args:
        correct: number of right answers, int64 ``(T, T)``.
        total: number of samples, int64 ``(T, T)``. Columns of classes that are still to come do not count.
    """
    return correct.tril().sum(dim=1).double() / total.tril().sum(dim=1)


def until_last_evaluated(values: Tensor) -> Tensor:
    """Cut a curve ``(T,)`` or matrix ``(T, T)`` after the last task with a value: ``(t,)`` or ``(t, t)``."""
    rows = (~values.isnan()).reshape(len(values), -1).any(dim=1)
    tasks = len(rows) - int(rows.flip(0).long().argmax()) if bool(rows.any()) else 0
    return values[(slice(tasks),) * values.ndim]


def average_incremental_accuracy(curve: Tensor) -> Tensor:
    """Return the plain mean of the curve ``(T,)`` up to the last evaluated task, NaN where one is missing."""
    return until_last_evaluated(curve).mean()


def last_accuracy(curve: Tensor) -> Tensor:
    """Return the curve's value after the last evaluated task, NaN where there is none."""
    return until_last_evaluated(curve)[-1:].mean()


def forgetting(matrix: Tensor) -> Tensor:
    """Return how far tasks fell from their best accuracy (Chaudhry et al., 2018, arXiv 1801.10112).

    Mean over j < T - 1 of ``max_t A[t][j] - A[T-1][j]``, T - 1 being the last evaluated task. The maximum is
    over all t >= j, the last task included.

    Args:
        matrix: accuracies ``(T, T)``. Columns without a value after the last task, or without one before it,
            are left out.

    Returns:
        A scalar, never negative: 0 after one task, NaN where nothing can be compared.
    """
    matrix = until_last_evaluated(matrix)
    if len(matrix) < 2:
        return _without_earlier_task(matrix)
    before_task = torch.ones_like(matrix, dtype=torch.bool).triu(1)
    best = matrix.masked_fill(before_task | matrix.isnan(), -torch.inf)[:-1, :-1].amax(dim=0)
    last = matrix[-1, :-1]
    return (torch.maximum(best, last) - last).where(best.isfinite(), torch.nan).nanmean()


def first_task_forgetting(matrix: Tensor) -> Tensor:
    """Return how far the classes of the first task fell (Mnemonics, Liu et al., CVPR 2020: the forgetting rate).

    ``A[0][0] - A[T-1][0]``, T - 1 being the last evaluated task, both among all classes seen at that time.

    Args:
        matrix: accuracies ``(T, T)``.

    Returns:
        A scalar, negative after a rise: 0 after one task, NaN where one of the two was not evaluated.
    """
    first = until_last_evaluated(matrix)[:, :1]
    return (first[:1] - first[-1:]).mean()


def backward_transfer(matrix: Tensor) -> Tensor:
    """Return what later tasks did to earlier ones (Lopez-Paz and Ranzato, 2017, arXiv 1706.08840, eq. 3).

    Mean over j < T - 1 of ``A[T-1][j] - A[j][j]``, T - 1 being the last evaluated task.

    Args:
        matrix: accuracies ``(T, T)``. Columns that lack one of the two values are left out.

    Returns:
        A scalar: 0 after one task, NaN where nothing can be compared.
    """
    matrix = until_last_evaluated(matrix)
    if len(matrix) < 2:
        return _without_earlier_task(matrix)
    return (matrix[-1] - matrix.diagonal())[:-1].nanmean()


def forward_transfer(matrix: Tensor, chance: Tensor) -> Tensor:
    """Return what earlier tasks did for later ones (Lopez-Paz and Ranzato, 2017, arXiv 1706.08840, eq. 4).

    Mean over j > 0 of ``A[j-1][j] - chance[j]``, up to the last evaluated task.

    Args:
        matrix: accuracies ``(T, T)``, evaluated one task ahead.
        chance: accuracy of an untrained model on each task ``(T,)``.

    Returns:
        A scalar, NaN where the classes to come were not evaluated.
    """
    matrix = until_last_evaluated(matrix)
    ahead = matrix.diagonal(1)
    return (ahead - chance[1 : 1 + len(ahead)]).nanmean()


def _without_earlier_task(matrix: Tensor) -> Tensor:
    return matrix.new_tensor(0.0 if len(matrix) else torch.nan)


def group_accuracy(confusion: Tensor, ends: Tensor) -> Tensor:
    """Return the accuracy of each group of consecutive classes, float64 ``(G,)``, NaN where it has no sample.

    Args:
        confusion: counts[true, predicted], int64 ``(C, C)``.
        ends: class after the last one of each group, int64 ``(G,)``, such as ``[50, 60, 70]``; the classes
            beyond belong to no group.
    """
    sums = pad(torch.stack([confusion.diagonal(), confusion.sum(dim=1)]).cumsum(dim=1), (1, 0))
    correct, total = sums[:, pad(ends, (1, 0))].diff(dim=1)
    accuracies: Tensor = correct.double() / total
    return accuracies


def rounded_percent(correct: Tensor) -> float:
    """Return the share of true values ``(N,)`` in percent, rounded to two decimals as papers print it."""
    if not len(correct):
        return float("nan")
    return float(np.around(int(correct.sum()) * 100 / len(correct), decimals=2))


def grouped_by_width(predictions: Tensor, labels: Tensor, known: int, width: int = 10) -> dict[str, float]:
    """Group accuracies in the format of MEMO's official results (arXiv 2205.13218).

    Args:
        predictions: predicted classes, int64 ``(N,)``.
        labels: true classes, int64 ``(N,)``.
        known: number of classes known before the task.
        width: classes in a group, whatever the task sizes.

    Returns:
        Rounded percentages: ``"total"``, one key such as ``"00-09"`` per group, ``"old"`` (0 without old
        samples) and ``"new"``. As officially, a highest label that is a multiple of ``width`` gets no group.
    """
    correct = predictions == labels
    groups = {"total": rounded_percent(correct)}
    for first in range(0, int(labels.max()), width):
        inside = (labels >= first) & (labels < first + width)
        groups[f"{first:02d}-{first + width - 1:02d}"] = rounded_percent(correct[inside])
    old = labels < known
    groups["old"] = rounded_percent(correct[old]) if bool(old.any()) else 0.0
    groups["new"] = rounded_percent(correct[~old])
    return groups
