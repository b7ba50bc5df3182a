"""The figures of a sequence as torchmetrics classes over the functions of :mod:`mmcl.metrics.sequence`.

All take ``update(scores (N, C), labels (N,), task, first_class)`` after task ``task``, C being the number of classes
that the scores know: those from ``first_class`` (0) on; ``task_sizes`` says how many classes each of the T tasks
brings. Where each task is a data set of its own, its scores begin with its own first class. States are int64
counts. Metrics that differ only in ``compute`` keep equal states, so that a ``MetricCollection`` updates them
once. Updates are out of place and wait for no device. Results are float64, NaN where nothing was evaluated;
torchmetrics turns those of one element into scalars.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from mmcl.metrics import sequence


class TaskCounts(Metric):
    """Right answers and samples, counted by evaluated task and by the task in which a sample's class was new.

    An answer is right when the label is among the ``k`` best classes; with at most k classes it always is.
    States: ``correct_top<k>`` and ``total``, int64 ``(T, T)``. The k in the name keeps a collection from
    merging metrics of different k whose counts happen to be equal at first.
    """

    is_differentiable = False
    full_state_update = False
    higher_is_better = True
    total: Tensor
    ends: Tensor

    def __init__(self, task_sizes: Sequence[int], k: int = 1, **settings: Any) -> None:
        super().__init__(**settings)
        self.k = k
        self.register_buffer("ends", sequence.task_ends(task_sizes), persistent=False)
        zeros = torch.zeros(len(task_sizes), len(task_sizes), dtype=torch.int64)
        self.add_state(self._correct_name, zeros, dist_reduce_fx="sum")
        self.add_state("total", zeros.clone(), dist_reduce_fx="sum")

    @property
    def tasks(self) -> int:
        """Number T of tasks."""
        return len(self.ends)

    @property
    def correct(self) -> Tensor:
        """Number of right answers, int64 ``(T, T)``."""
        counts: Tensor = getattr(self, self._correct_name)
        return counts

    @property
    def _correct_name(self) -> str:
        return f"correct_top{self.k}"

    def update(self, scores: Tensor, labels: Tensor, task: int, first_class: int = 0) -> None:
        """Count the answers to labels ``(N,)`` by scores ``(N, C)`` after a task."""
        cells = self._cells(labels, task)
        correct = sequence.correct_within(first_class + sequence.top_classes(scores, self.k), labels)
        setattr(self, self._correct_name, _add(self.correct, cells, correct))
        self.total = _add(self.total, cells, torch.ones_like(labels))

    def _cells(self, labels: Tensor, task: int) -> Tensor:
        if not 0 <= task < self.tasks:
            raise ValueError(f"task {task} is none of the {self.tasks} tasks of this metric")
        return task * self.tasks + sequence.task_of_class(labels, self.ends)


class AccuracyMatrix(TaskCounts):
    """Accuracy after task t on the classes of task j, ``(T, T)``.

    >>> metric = AccuracyMatrix(task_sizes=[2, 1])
    >>> metric.update(torch.eye(2)[[0, 0]], torch.tensor([0, 1]), task=0)
    >>> metric.update(torch.eye(3)[[0, 1, 2]], torch.tensor([0, 1, 2]), task=1)
    >>> metric.compute()
    tensor([[0.5000,    nan],
            [1.0000, 1.0000]], dtype=torch.float64)
    """

    def compute(self) -> Tensor:
        """Return the matrix, float64 ``(T, T)``."""
        return sequence.accuracy_matrix(self.correct, self.total)


class AccuracyCurve(TaskCounts):
    """Accuracy over the samples of all seen classes after each task, ``(T,)``.

    >>> metric = AccuracyCurve(task_sizes=[1, 1])
    >>> metric.update(torch.ones(2, 1), torch.tensor([0, 0]), task=0)
    >>> metric.update(torch.eye(2)[[0, 0]], torch.tensor([0, 1]), task=1)
    >>> metric.compute()
    tensor([1.0000, 0.5000], dtype=torch.float64)
    """

    def compute(self) -> Tensor:
        """Return the curve, float64 ``(T,)``."""
        return sequence.accuracy_curve(self.correct, self.total)


class AverageIncrementalAccuracy(TaskCounts):
    """Mean of the accuracy curve up to the last evaluated task.

    >>> metric = AverageIncrementalAccuracy(task_sizes=[1, 1])
    >>> metric.update(torch.ones(2, 1), torch.tensor([0, 0]), task=0)
    >>> metric.update(torch.eye(2)[[0, 0]], torch.tensor([0, 1]), task=1)
    >>> metric.compute()
    tensor(0.7500, dtype=torch.float64)
    """

    def compute(self) -> Tensor:
        """Return the mean, a float64 scalar; NaN where a task before the last evaluated one is missing."""
        return sequence.average_incremental_accuracy(sequence.accuracy_curve(self.correct, self.total))


class LastAccuracy(TaskCounts):
    """Accuracy over all seen classes after the last evaluated task.

    >>> metric = LastAccuracy(task_sizes=[1, 1])
    >>> metric.update(torch.ones(2, 1), torch.tensor([0, 0]), task=0)
    >>> metric.update(torch.eye(2)[[0, 0]], torch.tensor([0, 1]), task=1)
    >>> metric.compute()
    tensor(0.5000, dtype=torch.float64)
    """

    def compute(self) -> Tensor:
        """Return the accuracy, a float64 scalar."""
        return sequence.last_accuracy(sequence.accuracy_curve(self.correct, self.total))


class Forgetting(TaskCounts):
    """Mean fall of the earlier tasks from their best accuracy; see :func:`mmcl.metrics.sequence.forgetting`.

    >>> metric = Forgetting(task_sizes=[1, 1])
    >>> metric.update(torch.ones(2, 1), torch.tensor([0, 0]), task=0)
    >>> metric.update(torch.eye(2)[[0, 1]], torch.tensor([0, 0]), task=1)
    >>> metric.compute()
    tensor(0.5000, dtype=torch.float64)
    """

    higher_is_better = False

    def compute(self) -> Tensor:
        """Return the fall, a float64 scalar."""
        return sequence.forgetting(sequence.accuracy_matrix(self.correct, self.total))


class FirstTaskForgetting(TaskCounts):
    """Fall of the first task's classes; see :func:`mmcl.metrics.sequence.first_task_forgetting`.

    >>> metric = FirstTaskForgetting(task_sizes=[1, 1])
    >>> metric.update(torch.ones(2, 1), torch.tensor([0, 0]), task=0)
    >>> metric.update(torch.eye(2)[[0, 1]], torch.tensor([0, 0]), task=1)
    >>> metric.compute()
    tensor(0.5000, dtype=torch.float64)
    """

    higher_is_better = False

    def compute(self) -> Tensor:
        """Return the fall, a float64 scalar."""
        return sequence.first_task_forgetting(sequence.accuracy_matrix(self.correct, self.total))


class BackwardTransfer(TaskCounts):
    """Mean gain of earlier tasks since learned; see :func:`mmcl.metrics.sequence.backward_transfer`.

    >>> metric = BackwardTransfer(task_sizes=[1, 1])
    >>> metric.update(torch.ones(2, 1), torch.tensor([0, 0]), task=0)
    >>> metric.update(torch.eye(2)[[0, 1]], torch.tensor([0, 0]), task=1)
    >>> metric.compute()
    tensor(-0.5000, dtype=torch.float64)
    """

    def compute(self) -> Tensor:
        """Return the gain, a float64 scalar."""
        return sequence.backward_transfer(sequence.accuracy_matrix(self.correct, self.total))


class ForwardTransfer(TaskCounts):
    """Mean lead over chance on the next task's classes; see :func:`mmcl.metrics.sequence.forward_transfer`.

    Needs the next task's samples in ``update``, and scores that know its classes. ``chance`` is the accuracy
    of an untrained model on each task, T numbers; by default a guess among all classes up to that task.

    >>> metric = ForwardTransfer(task_sizes=[2, 2])
    >>> metric.update(torch.eye(4)[[2, 2]], torch.tensor([2, 3]), task=0)
    >>> metric.update(torch.eye(4)[[2, 3]], torch.tensor([2, 3]), task=1)
    >>> metric.compute()
    tensor(0.2500, dtype=torch.float64)
    """

    chance: Tensor

    def __init__(self, task_sizes: Sequence[int], chance: Sequence[float] | None = None, **settings: Any) -> None:
        super().__init__(task_sizes, **settings)
        guess = 1 / self.ends.double() if chance is None else torch.tensor(chance, dtype=torch.float64)
        self.register_buffer("chance", guess, persistent=False)

    def compute(self) -> Tensor:
        """Return the lead, a float64 scalar; NaN where the next task was not evaluated."""
        return sequence.forward_transfer(sequence.accuracy_matrix(self.correct, self.total), self.chance)


class TopKAccuracyCurve(AccuracyCurve):
    """Share of samples with the right class among the k best after each task, ``(T,)``.

    >>> metric = TopKAccuracyCurve(task_sizes=[1, 2], k=2)
    >>> metric.update(torch.ones(2, 1), torch.tensor([0, 0]), task=0)
    >>> metric.update(torch.tensor([[0.1, 0.7, 0.2]]).repeat(3, 1), torch.tensor([0, 1, 2]), task=1)
    >>> metric.compute()
    tensor([1.0000, 0.6667], dtype=torch.float64)
    """

    def __init__(self, task_sizes: Sequence[int], k: int = 5, **settings: Any) -> None:
        super().__init__(task_sizes, k, **settings)


class TaskConfusion(Metric):
    """Confusion matrix counts[true, predicted] of the latest evaluated task, ``(C, C)``.

    C is the number of all classes or, where each task is a data set of its own, ``classes``: the most that one has,
    rows and columns counted from the first class of the scores. Labels beyond the classes of the scores do not count,
    nor do updates of a task before the latest.
    State: ``latest_and_counts``, int64 ``(1 + C * C,)``. One tensor, because the counts of a process that saw
    no sample of the latest task are old and must be told from the others when the processes are summed.

    >>> metric = TaskConfusion(task_sizes=[1, 1])
    >>> metric.update(torch.ones(2, 1), torch.tensor([0, 0]), task=0)
    >>> metric.update(torch.eye(2)[[0, 0]], torch.tensor([0, 1]), task=1)
    >>> metric.compute()
    tensor([[1, 0],
            [1, 0]])
    """

    is_differentiable = False
    full_state_update = False
    higher_is_better = None
    latest_and_counts: Tensor

    def __init__(self, task_sizes: Sequence[int], classes: int | None = None, **settings: Any) -> None:
        super().__init__(**settings)
        self.classes = sum(task_sizes) if classes is None else classes
        start = torch.zeros(1 + self.classes**2, dtype=torch.int64)
        start[0] = -1
        self.add_state("latest_and_counts", start, dist_reduce_fx=_sum_of_latest)

    def update(self, scores: Tensor, labels: Tensor, task: int, first_class: int = 0) -> None:
        """Count the predictions for labels ``(N,)`` by scores ``(N, C)`` after a task."""
        labels = labels - first_class
        latest = self.latest_and_counts[0]
        cells = 1 + labels * self.classes + scores.argmax(dim=1)
        counted = (labels < scores.shape[1]) & (task >= latest)
        kept = self.latest_and_counts * (task <= latest)
        kept[0] = latest.clamp(min=task)
        self.latest_and_counts = _add(kept, cells.where(counted, 1), counted)

    def compute(self) -> Tensor:
        """Return the counts, int64 ``(C, C)``."""
        return self.latest_and_counts[1:].view(self.classes, self.classes)


def _sum_of_latest(parts: Tensor) -> Tensor:
    latest = parts[:, 0].max()
    total = (parts * (parts[:, :1] == latest)).sum(dim=0)
    total[0] = latest
    return total


def _add(counts: Tensor, cells: Tensor, amounts: Tensor) -> Tensor:
    return counts.flatten().index_add(0, cells, amounts.long()).view_as(counts)
