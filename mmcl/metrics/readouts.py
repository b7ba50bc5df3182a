"""All figures of one readout over a sequence: one collection, its counts for resuming, its plain values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

from torch import Tensor
from torchmetrics import Metric, MetricCollection

from mmcl.errors import UserError
from mmcl.metrics.sequence_metrics import (
    AccuracyCurve,
    AccuracyMatrix,
    AverageIncrementalAccuracy,
    BackwardTransfer,
    FirstTaskForgetting,
    Forgetting,
    ForwardTransfer,
    LastAccuracy,
    TaskConfusion,
    TopKAccuracyCurve,
)


def readout_metrics(task_sizes: Sequence[int], topk: int = 5, confused: int | None = None) -> MetricCollection:
    """Return the metrics of one readout, named as in results.

    Call ``update(scores (N, C), labels (N,), task)`` with the batches evaluated after each task; where each task is a
    data set of its own, with its ``first_class``, too.

    Args:
        task_sizes: number of new classes of each task of the whole sequence.
        confused: classes of the confusion matrix; null is all of the sequence.
        topk: k of the curve ``top<k>_curve``; with fewer classes seen than k, all of them count.
    """
    # no cache: some releases of torchmetrics hand a cached result to all metrics with the same counts
    settings: dict[str, Any] = {"compute_with_cache": False}
    shared: dict[str, Metric] = {
        "accuracy_matrix": AccuracyMatrix(task_sizes, **settings),
        "accuracy_curve": AccuracyCurve(task_sizes, **settings),
        "average_incremental_accuracy": AverageIncrementalAccuracy(task_sizes, **settings),
        "last_accuracy": LastAccuracy(task_sizes, **settings),
        "forgetting": Forgetting(task_sizes, **settings),
        "first_task_forgetting": FirstTaskForgetting(task_sizes, **settings),
        "backward_transfer": BackwardTransfer(task_sizes, **settings),
        "forward_transfer": ForwardTransfer(task_sizes, **settings),
    }
    top, confusion = f"top{topk}_curve", "confusion_matrix"
    own: dict[str, Metric] = {
        top: TopKAccuracyCurve(task_sizes, topk, **settings),
        confusion: TaskConfusion(task_sizes, confused, **settings),
    }
    collection = MetricCollection({**shared, **own}, compute_groups=[list(shared), [top], [confusion]])
    for metric in collection.values():
        metric._update_count = 1  # a readout may have no answer for a while: computing needs no warning
    return collection


def figures(collection: MetricCollection) -> dict[str, object]:
    """Return the collection's values as numbers, lists and None (not evaluated), ready for JSON.

    The confusion matrix is left out: see :func:`confusion_matrix`. With several processes, all must call.
    """
    metrics = _metrics(collection)
    tasks = metrics["accuracy_matrix"].tasks
    shapes = {"matrix": (tasks, tasks), "curve": (tasks,)}
    # torchmetrics turns results of one element into scalars: a sequence of one task needs its shapes back
    return {
        name: _plain(metric.compute().reshape(shapes.get(name.split("_")[-1], ())).tolist())
        for name, metric in metrics.items()
        if name != "confusion_matrix"
    }


def confusion_matrix(collection: MetricCollection) -> Tensor:
    """Return counts[true, predicted] of the latest evaluated task, int64 ``(C, C)`` on the CPU.

    With several processes, all must call.
    """
    metric = _metrics(collection)["confusion_matrix"]
    counts: Tensor = metric.compute()
    return counts.reshape(metric.classes, metric.classes).cpu()


def synced_state(collection: MetricCollection) -> dict[str, Tensor]:
    """Return the counts of all processes together, equal on each: CPU tensors by ``"<metric>.<state>"``.

    Metrics that share their counts appear once. With several processes, all must call.
    """
    state = {}
    for leader, metrics in _groups(collection):
        with metrics[0].sync_context():
            for name, counts in _counts(metrics[0]).items():
                state[f"{leader}.{name}"] = counts.cpu().clone()
    return state


def load_state(collection: MetricCollection, state: Mapping[str, Tensor], is_global_zero: bool) -> None:
    """Continue from the counts of :func:`synced_state`, whatever the number of processes was or is.

    Args:
        collection: metrics made by the same call as those that were saved.
        state: what :func:`synced_state` returned.
        is_global_zero: whether this is the process that takes the counts; the others start from zero.

    Raises:
        UserError: the state belongs to other tasks or other metrics. The collection is left as it was.
    """
    _check_state(collection, state)
    for leader, metrics in _groups(collection):
        for metric in metrics:
            metric.reset()
            metric._update_count = 1  # the counts are updates of the run before: computing needs no warning
            for name in _counts(metric) if is_global_zero else ():
                setattr(metric, name, state[f"{leader}.{name}"].to(metric.device, copy=True))


def _check_state(collection: MetricCollection, state: Mapping[str, Tensor]) -> None:
    expected = {
        f"{leader}.{name}": tuple(counts.shape)
        for leader, metrics in _groups(collection)
        for name, counts in _counts(metrics[0]).items()
    }
    found = {name: tuple(counts.shape) for name, counts in state.items()}
    if found != expected:
        names = sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))
        raise UserError(
            f"saved metric counts do not fit this sequence of tasks: {names[0]} has shape "
            f"{found.get(names[0])}, expected {expected.get(names[0])}; "
            "start again with force=true or in another paths.runs"
        )


def _metrics(collection: MetricCollection) -> dict[str, Any]:
    return dict(collection.items(keep_base=True, copy_state=False))


def _counts(metric: Metric) -> dict[str, Tensor]:
    return cast("dict[str, Tensor]", metric.metric_state)


def _groups(collection: MetricCollection) -> list[tuple[str, list[Metric]]]:
    metrics = _metrics(collection)
    return [(names[0], [metrics[name] for name in names]) for names in collection.compute_groups.values()]


def _plain(value: float | list[float] | list[list[float]]) -> object:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if math.isnan(value) else value
