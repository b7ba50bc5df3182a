from __future__ import annotations

import doctest

import pytest
import torch
from torchmetrics import MetricCollection

from mmcl.metrics import memory_area_metric, sequence_metrics
from mmcl.metrics.sequence_metrics import (
    AccuracyCurve,
    AccuracyMatrix,
    ForwardTransfer,
    LastAccuracy,
    TaskConfusion,
    TopKAccuracyCurve,
)
from tests.metrics.sequences import feed, made_up


@pytest.mark.parametrize("module", [sequence_metrics, memory_area_metric])
def test_examples_in_the_documentation(module: object) -> None:
    outcome = doctest.testmod(module)  # type: ignore[arg-type]
    assert outcome.attempted > 0
    assert outcome.failed == 0


def test_an_unknown_task_is_refused() -> None:
    for task in (-1, 2):
        with pytest.raises(ValueError, match=f"task {task} is none of the 2 tasks"):
            AccuracyMatrix([1, 1]).update(torch.ones(1, 1), torch.tensor([0]), task)


def test_a_collection_never_merges_different_k() -> None:
    sizes = [3, 3]
    perfect, answers = torch.eye(3), made_up(sizes, seed=0)
    metrics = {"one": AccuracyCurve(sizes), "last": LastAccuracy(sizes), "two": TopKAccuracyCurve(sizes, k=2)}
    collection = MetricCollection(metrics)
    collection.update(perfect, torch.arange(3), 0)
    feed(collection, answers[1:])
    alone = TopKAccuracyCurve(sizes, k=2)
    alone.update(perfect, torch.arange(3), 0)
    alone.update(answers[1].scores, answers[1].labels, 1)
    assert sorted(map(len, collection.compute_groups.values())) == [1, 2]
    assert torch.equal(collection.compute()["two"], alone.compute())


def test_counts_grow_whatever_the_gradient_mode() -> None:
    metric, scores, labels = AccuracyMatrix([2, 2]), torch.eye(2), torch.arange(2)
    with torch.inference_mode():
        metric.reset()
        metric.update(scores, labels, 0)
    metric.update(scores.requires_grad_(), labels, 0)
    assert metric.total.tolist() == [[4, 0], [0, 0]]
    assert not metric.total.requires_grad


def test_an_empty_batch_counts_nothing() -> None:
    for metric in (AccuracyMatrix([2, 2]), TaskConfusion([2, 2])):
        metric.update(torch.eye(2), torch.arange(2), 0)
        before = metric.compute().clone()
        metric.update(torch.empty(0, 2), torch.empty(0, dtype=torch.int64), 0)
        assert torch.equal(metric.compute().nan_to_num(), before.nan_to_num())


def test_confusion_leaves_out_earlier_tasks_and_classes_to_come() -> None:
    metric = TaskConfusion([2, 1])
    metric.update(torch.eye(3), torch.tensor([0, 1, 2]), 1)
    metric.update(torch.eye(2)[[1]], torch.tensor([0]), 0)
    assert torch.equal(metric.compute(), torch.eye(3, dtype=torch.int64))
    metric.reset()
    metric.update(torch.eye(2)[[0, 1, 1]], torch.tensor([0, 1, 2]), 0)
    assert metric.compute().sum() == 2


def test_classes_to_come_count_for_forward_transfer_but_not_for_the_curve() -> None:
    scores, labels = torch.eye(4)[[0, 0, 2, 3]], torch.tensor([0, 1, 2, 3])
    curve, transfer = AccuracyCurve([2, 2]), ForwardTransfer([2, 2], chance=[0.5, 0.1])
    for metric in (curve, transfer):
        metric.update(scores, labels, 0)
        metric.update(scores, labels, 1)
    assert curve.compute().tolist() == [0.5, 0.75]
    assert transfer.compute().item() == pytest.approx(0.9)
