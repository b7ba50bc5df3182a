"""The figures of an online stream as torchmetrics classes over the functions of :mod:`mmcl.metrics.stream`.

All take ``update(scores (N, C), labels (N,), task, distributions (N,))`` after the window ``task`` of the stream. They
bear the names that sequences of classes use, with the definitions of online streams.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from mmcl.metrics import sequence, stream
from mmcl.metrics.sequence_metrics import TaskConfusion


class DistributionCounts(Metric):
    """Right answers and samples, counted by window of the stream and by distribution of the sample.

    States: ``correct`` and ``total``, int64 ``(T, T)``.
    """

    is_differentiable = False
    full_state_update = False
    higher_is_better = True
    correct: Tensor
    total: Tensor

    def __init__(self, distributions: int, **settings: Any) -> None:
        super().__init__(**settings)
        self.tasks = distributions
        zeros = torch.zeros(distributions, distributions, dtype=torch.int64)
        self.add_state("correct", zeros, dist_reduce_fx="sum")
        self.add_state("total", zeros.clone(), dist_reduce_fx="sum")

    def update(self, scores: Tensor, labels: Tensor, task: int, distributions: Tensor) -> None:
        """Count the answers to labels ``(N,)`` by scores ``(N, C)`` after a window."""
        counts = torch.stack([scores.argmax(dim=1) == labels, torch.ones_like(labels, dtype=torch.bool)]).long()
        added = torch.zeros(2, self.tasks, dtype=torch.int64, device=labels.device)
        added.index_add_(1, distributions, counts)
        row = torch.zeros(self.tasks, 1, dtype=torch.int64, device=labels.device)
        row[task] = 1
        self.correct = self.correct + row * added[0]
        self.total = self.total + row * added[1]

    def matrix(self) -> Tensor:
        """Return the accuracy after window t on distribution j, float64 ``(T, T)``, NaN where not evaluated."""
        return sequence.accuracy_matrix(self.correct, self.total)


class StreamAccuracyMatrix(DistributionCounts):
    """Accuracy after window t on distribution j, ``(T, T)``.

    >>> metric = StreamAccuracyMatrix(2)
    >>> metric.update(torch.eye(2)[[0, 0]], torch.tensor([0, 1]), task=0, distributions=torch.tensor([0, 1]))
    >>> metric.compute()
    tensor([[1., 0.],
            [nan, nan]], dtype=torch.float64)
    """

    def compute(self) -> Tensor:
        """Return the matrix, float64 ``(T, T)``."""
        return self.matrix()


class StreamAccuracyCurve(DistributionCounts):
    """Mean accuracy over the distributions met so far, after each window ``(T,)``."""

    def compute(self) -> Tensor:
        """Return the curve, float64 ``(T,)``."""
        return stream.accuracy_over_distributions(self.matrix())


class StreamAverageAccuracy(DistributionCounts):
    """Mean of the accuracy curve up to the last evaluated window."""

    def compute(self) -> Tensor:
        """Return the mean, a float64 scalar."""
        return sequence.average_incremental_accuracy(stream.accuracy_over_distributions(self.matrix()))


class StreamLastAccuracy(DistributionCounts):
    """Mean accuracy over all distributions after the last window, which the paper's code calls average accuracy."""

    def compute(self) -> Tensor:
        """Return the accuracy, a float64 scalar."""
        return sequence.last_accuracy(stream.accuracy_over_distributions(self.matrix()))


class StreamForgetting(DistributionCounts):
    """See :func:`mmcl.metrics.stream.stream_forgetting`."""

    higher_is_better = False

    def compute(self) -> Tensor:
        """Return the fall, a float64 scalar."""
        return stream.stream_forgetting(self.matrix())


class StreamBackwardTransfer(DistributionCounts):
    """See :func:`mmcl.metrics.stream.stream_backward_transfer`."""

    def compute(self) -> Tensor:
        """Return the gain, a float64 scalar."""
        return stream.stream_backward_transfer(self.matrix())


class StreamForwardTransfer(DistributionCounts):
    """See :func:`mmcl.metrics.stream.stream_forward_transfer`."""

    def compute(self) -> Tensor:
        """Return the mean, a float64 scalar."""
        return stream.stream_forward_transfer(self.matrix())


def stream_metrics(distributions: int, classes: int) -> MetricCollection:
    """Return the metrics of one readout over a stream, named as those of a sequence of classes.

    Call ``update(scores (N, C), labels (N,), task=..., distributions=...)`` with what is evaluated after each window.

    Args:
        distributions: number T of distributions of the evaluated samples.
        classes: number C of classes.
    """
    # no cache: some releases of torchmetrics hand a cached result to all metrics with the same counts
    settings: dict[str, Any] = {"compute_with_cache": False}
    shared: dict[str, Metric] = {
        "accuracy_matrix": StreamAccuracyMatrix(distributions, **settings),
        "accuracy_curve": StreamAccuracyCurve(distributions, **settings),
        "average_incremental_accuracy": StreamAverageAccuracy(distributions, **settings),
        "last_accuracy": StreamLastAccuracy(distributions, **settings),
        "forgetting": StreamForgetting(distributions, **settings),
        "backward_transfer": StreamBackwardTransfer(distributions, **settings),
        "forward_transfer": StreamForwardTransfer(distributions, **settings),
    }
    confusion = TaskConfusion([classes], **settings)
    collection = MetricCollection(
        {**shared, "confusion_matrix": confusion}, compute_groups=[list(shared), ["confusion_matrix"]]
    )
    for metric in collection.values():
        metric._update_count = 1  # a readout may have no answer for a while: computing needs no warning
    return collection
