"""Probes: a linear head on frozen features, task after task or on all data at once."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.methods.pretrained import Vectors, begin, go_through, pretrained_method, whole


def _accuracy(method: Any, task: Any) -> float:
    right = method.scores(task.test.images)["cnn"].argmax(1) == task.test.labels
    return float(right.double().mean())


def test_task_after_task_forgets_and_all_data_at_once_does_not() -> None:
    lower = pretrained_method("linear_probe", "method.classifier.lr=0.3", network=False)
    task = go_through(lower, Vectors(), 3, steps=25)
    upper = pretrained_method("joint_probe", "method.classifier.lr=0.3", network=False)
    go_through(upper, Vectors(), 3, steps=25)
    assert _accuracy(lower, task) < 0.6
    assert _accuracy(upper, task) > 0.9


@pytest.mark.parametrize("name", ["linear_probe", "joint_probe"])
def test_the_network_is_frozen_and_the_whole_head_learns(name: str) -> None:
    method = pretrained_method(name, *(["method.every_task=true"] if name == "joint_probe" else []))
    before = {key: value.clone() for key, value in method.backbone.state_dict().items()}
    benchmark = Vectors()
    go_through(method, benchmark, 1)
    task = benchmark.task(1)
    (stage,) = begin(method, task)
    method.begin_stage(stage, task)
    method.train()
    assert {id(p) for p in method.stage_parameters()} == {id(p) for p in method.head.parameters()}
    method.losses(whole(stage))["classification"].backward()
    assert bool((method.head.weight.grad.abs().sum(dim=1) > 0).all())
    assert all(torch.equal(value, before[key]) for key, value in method.backbone.state_dict().items())


def test_old_rows_begin_as_they_were() -> None:
    benchmark, method = Vectors(), pretrained_method("linear_probe")
    go_through(method, benchmark, 1)
    old = method.head.weight.detach().clone()
    begin(method, benchmark.task(1))
    assert torch.equal(method.head.weight[:2], old)
    assert method.head.weight.shape == (4, 6)


@pytest.mark.parametrize("name", ["linear_probe", "joint_probe"])
def test_features_encoded_once_learn_what_images_learn(name: str) -> None:
    """These images are not augmented."""
    answers = []
    for frozen in ("false", "true"):
        method = pretrained_method(name, f"method.frozen_features={frozen}")
        task = go_through(method, Vectors(), 3)
        answers.append(method.scores(task.test.images)["cnn"])
    torch.testing.assert_close(*answers)
