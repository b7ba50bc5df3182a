"""WA: cross-entropy and distillation by the share of old classes, then rows of equal mean norm."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tests.methods.toy import begun, take_step, whole_batch


def test_aligning_turns_no_row_and_leaves_the_old_ones_alone() -> None:
    method, task = begun("wa")
    (stage,) = method.stages(task)
    method.begin_stage(stage, task)
    take_step(method, task, stage.samples)
    before = method.network.head.weight.detach().clone()
    method.end_stage(stage, task)
    after = method.network.head.weight.detach()
    assert torch.equal(after[:2], before[:2])
    factors = after[2:] / before[2:]
    torch.testing.assert_close(factors, factors.mean().expand_as(factors))
    assert abs(float(factors.mean()) - 1) > 1e-3


def test_the_first_task_has_nothing_to_align_with() -> None:
    method, task = begun("wa", tasks=0)
    (stage,) = method.stages(task)
    method.begin_stage(stage, task)
    take_step(method, task, stage.samples)
    before = method.network.head.weight.detach().clone()
    method.end_stage(stage, task)
    assert torch.equal(method.network.head.weight, before)


@pytest.mark.parametrize(("tasks", "share"), [(1, 2 / 4), (2, 4 / 6)])
def test_the_more_classes_are_old_the_more_distillation_weighs(tasks: int, share: float) -> None:
    method, task = begun("wa", tasks=tasks, classes=6)
    method.eval()
    batch = whole_batch(task)
    terms = method.losses(batch)
    logits, logits_old = method.network(batch.images).logits, method.teacher(batch.images).logits
    torch.testing.assert_close(terms["classification"], (1 - share) * F.cross_entropy(logits, batch.labels))
    # The network is still its own teacher on old classes: what it distils is the entropy of the softened answers.
    softened = F.softmax(logits_old / 2, dim=1)
    torch.testing.assert_close(terms["distillation"], share * -(softened * softened.log()).sum(dim=1).mean())
