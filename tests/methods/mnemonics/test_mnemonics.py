"""Mnemonics' stages without the engine: what they train, what they leave in the memory, what is told for pictures."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mmcl.backbones.aggregated import AggregatedNetwork
from mmcl.backbones.scale_shift import ScaleShiftConv2d
from mmcl.images import FloatPixels
from mmcl.memory.exemplar_record import ExemplarRecord
from mmcl.methods.class_incremental import encode
from mmcl.protocol import Batch, ClassTask, Stage
from tests.methods.toy import ToyBenchmark, begin, go_through, toy_method

CPU = torch.device("cpu")
SHORT = (
    "method.exemplars.inner.steps=1",
    "method.exemplars.learning.lr=100.0",
    "method.exemplars.adjusting.lr=100.0",
    "method.balanced.epochs=0",
    "method.fast_classifier.epochs=0",
    "memory.select=herding_lucir",
)


def _method(*overrides: str, benchmark: ToyBenchmark | None = None) -> Any:
    given = {override.partition("=")[0] for override in overrides}
    short = [override for override in SHORT if override.partition("=")[0] not in given]
    return toy_method("mnemonics", *short, *overrides, benchmark=benchmark)


def _at_stage(name: str, *overrides: str) -> tuple[Any, ClassTask, Stage]:
    """Return a method at the beginning of a stage of its second task."""
    benchmark, method = ToyBenchmark(), _method(*overrides)
    go_through(method, benchmark, 1)
    task = benchmark.task(1)
    begin(method, task)
    for number in range(len(method.stages(task))):
        stage = method.stages(task)[number]
        method.begin_stage(stage, task)
        if stage.name == name:
            return method, task, stage
        method.end_stage(stage, task)
    raise AssertionError(name)


def _batch(task: ClassTask, stage: Stage) -> Batch:
    (batch,) = task.plain_batches(stage.samples, CPU)
    return batch


def _state(method: Any) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in method.network.state_dict().items()}


def _flags(method: Any) -> dict[str, bool]:
    return {name: parameter.requires_grad for name, parameter in method.network.named_parameters()}


def _names(method: Any, task: ClassTask) -> list[str]:
    return [stage.name for stage in method.stages(task)]


# ---------------------------------------------------------------------- stages


@pytest.mark.parametrize(
    ("overrides", "first", "later"),
    [
        (["method.exemplars.mode=off"], [], []),
        (["method.exemplars.mode=nme"], ["exemplars"], ["exemplars"]),
        (["method.exemplars.mode=unrolled_fc"], ["exemplars"], ["exemplars", "adjusting"]),
        (["method.exemplars.adjusting.rounds=0"], ["exemplars"], ["exemplars"]),
        (["method.balanced.epochs=1"], ["exemplars"], ["exemplars", "adjusting", "balanced"]),
        (["memory.size=null", "memory.per_class=1"], ["exemplars"], ["exemplars"]),
    ],
)
def test_stages_follow_the_representation_in_order(overrides: list[str], first: list[str], later: list[str]) -> None:
    benchmark, method = ToyBenchmark(), _method(*overrides)
    task = benchmark.task(0)
    assert _names(method, task) == ["representation", *first]
    go_through(method, benchmark, 1)
    task = benchmark.task(1)
    begin(method, task)
    assert _names(method, task) == ["representation", *later]


@pytest.mark.parametrize("mode", ["nme", "unrolled_fc", "unrolled_full"])
def test_pixels_alone_train_in_the_exemplars_stage(mode: str) -> None:
    method, task, stage = _at_stage("exemplars", f"method.exemplars.mode={mode}")
    assert [id(parameter) for parameter in method.stage_parameters()] == [id(method.exemplars)]
    assert method.exemplars.shape == (8, 3, 8, 8)
    before, pixels = _state(method), method.exemplars.detach().clone()
    optimizer, _ = method.optimizer_of(stage)
    sum(method.train().losses(_batch(task, stage)).values()).backward()
    optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in method.network.state_dict().items())
    assert ((method.exemplars - pixels).flatten(1).norm(dim=1) > 0).all()


@pytest.mark.parametrize("name", ["exemplars", "adjusting"])
@pytest.mark.parametrize("network", ["single", "aanets"])
def test_a_stage_of_pixels_gives_the_network_back_as_it_was(name: str, network: str) -> None:
    method, task, stage = _at_stage("representation", f"method.network={network}")
    assert isinstance(method.network, AggregatedNetwork) is (network == "aanets")
    flags = _flags(method)
    for number in range(1, 3):
        method.end_stage(stage, task)
        stage = method.stages(task)[number]
        method.begin_stage(stage, task)
        assert not any(_flags(method).values())
        if stage.name == name:
            break
    method.end_stage(stage, task)
    assert _flags(method) == flags
    assert method.exemplars is None
    method.train()
    assert any(part.training for part in method.network.modules() if isinstance(part, torch.nn.BatchNorm2d))
    assert any(isinstance(part, ScaleShiftConv2d) for part in method.network.modules())


def test_a_round_moves_one_half_then_the_other_by_the_moved_one() -> None:
    method, task, stage = _at_stage("adjusting")
    first, second = (rows.clone() for rows in method._split)
    assert sorted([*first.tolist(), *second.tolist()]) == list(range(8))
    optimizer, _ = method.optimizer_of(stage)
    moved = []
    batch = _batch(task, stage)
    for turn in method._turns([batch]):
        before = method.exemplars.detach().clone()
        optimizer.zero_grad()
        sum(method.losses(turn).values()).backward()
        optimizer.step()
        moved.append((method.exemplars - before).flatten(1).norm(dim=1).nonzero().flatten())
    assert [rows.tolist() for rows in moved] == [first.tolist(), second.tolist()]
    assert torch.equal(method._split.first, first)  # the next round begins with the same half


def test_pixels_that_follow_judge_by_pixels_that_have_moved() -> None:
    method, task, stage = _at_stage("adjusting")
    gradients = []
    for move in (0.0, 1.0):
        method.exemplars.grad = None
        turns = method._turns([_batch(task, stage)])
        next(turns)
        with torch.no_grad():
            method.exemplars[method._split.first] += move
        sum(method.losses(next(turns)).values()).backward()
        gradients.append(method.exemplars.grad.clone())
        list(turns)
    assert not torch.allclose(*gradients)


def test_old_prototypes_are_those_of_the_network_before_pixels_change() -> None:
    benchmark, method = ToyBenchmark(), _method("method.exemplars.mode=nme")
    task = benchmark.task(0)
    begin(method, task)
    for stage in method.stages(task):
        method.begin_stage(stage, task)
        assert method._old_means is None
        method.end_stage(stage, task)
    method, task, stage = _at_stage("exemplars", "method.exemplars.mode=nme")
    old = method.kept(task)
    assert old.labels.unique().tolist() == [0, 1]
    features = F.normalize(encode(method.network, task, old, CPU))
    expected = F.normalize(torch.stack([features[old.labels == label].mean(0) for label in range(2)]))
    torch.testing.assert_close(method._old_means, expected, rtol=1e-4, atol=1e-5)
    method.end_stage(stage, task)
    assert method._old_means is None


@pytest.mark.parametrize(
    ("overrides", "counts"),
    [
        ([], [0, 0, 12, 12]),
        (["method.exemplars.queries=new_and_memory"], [8, 8, 12, 12]),
        (["method.exemplars.queries_per_class=3"], [0, 0, 3, 3]),
        (["method.exemplars.queries_per_class=3", "method.exemplars.queries=new_and_memory"], [8, 8, 3, 3]),
    ],
)
def test_queries_are_those_asked_for(overrides: list[str], counts: list[int]) -> None:
    """With the memory that the representation was trained with: it is cut to make room after they are asked for."""
    method, _, stage = _at_stage("exemplars", "memory.select=random", *overrides)
    assert torch.bincount(stage.samples.labels, minlength=4).tolist() == counts
    assert torch.bincount(method.memory.samples().labels).tolist() == [4, 4]
    again = _at_stage("exemplars", "memory.select=random", *overrides)[2]
    assert torch.equal(stage.samples.sources, again.samples.sources)


def test_some_exemplars_of_each_class_take_part_in_a_step() -> None:
    method, _, _ = _at_stage("exemplars", "method.exemplars.per_step=2")
    method.on_train_epoch_start()
    drawn = [method._rows_of_step() for _ in range(6)]
    assert all(torch.bincount(method._labels[rows])[2:].tolist() == [2, 2] for rows in drawn)
    assert len({tuple(sorted(rows.tolist())) for rows in drawn}) > 1
    method.on_train_epoch_start()
    assert torch.equal(method._rows_of_step(), drawn[0])


# ---------------------------------------------------------------------- memory


@pytest.mark.parametrize("mode", ["nme", "unrolled_fc", "unrolled_full"])
@pytest.mark.parametrize("storage", ["float", "uint8_round", "uint8_trunc"])
def test_the_memory_holds_what_the_storage_says(mode: str, storage: str) -> None:
    method, task, stage = _at_stage("exemplars", f"method.exemplars.mode={mode}", f"method.exemplars.storage={storage}")
    candidates = method.candidates.samples()
    with torch.no_grad():
        method.exemplars += 0.01 * torch.arange(len(method.exemplars))[:, None, None, None]
    expected = task.pixel_scale.denormalise(method.exemplars.detach())
    old = method.memory.samples()
    method.end_stage(stage, task)
    kept = method.memory.samples()
    assert torch.equal(kept.labels, torch.tensor([0] * 4 + [1] * 4 + [2] * 4 + [3] * 4))
    assert torch.equal(kept.sources, torch.cat([old.sources, candidates.sources]))
    new = kept.select(kept.labels >= 2).images
    if storage == "float":
        assert isinstance(new, FloatPixels)
        assert torch.equal(new.values, expected)
        return
    assert isinstance(new, Tensor)
    assert new.dtype == torch.uint8
    rounded = expected.round().clamp(0, 255) if storage == "uint8_round" else expected.trunc() % 256
    assert torch.equal(new.float(), rounded)


def test_old_classes_keep_their_first_exemplars_and_their_learned_pixels() -> None:
    method, task, stage = _at_stage("representation", "memory.size=20", "memory.select=random")
    before = method.memory.samples()
    method.end_stage(stage, task)
    method.select(task)
    after = method.memory.samples()
    assert torch.bincount(before.labels).tolist() == [10, 10]
    assert torch.bincount(after.labels).tolist() == [5, 5]
    for label in range(2):
        old, new = (samples.select(samples.labels == label) for samples in (before, after))
        assert torch.equal(new.sources, old.sources[:5])
        assert torch.equal(new.images.values, old.images.values[:5])  # type: ignore[union-attr]


def test_adjusted_exemplars_take_the_place_of_the_old_ones() -> None:
    method, task, stage = _at_stage("adjusting")
    before = method.memory.samples()
    with torch.no_grad():
        method.exemplars += 0.5
    expected = task.pixel_scale.denormalise(method.exemplars.detach())
    method.end_stage(stage, task)
    after = method.memory.samples()
    assert torch.equal(after.sources, before.sources)
    assert torch.equal(after.images.values[:8], expected)  # type: ignore[union-attr]
    assert torch.equal(after.images.values[8:], before.images.values[8:])  # type: ignore[union-attr]


# ---------------------------------------------------------------------- pictures


def _record(tasks: int, *overrides: str, classes: int = 4, increment: int = 2) -> tuple[Any, ExemplarRecord | None]:
    benchmark = ToyBenchmark(classes, increment)
    method = _method(*overrides, benchmark=benchmark)
    task = go_through(method, benchmark, tasks)
    return method, method.exemplar_record(task)


def test_pictures_show_the_first_classes_after_the_first_and_the_last_task() -> None:
    assert _record(2, "method.exemplars.mode=off", classes=6)[1] is None
    method, record = _record(3, "method.exemplars.mode=off", classes=6)
    assert record is not None
    assert record.labels.unique().tolist() == [0, 1]  # those of the first task
    assert record.class_means.shape == (4, 4)
    assert len(record.features) == len(record.feature_labels) == 24
    kept = method.memory.samples()
    assert torch.equal(torch.as_tensor(record.images_after).round().to(torch.uint8), kept.images[kept.labels < 2])
    for picks in (record.picks_random, record.picks_herding):
        assert torch.equal(record.feature_labels[picks].bincount(), record.labels.bincount())


def test_of_many_classes_five_are_shown() -> None:
    _, record = _record(1, "method.exemplars.mode=off", classes=14, increment=7)
    assert record is not None
    assert record.labels.unique().tolist() == [0, 1, 2, 3, 4]
    assert len(record.class_means) == 2


def test_pixels_that_are_left_alone_do_not_drift() -> None:
    for tasks in (1, 2):
        _, record = _record(tasks, "method.exemplars.mode=off")
        assert record is not None
        assert record.mode == "off"
        assert torch.equal(record.drift, torch.zeros(len(record.labels)))
        assert torch.equal(record.images_before, record.images_after)


def test_learned_pixels_drift_from_the_images_that_were_chosen() -> None:
    method, record = _record(2, "method.exemplars.mode=unrolled_fc")
    assert record is not None
    assert record.mode == "unrolled_fc"
    assert (record.drift > 0).all()
    kept = method.memory.samples()
    shown = kept.labels < 2
    torch.testing.assert_close(record.images_after, kept.images.values[shown], rtol=0, atol=1e-3)
    chosen = ToyBenchmark().task(0).train
    originals = {int(source): image for source, image in zip(chosen.sources, chosen.images, strict=True)}
    expected = torch.stack([originals[int(source)] for source in kept.sources[shown]]).float()
    torch.testing.assert_close(record.images_before, expected, rtol=0, atol=1e-3)
