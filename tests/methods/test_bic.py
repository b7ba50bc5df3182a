"""BiC: two numbers for each task's logits, learned on images of data and memory that nothing else is trained on."""

from __future__ import annotations

import torch

from mmcl.backbones.freezing import is_frozen
from tests.methods.toy import ToyBenchmark, begun, flags, go_through, toy_method, whole_batch

HALF = "method.held_out=0.5"


def test_the_stages_leave_everything_as_it_was() -> None:
    method, task = begun("bic", HALF)
    trained = flags(method)
    representation, bias = method.stages(task)
    method.begin_stage(representation, task)
    assert not any(parameter.requires_grad for parameter in method.corrections)
    assert not is_frozen(method.network)
    method.end_stage(representation, task)
    assert flags(method) == trained

    method.begin_stage(bias, task)
    assert [id(parameter) for parameter in method.stage_parameters()] == [id(method.corrections[-1])]
    method.train()
    assert not any(module.training for module in method.network.modules())
    method.end_stage(bias, task)
    assert flags(method) == trained
    method.train()
    assert method.network.training


def test_the_bias_stage_changes_the_newest_correction_alone() -> None:
    benchmark, method = ToyBenchmark(), toy_method("bic", HALF)
    go_through(method, benchmark, 2)
    assert method.corrections[0].tolist() == [1.0, 0.0]
    assert method.corrections[1].tolist() != [1.0, 0.0]


def test_what_is_held_out_is_balanced_and_not_trained_on() -> None:
    method, task = begun("bic", HALF)
    representation, bias = method.stages(task)
    assert torch.bincount(bias.samples.labels).tolist() == [4, 4, 4, 4]
    assert len(representation.samples) + len(bias.samples) == len(method.training_samples(task))
    assert not set(representation.samples.sources.tolist()) & set(bias.samples.sources.tolist())


def test_answers_are_corrected_and_the_teacher_answers_with_the_corrections_of_its_time() -> None:
    method, task = begun("bic", HALF, tasks=2, classes=6)
    method.eval()
    with torch.no_grad():
        method.corrections[1].copy_(torch.tensor([2.0, -1.0]))
        images = whole_batch(task).images
        plain, taught = method.network(images).logits, method.teacher(images).logits
        corrected, corrected_old = method.scores(images)["cnn"], method.logits_old(images)
    torch.testing.assert_close(corrected, torch.cat([plain[:, :2], 2 * plain[:, 2:4] - 1, plain[:, 4:]], dim=1))
    torch.testing.assert_close(corrected_old, torch.cat([taught[:, :2], 2 * taught[:, 2:] - 1], dim=1))
