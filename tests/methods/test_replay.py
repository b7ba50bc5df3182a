"""Replay: the memory is drawn from beside the new data, and old classes are learned like new ones."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tests.methods.toy import ToyBenchmark, begun, go_through, toy_method, whole_batch


def test_a_task_trains_on_its_data_and_the_whole_memory() -> None:
    method, task = begun("replay")
    (stage,) = method.stages(task)
    assert torch.bincount(stage.samples.labels).tolist() == [8, 8, 12, 12]
    old = stage.samples.labels < 2
    assert torch.equal(stage.samples.images[old], method.memory.samples().images)
    assert torch.equal(stage.samples.sources[~old], task.train.sources)


def test_old_classes_make_room_for_new_ones_and_keep_their_best() -> None:
    benchmark, method = ToyBenchmark(), toy_method("replay")
    go_through(method, benchmark, 1)
    before = method.memory.samples()
    method, task = begun("replay")
    method.eval().end_task(task)
    after = method.memory.samples()
    assert torch.bincount(after.labels).tolist() == [4, 4, 4, 4]
    for label in range(2):
        assert torch.equal(after.sources[after.labels == label], before.sources[before.labels == label][:4])


def test_one_cross_entropy_over_all_classes_reaches_old_rows() -> None:
    method, task = begun("replay")
    (stage,) = method.stages(task)
    batch = whole_batch(task, stage.samples)
    terms = method.eval().losses(batch)
    assert set(terms) == {"classification"}
    torch.testing.assert_close(
        terms["classification"], F.cross_entropy(method.network(batch.images).logits, batch.labels)
    )
    terms["classification"].backward()
    assert (method.network.head.weight.grad.abs().sum(dim=1) > 0).all()
