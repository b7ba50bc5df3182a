"""Joint: all data seen, from a fresh network, and no answer before it is trained."""

from __future__ import annotations

import torch

from tests.methods.toy import ToyBenchmark, begin, changed, go_through, tensors, toy_method


def test_it_answers_in_the_last_task_alone() -> None:
    benchmark, method = ToyBenchmark(), toy_method("joint")
    images = torch.zeros(2, 3, 8, 8)
    first = benchmark.task(0)
    begin(method, first)
    assert method.stages(first) == []
    assert method.scores(images) == {}
    assert method.first_task_weights() is None
    last = benchmark.task(1)
    begin(method, last)
    (stage,) = method.stages(last)
    assert sorted(stage.samples.labels.unique().tolist()) == [0, 1, 2, 3]
    assert method.scores(images)["cnn"].shape == (2, 4)
    every = toy_method("joint", "method.every_task=true")
    begin(every, first)
    assert len(every.stages(first)) == 1


def test_every_task_begins_afresh_and_knows_no_shared_first_task() -> None:
    benchmark = ToyBenchmark()
    trained, fresh = (toy_method("joint", "method.every_task=true") for _ in range(2))
    go_through(trained, benchmark, 1)
    before = tensors(trained.network.backbone)
    torch.manual_seed(5)
    trained.grow(benchmark.task(1))
    torch.manual_seed(5)
    fresh.grow(benchmark.task(1))
    assert not changed(tensors(fresh.network), trained.network)
    assert changed(before, trained.network.backbone)


def test_it_counts_all_data_seen_as_its_memory() -> None:
    benchmark, method = ToyBenchmark(), toy_method("joint", "method.every_task=true")
    for tasks in (1, 2):
        go_through(method, benchmark, tasks)
        report = method.byte_report()
        assert (report.exemplars, report.memory_bytes) == (24 * tasks, 24 * tasks * 192)
