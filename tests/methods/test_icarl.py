"""iCaRL: distillation from the network of the task before, and the nearest class mean of the exemplars."""

from __future__ import annotations

import torch

from tests.methods.toy import ToyBenchmark, begin, begun, go_through, take_step, toy_method, whole_batch


def test_distillation_holds_the_answers_for_old_classes() -> None:
    method, task = begun("icarl")
    method.eval()
    batch = whole_batch(task)
    held = method.losses(batch)["distillation"]
    with torch.no_grad():
        for scale in (0.0, 2.0):
            method.network.head.weight[:2].copy_(scale * method.teacher.head.weight)
            assert method.losses(batch)["distillation"] > held + 1e-4


def test_rows_of_new_classes_learn_from_labels_alone() -> None:
    method, task = begun("icarl")
    (stage,) = method.stages(task)
    method.begin_stage(stage, task)
    take_step(method, task, stage.samples)  # before it, the network is its own teacher: nothing pulls
    method.zero_grad()
    method.losses(whole_batch(task))["distillation"].backward()
    gradient = method.network.head.weight.grad.abs().sum(dim=1)
    assert (gradient[:2] > 0).all()
    assert (gradient[2:] == 0).all()


def test_the_teacher_is_the_network_as_the_task_before_left_it() -> None:
    benchmark, method = ToyBenchmark(), toy_method("icarl")
    images = whole_batch(go_through(method, benchmark, 1)).images
    answers = method.network(images).logits.detach()
    task = benchmark.task(1)
    begin(method, task)
    (stage,) = method.stages(task)
    method.begin_stage(stage, task)
    take_step(method, task, stage.samples)
    method.eval()
    torch.testing.assert_close(method.logits_old(images), answers)
    assert not torch.allclose(method.network(images).logits[:, :2], answers, rtol=1e-3)


def test_the_nearest_mean_answers_without_the_head() -> None:
    benchmark, method = ToyBenchmark(), toy_method("icarl")
    task = go_through(method, benchmark, 2)
    images = whole_batch(task, task.test).images
    with torch.no_grad():
        before = method.eval().scores(images)
        method.network.head.weight.normal_(generator=torch.Generator().manual_seed(0))
        after = method.scores(images)
    assert torch.equal(after["nme"], before["nme"])
    assert not torch.equal(after["cnn"], before["cnn"])
