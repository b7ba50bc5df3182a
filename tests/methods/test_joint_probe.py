"""Joint probe: a fresh head on all data seen, over a frozen network."""

from __future__ import annotations

import torch

from tests.methods.pretrained import Vectors, begin, go_through, pretrained_method


def test_it_answers_in_the_last_task_alone_and_counts_all_data() -> None:
    benchmark, method = Vectors(), pretrained_method("joint_probe")
    first = benchmark.task(0)
    assert begin(method, first) == []
    assert method.scores(first.test.images) == {}
    method = pretrained_method("joint_probe")
    task = go_through(method, benchmark, 3)
    assert method.scores(task.test.images)["cnn"].shape == (30, 6)
    report = method.byte_report()
    assert (report.exemplars, report.memory_bytes) == (96, 96 * 6 * 4)


def test_every_task_draws_a_fresh_head_and_trains_it_on_all_data_seen() -> None:
    benchmark, method = Vectors(), pretrained_method("joint_probe", "method.every_task=true")
    go_through(method, benchmark, 1)
    trained = method.head.weight.detach().clone()
    task = benchmark.task(1)
    (stage,) = begin(method, task)
    assert sorted(stage.samples.labels.unique().tolist()) == [0, 1, 2, 3]
    assert method.head.weight.shape == (4, 6)
    assert not torch.allclose(method.head.weight[:2], trained)
