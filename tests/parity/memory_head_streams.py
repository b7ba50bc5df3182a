"""Streams and their figures against recorded ones: points of the plane, noise and split of mini-ImageNet, metrics."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from mmcl.benchmarks.class_order import class_order, task_sizes
from mmcl.benchmarks.modes2d_generator import SHAPES, split_rows
from mmcl.benchmarks.ns_imagenet_images import DOMAINS, Size, as_pixels, split_samples, with_noise
from mmcl.methods.online import OnlineMethod
from mmcl.metrics import stream
from mmcl.metrics.readouts import figures
from mmcl.metrics.sequence import correct_within, grouped_by_width, last_accuracy, rounded_percent
from mmcl.metrics.stream_metrics import stream_metrics
from tests.parity import Golden, close, parity
from tests.parity.memory_head_layer import Case, cases

EXACT = 1e-12
SHAPE_NAMES = {"bi-modals": "modes", "bi-moons": "moons"}
FIGURES = ("last_accuracy", "forgetting", "backward_transfer", "forward_transfer")


@parity("data2d")
def check_points(golden: Golden) -> None:
    for case in cases(golden):
        points = SHAPES[SHAPE_NAMES[case.option("name")]](0)
        close(points.positions, case["X_scaled"], EXACT)
        assert points.labels.tolist() == case["y"].tolist()
        assert points.domains.tolist() == case["domain"].tolist()
    parts = split_rows(2000, 0)
    assert parts["train"].tolist() == (2 * golden["perm1000"]).tolist()
    assert parts["validation"].tolist() == (1 + 4 * golden["perm500"]).tolist()
    assert parts["test"].tolist() == (3 + 4 * golden["perm500"]).tolist()


@parity("ns_imagenet")
def check_images(golden: Golden) -> None:
    for case in cases(golden):
        check_noise(case) if case.option("kind") == "gaussian" else check_split(case)


def check_noise(case: Case) -> None:
    """Noise that was drawn, added to an image."""
    factor = case.option("noise_factor")
    assert (factor, case.option("sig")) in DOMAINS
    noisy = with_noise(case.arrays["x"], factor, case.arrays["noise"])
    close(noisy, case["out"], EXACT)
    close(as_pixels(noisy), case["out_uint8"], 0)


def check_split(case: Case) -> None:
    """Which sample is in which part, and where."""
    size = Size(classes=100, per_class=600)
    for name, numbers in split_samples(size).items():
        theirs = {"validation": "val"}.get(name, name)
        assert len(numbers) == case[f"{theirs}_n"]
        distributions = numbers // size.per_class
        assert len(distributions.unique()) == case[f"{theirs}_n_distributions"]
        close(numbers[::83], case[f"{theirs}_sample_id_every83"], 0)
        close(distributions[::83], case[f"{theirs}_distribution_every83"], 0)
        close((distributions % size.classes)[::83], case[f"{theirs}_y_every83"], 0)


@parity("metrics")
def check_metrics(golden: Golden) -> None:
    for case in cases(golden):
        METRIC_CHECKS[case.option("kind") if "opt_kind" in case.arrays else "matrix"](case)


def check_matrix(case: Case) -> None:
    """Figures of every leading block of a matrix; rows of -1 were not evaluated."""
    matrix = case["ccm"].double()
    matrix[matrix == -1] = torch.nan
    for row, expected in enumerate(case["metrics"]):
        block = torch.full_like(matrix, torch.nan)
        block[: row + 1] = matrix[: row + 1]
        close(torch.stack(matrix_figures(block)), expected)


def matrix_figures(matrix: Tensor) -> list[Tensor]:
    return [
        last_accuracy(stream.accuracy_over_distributions(matrix)),
        stream.stream_forgetting(matrix),
        stream.stream_backward_transfer(matrix),
        stream.stream_forward_transfer(matrix),
    ]


def check_filling(case: Case) -> None:
    """The metrics of the runs, fed with recorded logits; validation samples are of fewer distributions."""
    everything = torch.ones_like(case["val_mask"])
    for name, rows in (("test", everything), ("val", case["val_mask"])):
        labels, distributions = case["labels"][rows], case["distributions"][rows]
        count = int(distributions.max()) + 1
        collection = stream_metrics(count, case["logits"].shape[2])
        for task in range(count):
            collection.update(case["logits"][task][rows], labels, task=task, distributions=distributions)
            values = cast("dict[str, Any]", figures(collection))
            close([values[figure] for figure in FIGURES], case[f"metrics_{name}"][task])
        close(np.array(values["accuracy_matrix"]), case[f"ccm_{name}"])


def check_loss(case: Case) -> None:
    """The loss of online learners with its gradient."""
    spelling = {"xent": "cross_entropy", "hinge": "hinge"}[case.option("loss")]
    learner = SimpleNamespace(config=SimpleNamespace(loss=spelling))
    logits = case["logits"].requires_grad_()
    loss = OnlineMethod.loss(cast(OnlineMethod, learner), logits, case["y"])
    loss.backward()
    close(loss.detach(), case["value"])
    close(logits.grad, case["grad"])


def check_class_accuracy(case: Case) -> None:
    """Accuracies of class-incremental runs: all, old, new, best five, groups of ten."""
    groups = grouped_by_width(case["topk"][:, 0], case["y"], case.option("known_classes"))
    assert groups.pop("total") == case["top1"]
    assert groups.pop("old") == case["old"]
    assert groups.pop("new") == case["new"]
    assert groups == dict(zip(case.arrays["group_names"].tolist(), case["group_acc"].tolist(), strict=True))
    assert rounded_percent(correct_within(case["topk"], case["y"])) == case["top5"]


def check_class_order(case: Case) -> None:
    """The published class orders, and tasks of which the last takes the rest."""
    count, sizes = case.option("n"), case["task_sizes"].tolist()
    assert class_order(count, case.option("seed")) == case["order"].tolist()
    assert task_sizes(count, 0, sizes[0]) == sizes


METRIC_CHECKS: dict[str, Callable[[Case], None]] = {
    "matrix": check_matrix,
    "fill": check_filling,
    "loss": check_loss,
    "ci_accuracy": check_class_accuracy,
    "class_order": check_class_order,
}
