"""Finetune: the new classes alone are learned, and nothing is kept."""

from __future__ import annotations

import torch

from tests.methods.toy import begun, whole_batch


def test_old_rows_get_no_gradient() -> None:
    method, task = begun("finetune")
    method.losses(whole_batch(task))["classification"].backward()
    gradient = method.network.head.weight.grad.abs().sum(dim=1)
    assert (gradient[:2] == 0).all()
    assert (gradient[2:] > 0).all()


def test_a_task_is_trained_on_its_own_data_and_nothing_is_kept() -> None:
    method, task = begun("finetune")
    (stage,) = method.stages(task)
    assert torch.equal(stage.samples.sources, task.train.sources)
    report = method.byte_report()
    assert (report.exemplars, report.memory_bytes, report.teacher_bytes) == (0, 0, 0)
    assert method.readouts == ("cnn",)
