"""Nearest class mean against its definition, and that the cut into tasks does not matter to it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mmcl.config.compose import compose_run
from mmcl.errors import UserError
from mmcl.methods.ncm import cosine_scores, euclidean_scores
from tests.methods.pretrained import Vectors, go_through, pretrained_method


def _definition(distance: str, images: Tensor, means: Tensor) -> Tensor:
    if distance == "cosine":
        return torch.stack([torch.cosine_similarity(images, mean[None]) for mean in means], dim=1)
    return -torch.stack([(images - mean).norm(dim=1) for mean in means], dim=1)


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_scores_are_those_of_the_definition(distance: str) -> None:
    benchmark, method = Vectors(), pretrained_method("ncm", f"method.distance={distance}", network=False)
    task = go_through(method, benchmark, 3)
    train = benchmark.task(2).past().images, task.train.images
    labels = torch.cat([task.past().labels, task.train.labels])
    means = torch.stack([torch.cat(train)[labels == label].mean(dim=0) for label in range(6)])
    scores = method.scores(task.test.images)["ncm"]
    torch.testing.assert_close(scores, _definition(distance, task.test.images, means))
    assert (scores.argmax(1) == task.test.labels).double().mean() > 0.8


def test_the_cut_into_tasks_does_not_matter() -> None:
    answers = []
    for increment in (1, 2, 6):
        benchmark, method = Vectors(increment=increment), pretrained_method("ncm", tasks=6 // increment)
        task = go_through(method, benchmark, 6 // increment)
        answers.append(method.scores(task.test.images)["ncm"])
    assert torch.equal(answers[0], answers[1])
    assert torch.equal(answers[0], answers[2])


def test_both_scores_are_largest_at_the_mean_itself() -> None:
    means = torch.randn(4, 6)
    for score in (cosine_scores, euclidean_scores):
        assert score(means, means).argmax(1).tolist() == [0, 1, 2, 3]


def test_it_keeps_a_mean_of_each_class_and_trains_nothing() -> None:
    method = pretrained_method("ncm")
    task = go_through(method, Vectors(), 2)
    assert method.stages(task) == []
    assert not list(method.stage_parameters())
    report = method.byte_report()
    assert (report.memory_bytes, report.head_bytes, report.exemplars) == (4 * 6 * 4, 0, 0)


def test_an_unknown_distance_is_refused() -> None:
    with pytest.raises(UserError, match="method.distance=cos: expected cosine or euclidean. Did you mean 'cosine'"):
        compose_run(["+method=ncm", "method.distance=cos"])
