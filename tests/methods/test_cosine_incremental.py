"""What methods with a cosine head share: imprinted rows, what trains in which stage, memory and readouts."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmcl.backbones.freezing import is_frozen
from mmcl.backbones.scale_shift import ScaleShiftConv2d
from mmcl.errors import UserError
from mmcl.methods.class_incremental import encode
from mmcl.protocol import Samples
from tests.methods.toy import (
    CPU,
    ToyBenchmark,
    begin,
    begun,
    changed,
    flags,
    go_through,
    take_step,
    tensors,
    toy_method,
    whole_batch,
)

BALANCED = "method.balanced.epochs=1"
TRANSFER = "method.weight_transfer=true"
WITHOUT_PIXELS = ("method.exemplars.mode=off", "method.balanced.epochs=0")


# ---------------------------------------------------------------------- rows of new classes


def test_new_rows_point_to_their_class_at_the_length_of_old_rows() -> None:
    method, task = begun("lucir")
    head = method.network.head
    features = encode(method.network, task, task.train, CPU)
    length = head.weight_old.norm(dim=1).mean()
    for label, row in zip(range(2, 4), head.weight_new, strict=True):
        direction = F.normalize(features[task.train.labels == label], dim=1).mean(0)
        torch.testing.assert_close(row.detach(), length * direction / direction.norm())


def test_rows_of_the_first_task_are_drawn() -> None:
    benchmark, method = ToyBenchmark(), toy_method("lucir")
    begin(method, benchmark.task(0))
    rows = method.network.head.weight_new
    assert rows.shape[0] == 2
    assert rows.abs().max() <= rows.shape[1] ** -0.5
    assert len(method.network.head.weight_old) == 0


def test_trained_rows_and_scale_are_kept_when_the_head_grows() -> None:
    benchmark, method = ToyBenchmark(), toy_method("lucir")
    go_through(method, benchmark, 1)
    rows, sigma = method.network.head.weight.detach(), method.network.head.sigma.detach().clone()
    begin(method, benchmark.task(1))
    assert torch.equal(method.network.head.weight_old, rows)
    assert torch.equal(method.network.head.sigma, sigma)


# ---------------------------------------------------------------------- losses


@pytest.mark.parametrize("name", ["lucir", "icarl_cosine", "aanets", "mnemonics"])
def test_the_first_task_is_learned_by_cross_entropy_alone(name: str) -> None:
    benchmark, method = ToyBenchmark(), toy_method(name)
    task = benchmark.task(0)
    begin(method, task)
    method.begin_stage(method.stages(task)[0], task)
    batch = whole_batch(task)
    assert method.teacher is None
    terms = method.losses(batch)
    assert set(terms) == {"classification"}
    expected = F.cross_entropy(method.network(batch.images).logits, batch.labels)
    torch.testing.assert_close(terms["classification"], expected)


def test_the_reference_answers_as_the_network_did() -> None:
    benchmark, method = ToyBenchmark(), toy_method("mnemonics", TRANSFER, *WITHOUT_PIXELS)
    for index in range(2):
        go = benchmark.task(index)
        begin(method, go)
        stage = method.stages(go)[0]
        method.begin_stage(stage, go)
        take_step(method, go, stage.samples)
        method.end_stage(stage, go)
    task = benchmark.task(1)
    images = whole_batch(task).images
    expected = method.eval().network(images).logits
    reference = method.network.frozen_copy()
    torch.testing.assert_close(reference(images).logits, expected, rtol=1e-4, atol=1e-5)
    assert is_frozen(reference)


# ---------------------------------------------------------------------- what trains


@pytest.mark.parametrize("name", ["lucir", "icarl_cosine"])
def test_old_rows_and_reference_stay_while_the_representation_trains(name: str) -> None:
    method, task = begun(name)
    stage = method.stages(task)[0]
    method.begin_stage(stage, task)
    before, reference = tensors(method.network), tensors(method.teacher)
    take_step(method, task, stage.samples)
    assert not changed(reference, method.teacher)
    unchanged = set(before) - changed(before, method.network)
    assert unchanged == {"head.weight_old"}  # statistics, scale and new rows move


def test_weight_transfer_trains_scales_and_norms_alone() -> None:
    method, task = begun("mnemonics", TRANSFER, *WITHOUT_PIXELS)
    stage = method.stages(task)[0]
    method.begin_stage(stage, task)
    before = tensors(method.network)
    take_step(method, task, stage.samples)
    convolutions = {
        f"{place}.{name}"
        for place, part in method.network.named_modules()
        if isinstance(part, ScaleShiftConv2d)
        for name in ("weight", "bias")
        if getattr(part, name) is not None
    }
    unchanged = set(before) - changed(before, method.network)
    assert unchanged == {"head.weight_old", *convolutions}
    assert any(name.endswith(".scale") for name in before)
    assert any(name.endswith("running_mean") for name in before)


def test_weight_transfer_begins_where_the_first_task_ended_and_happens_once() -> None:
    benchmark = ToyBenchmark(6)
    method = toy_method("mnemonics", TRANSFER, *WITHOUT_PIXELS, benchmark=benchmark)
    go_through(method, benchmark, 1)
    images = whole_batch(benchmark.task(0)).images
    expected = method.eval().network(images).features
    begin(method, benchmark.task(1))
    torch.testing.assert_close(method.eval().network(images).features, expected)
    network = method.network
    begin(method, benchmark.task(2))
    assert method.network is network


def test_whatever_evaluates_sees_the_scales() -> None:
    benchmark = ToyBenchmark(per_class=40)  # so many that they are evaluated through a view of the network
    method = toy_method("mnemonics", TRANSFER, *WITHOUT_PIXELS, benchmark=benchmark)
    go_through(method, benchmark, 1)
    task = benchmark.task(1)
    begin(method, task)
    with torch.no_grad():
        for part in method.network.modules():
            if isinstance(part, ScaleShiftConv2d):
                part.scale.mul_(torch.linspace(0.2, 3.0, part.scale.numel()).view_as(part.scale))
    method.eval()
    with torch.no_grad():
        expected = method.network.backbone(whole_batch(task).images)
    torch.testing.assert_close(encode(method.network, task, task.train, CPU), expected, rtol=1e-3, atol=1e-4)
    method.freeze_network()
    torch.testing.assert_close(method.network(whole_batch(task).images).features, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "overrides"),
    [("lucir", ()), ("mnemonics", (TRANSFER, "method.exemplars.mode=off")), ("aanets", ())],
)
def test_the_balanced_stage_trains_rows_alone_and_gives_flags_back(name: str, overrides: tuple[str, ...]) -> None:
    method, task = begun(name, BALANCED, *overrides)
    representation, _ = method.stages(task)
    method.begin_stage(representation, task)
    method.end_stage(representation, task)
    trained = flags(method.network)
    _, balanced = method.stages(task)
    assert balanced.name == "balanced"
    assert torch.bincount(balanced.samples.labels).tolist() == [4, 4, 4, 4]
    method.begin_stage(balanced, task)
    head = method.network.head
    assert {id(p) for p in method.stage_parameters()} == {id(head.weight_old), id(head.weight_new)}
    before = tensors(method.network)
    take_step(method, task, balanced.samples)
    assert changed(before, method.network) == {"head.weight_old", "head.weight_new"}
    method.end_stage(balanced, task)
    assert flags(method.network) == trained
    method.train()
    assert any(module.training for module in method.network.modules() if isinstance(module, nn.BatchNorm2d))


def test_exemplars_are_chosen_before_the_balanced_stage_and_not_again() -> None:
    method, task = begun("lucir", BALANCED)
    representation, _ = method.stages(task)
    method.begin_stage(representation, task)
    take_step(method, task, representation.samples)
    method.end_stage(representation, task)
    chosen = method.memory.samples().sources
    balanced = method.stages(task)[1]
    method.begin_stage(balanced, task)
    take_step(method, task, balanced.samples)
    method.end_stage(balanced, task)
    method.eval().end_task(task)
    assert torch.equal(method.memory.samples().sources, chosen)


# ---------------------------------------------------------------------- memory


@pytest.mark.parametrize(("round_up", "counts"), [("false", [[7, 7], [3] * 4]), ("true", [[7, 7], [4] * 4])])
def test_shares_of_the_total_are_rounded_as_asked(round_up: str, counts: list[list[int]]) -> None:
    benchmark = ToyBenchmark()
    method = toy_method("icarl_cosine", "memory.size=14", f"method.round_up={round_up}")
    kept = []
    for index in range(2):
        begin(method, benchmark.task(index))
        method.eval().end_task(benchmark.task(index))
        kept.append(method.memory.samples())
        assert torch.bincount(kept[-1].labels).tolist() == counts[index]
    for label in range(2):
        first, second = (samples.sources[samples.labels == label] for samples in kept)
        assert torch.equal(second, first[: len(second)])  # the last ranks are dropped


def test_a_number_for_each_class_stays() -> None:
    benchmark = ToyBenchmark()
    method = toy_method("lucir", "memory.size=null", "memory.per_class=5")
    go_through(method, benchmark, 2)
    assert torch.bincount(method.memory.samples().labels).tolist() == [5, 5, 5, 5]
    assert method.memory.samples().images.dtype == torch.uint8


# ---------------------------------------------------------------------- readouts


@pytest.mark.parametrize(
    ("overrides", "readouts"),
    [
        (("method.fast_classifier.epochs=0",), ("cnn", "nme")),
        (("method.fast_classifier.epochs=1",), ("cnn", "nme", "nme_ft")),
        (("method.fast_classifier.epochs=1", "method.oracle_means=true"), ("cnn", "nme", "nme_ft", "nme_all_oracle")),
    ],
)
def test_readouts_are_those_asked_for(overrides: tuple[str, ...], readouts: tuple[str, ...]) -> None:
    benchmark, method = ToyBenchmark(), toy_method("lucir", *overrides)
    task = go_through(method, benchmark, 2)
    scores = method.eval().scores(whole_batch(task, task.test).images)
    assert method.readouts == tuple(scores) == readouts
    assert all(values.shape == (len(task.test), 4) for values in scores.values())


@pytest.mark.parametrize(("view", "axis"), [("none", None), ("channel_reverse", 1), ("hflip", 3)])
def test_means_average_both_views(view: str, axis: int | None) -> None:
    benchmark, method = ToyBenchmark(), toy_method("lucir", f"method.second_view={view}")
    task = go_through(method, benchmark, 1)
    kept = method.kept(task)
    other = kept if axis is None else replace(kept, images=kept.images.flip(axis))  # type: ignore[union-attr]
    first, second = (F.normalize(encode(method.network, task, samples, CPU).double()) for samples in (kept, other))
    for label in range(2):
        rows = kept.labels == label
        expected = F.normalize((first[rows].mean(0) + second[rows].mean(0)) / 2, dim=0)
        torch.testing.assert_close(method.nearest_mean.means[label].double(), expected, rtol=1e-4, atol=1e-5)


def test_oracle_means_are_those_of_all_images() -> None:
    benchmark, method = ToyBenchmark(), toy_method("lucir", "method.oracle_means=true")
    task = go_through(method, benchmark, 2)
    images = Samples.concatenate([task.past(), task.train])
    assert len(images) == 48
    features = F.normalize(encode(method.network, task, images, CPU).double())
    for label in range(4):
        expected = F.normalize(features[images.labels == label].mean(0), dim=0)
        torch.testing.assert_close(method.oracle_mean.means[label].double(), expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(method.oracle_mean.means, method.nearest_mean.means)


def test_tuned_means_begin_at_the_means_and_move() -> None:
    benchmark = ToyBenchmark()
    still = toy_method("lucir", "method.fast_classifier.epochs=1", "method.fast_classifier.lr=0.0")
    moved = toy_method("lucir", "method.fast_classifier.epochs=5", "method.fast_classifier.lr=1.0")
    for method in (still, moved):
        go_through(method, benchmark, 1)
    torch.testing.assert_close(still.fast_means.means, still.nearest_mean.means.float())
    assert not torch.allclose(moved.fast_means.means, moved.nearest_mean.means.float(), atol=1e-3)


@pytest.mark.parametrize("base", ["lucir", "distillation"])
def test_more_hard_negatives_than_new_classes_matter_to_the_margin_alone(base: str) -> None:
    wanted = ["method.less_forget.hard_negatives=3", f"method.base={base}"]
    if base == "lucir":
        with pytest.raises(UserError, match="brings only 2 new classes"):
            toy_method("aanets", *wanted)
    toy_method("aanets", *wanted[: 2 if base == "distillation" else 1], "method.less_forget.margin_weight=0")
