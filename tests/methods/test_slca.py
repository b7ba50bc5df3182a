"""SLCA: what learns when, what an alignment changes and what it leaves, and its formulas."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mmcl.backbones.freezing import is_frozen
from mmcl.config.compose import compose_run
from mmcl.errors import UserError
from mmcl.methods.slca import normalised_logits, own_tasks, published_tasks
from mmcl.protocol import ImageFeatures
from tests.methods.pretrained import Vectors, begin, go_through, pretrained_method, train

# ------------------------------------------------------------------ formulas


@given(st.floats(0.01, 100), st.floats(0.05, 2), st.integers(0, 99))
def test_normalised_logits_do_not_see_a_common_scale(scale: float, temperature: float, seed: int) -> None:
    numbers = torch.Generator().manual_seed(seed)
    parts = [1 + torch.rand(4, size, generator=numbers, dtype=torch.float64) for size in (3, 2, 2)]
    ours = normalised_logits(parts, temperature)
    scaled = normalised_logits([scale * part for part in parts], temperature)
    torch.testing.assert_close(scaled, ours, rtol=1e-4, atol=0)
    norms = torch.stack([part.norm(dim=1) for part in torch.split(ours, [3, 2, 2], dim=1)])
    torch.testing.assert_close(
        norms.mean(dim=0), torch.full((4,), 1 / temperature, dtype=torch.float64), rtol=1e-6, atol=0
    )


def test_without_a_temperature_logits_are_joined_alone() -> None:
    parts = [torch.randn(2, 3), torch.randn(2, 1)]
    assert torch.equal(normalised_logits(parts, None), torch.cat(parts, dim=1))


def test_the_published_task_of_a_class_is_wrong_where_the_last_task_is_smaller() -> None:
    assert torch.equal(published_tasks(60, 20), own_tasks([20, 20, 20]))
    cars = published_tasks(196, 16)
    assert not torch.equal(cars, own_tasks([20] * 9 + [16]))
    assert cars.max() == 12


# ------------------------------------------------------------------ what learns


def test_only_network_and_newest_head_learn_in_the_first_stage_and_only_answering_heads_in_the_second() -> None:
    benchmark, method = Vectors(), pretrained_method("slca")
    go_through(method, benchmark, 1)
    task = benchmark.task(1)
    representation, alignment = begin(method, task)
    method.begin_stage(representation, task)
    learning = {id(p) for p in method.stage_parameters()}
    assert learning == {id(p) for part in (method.backbone, method.heads[1]) for p in part.parameters()}
    method.end_stage(representation, task)
    method.begin_stage(alignment, task)
    assert {id(p) for p in method.stage_parameters()} == {id(p) for p in method.answering.parameters()}


def test_the_network_learns_slowly() -> None:
    benchmark, method = Vectors(), pretrained_method("slca", "method.representation.milestones=[2]")
    task = benchmark.task(0)
    (stage,) = begin(method, task)
    method.begin_stage(stage, task)
    optimizer, scheduler = method.optimizer_of(stage)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.01, 0.0001])
    assert {id(p) for p in optimizer.param_groups[1]["params"]} == {id(p) for p in method.backbone.parameters()}
    for _ in range(2):
        optimizer.step()
        scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.001, 0.00001])


def test_running_statistics_of_the_network_stay() -> None:
    method = pretrained_method("slca")
    before = {name: value.clone() for name, value in method.backbone.state_dict().items()}
    go_through(method, Vectors(), 1)
    after = method.backbone.state_dict()
    assert torch.equal(after["norm.running_mean"], before["norm.running_mean"])
    assert not torch.equal(after["linear.weight"], before["linear.weight"])


def test_a_scale_of_zero_freezes_the_network() -> None:
    method = pretrained_method("slca", "method.backbone_lr_scale=0")
    before = {name: value.clone() for name, value in method.backbone.state_dict().items()}
    benchmark = Vectors()
    go_through(method, benchmark, 1)
    assert all(torch.equal(value, before[name]) for name, value in method.backbone.state_dict().items())
    task = benchmark.task(1)
    (stage, _) = begin(method, task)
    method.begin_stage(stage, task)
    method.train()
    assert is_frozen(method.backbone)
    assert not any(module.training for module in method.backbone.modules())


def test_new_classes_compete_among_themselves() -> None:
    """Whatever the old heads are, the first stage learns the same."""
    states = []
    for factor in (1.0, 50.0):
        benchmark, method = Vectors(), pretrained_method("slca")
        go_through(method, benchmark, 1)
        with torch.no_grad():
            method.heads[0].weight.mul_(factor)
        task = benchmark.task(1)
        train(method, begin(method, task)[0], task)
        states.append(method.heads[1].weight.detach().clone())
    assert torch.equal(*states)


# ------------------------------------------------------------------ alignment


def _second_task(*overrides: str, align: bool = True) -> tuple[nn.Module, Vectors]:
    benchmark, method = Vectors(), pretrained_method("slca", "method.draws_per_class=32", *overrides)
    go_through(method, benchmark, 1)
    task = benchmark.task(1)
    representation, alignment = begin(method, task)
    train(method, representation, task)
    if align:
        train(method, alignment, task)
    method.eval()
    return method, benchmark


def test_an_alignment_never_carries_over() -> None:
    aligned, benchmark = _second_task()
    plain, _ = _second_task(align=False)
    for ours, theirs in zip(aligned.heads, plain.heads, strict=True):
        assert torch.equal(ours.weight, theirs.weight)
    images = benchmark.task(1).test.images
    assert not torch.allclose(aligned.scores(images)["cnn"], plain.scores(images)["cnn"])
    third = benchmark.task(2)
    for method in (aligned, plain):
        train(method, begin(method, third)[0], third)
        method.eval()
    images = third.test.images
    assert torch.equal(aligned.scores(images)["cnn"], plain.scores(images)["cnn"])


def test_an_alignment_that_is_resumed_begins_with_the_heads_as_they_were() -> None:
    method, benchmark = _second_task()
    task = benchmark.task(1)
    first = method.answering[0].weight.detach().clone()
    train(method, method.stages(task)[1], task)
    assert torch.equal(method.answering[0].weight, first)


def test_the_first_task_and_zero_epochs_have_no_alignment() -> None:
    benchmark = Vectors()
    assert [stage.name for stage in begin(pretrained_method("slca"), benchmark.task(0))] == ["representation"]
    method = pretrained_method("slca", "method.alignment.epochs=0")
    go_through(method, benchmark, 1)
    task = benchmark.task(1)
    assert [stage.name for stage in begin(method, task)] == ["representation"]


def test_drawn_features_are_of_their_class_and_differ_between_epochs() -> None:
    method, benchmark = _second_task(align=False)
    task = benchmark.task(1)
    stage = method.stages(task)[1]
    method.begin_stage(stage, task)
    assert isinstance(stage.samples, ImageFeatures)
    features, labels = stage.samples.features, stage.samples.labels
    assert features.shape == (4 * 32, 5, 6)
    assert torch.bincount(labels).tolist() == [32, 32, 32, 32]
    assert not torch.equal(features[:, 0], features[:, 1])
    means = torch.stack([features[labels == label].flatten(0, 1).mean(dim=0) for label in range(4)])
    expected = method.gaussians.means * torch.tensor([0.95, 0.95, 1.0, 1.0])[:, None]
    deviation = method.gaussians.covariances.diagonal(dim1=1, dim2=2).sqrt()
    assert ((means - expected).abs() / deviation).max() < 5 / (32 * 5) ** 0.5


def test_sizes_of_tasks_decide_the_shrinking_only_as_asked() -> None:
    features = []
    for shrinking in ("published", "own_task"):
        benchmark = Vectors(classes=5, increment=3)
        method = pretrained_method("slca", f"method.shrinking={shrinking}", tasks=2)
        go_through(method, benchmark, 1)
        task = benchmark.task(1)
        representation, alignment = begin(method, task)
        train(method, representation, task)
        method.begin_stage(alignment, task)
        features.append(alignment.samples.features)
    # Class 2 is of the first task of three; three by two is the second.
    assert torch.equal(features[0][: 2 * 256], features[1][: 2 * 256])
    assert not torch.allclose(features[0][2 * 256 : 3 * 256], features[1][2 * 256 : 3 * 256])


# ------------------------------------------------------------------ results


def test_features_encoded_once_learn_what_images_learn() -> None:
    """These images are not augmented, and the network is frozen."""
    benchmark = Vectors()
    answers = []
    for frozen in ("false", "true"):
        method = pretrained_method("slca", "method.backbone_lr_scale=0", f"method.frozen_features={frozen}")
        task = go_through(method, benchmark, 3)
        answers.append(method.scores(task.test.images)["cnn"])
    torch.testing.assert_close(*answers)


def test_it_learns_and_remembers() -> None:
    benchmark = Vectors()
    method = pretrained_method("slca", "method.representation.lr=0.3", "method.alignment.lr=0.3", network=False)
    task = go_through(method, benchmark, 3, steps=25)
    right = method.scores(task.test.images)["cnn"].argmax(1) == task.test.labels
    assert right.double().mean() > 0.9
    assert right[task.test.labels < 2].double().mean() > 0.8


def test_bytes_are_those_of_network_heads_and_gaussians() -> None:
    method = pretrained_method("slca")
    go_through(method, Vectors(), 2)
    report = method.byte_report()
    assert report.model_bytes == sum(p.nbytes for p in method.backbone.parameters())
    assert report.head_bytes == 2 * 2 * (2 * 6 + 2) * 4  # two heads, once to learn and once to answer
    assert report.memory_bytes == 4 * (6 * 8 + 36 * 4)
    assert report.exemplars == report.paper_memory_bytes == 0


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("method.virtual_batch=100", "multiple of method.representation.batch_size=128"),
        ("method.backbone_lr_scale=-1", "0 (frozen) or more"),
        ("method.frozen_features=true", "Type method.backbone_lr_scale=0"),
        ("method.draws_per_class=0", "at least 1"),
        ("method.logit_norm=0", "null for none"),
        ("method.shrinking=publisht", "Did you mean"),
    ],
)
def test_bad_values_are_refused(override: str, words: str) -> None:
    with pytest.raises(UserError, match=r"method\.") as refused:
        compose_run(["+method=slca", override])
    assert words in str(refused.value)
