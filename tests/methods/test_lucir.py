"""LUCIR: features stay where they were, and old classes keep a margin from the new ones."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from tests.methods.toy import begun, whole_batch


@pytest.mark.parametrize(("tasks", "known"), [(1, 2), (2, 4)])
def test_less_forget_grows_with_the_old_classes(tasks: int, known: int) -> None:
    method, task = begun("lucir", "method.less_forget.lambda_base=3.0", tasks=tasks, classes=6)
    method.begin_stage(method.stages(task)[0], task)
    with torch.no_grad():
        for parameter in method.network.backbone.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    method.eval()
    batch = whole_batch(task)
    ours, theirs = method.network(batch.images).features, method.teacher(batch.images).features
    expected = 3.0 * math.sqrt(known / 2) * (1 - F.cosine_similarity(ours, theirs)).mean()
    assert expected > 1e-3
    torch.testing.assert_close(method.losses(batch)["less_forget"], expected)


def test_the_margin_is_about_samples_of_old_classes() -> None:
    method, task = begun("lucir", "method.less_forget.margin=2.0")  # so far apart are no two cosines
    (stage,) = method.stages(task)
    method.begin_stage(stage, task)
    new = task.train
    both = stage.samples
    assert set(both.labels.tolist()) - set(new.labels.tolist()) == {0, 1}
    assert method.losses(whole_batch(task, new))["margin_ranking"] == 0
    assert method.losses(whole_batch(task, both))["margin_ranking"] > 0


def test_an_old_sample_far_from_the_new_classes_costs_nothing() -> None:
    method, task = begun("lucir", "method.less_forget.margin=0.5", "method.less_forget.hard_negatives=1")
    (stage,) = method.stages(task)
    method.begin_stage(stage, task)
    old = stage.samples.select(stage.samples.labels < 2)
    head = method.eval().network.head
    with torch.no_grad():
        features = method.network(whole_batch(task, old).images).features
        head.weight_old.copy_(features.mean(dim=0).expand_as(head.weight_old))
        head.weight_new.copy_(-features.mean(dim=0).expand_as(head.weight_new))
    assert method.losses(whole_batch(task, old))["margin_ranking"] == 0
    with torch.no_grad():
        head.weight_new.copy_(head.weight_old)
    torch.testing.assert_close(method.losses(whole_batch(task, old))["margin_ranking"], torch.tensor(0.5))
