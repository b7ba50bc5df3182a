"""What holds for every class-incremental method."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from mmcl.backbones.freezing import is_frozen
from mmcl.memory.accounting import module_bytes
from tests.methods.kinds import CLASS_INCREMENTAL
from tests.methods.toy import ToyBenchmark, begin, go_through, toy_method

FROZEN = {
    "memo": lambda method: [method.network.branches[0]],
    "der": lambda method: [method.network.branches[0]],
    "icarl": lambda method: [method.teacher],
    "wa": lambda method: [method.teacher],
    "bic": lambda method: [method.teacher],
}


def _second_task(name: str, *overrides: str) -> tuple[Any, Any]:
    benchmark, method = ToyBenchmark(), toy_method(name, *overrides)
    go_through(method, benchmark, 1)
    task = benchmark.task(1)
    begin(method, task)
    method.begin_stage(method.stages(task)[0], task)
    return method, task


@pytest.mark.parametrize("name", sorted(FROZEN))
def test_frozen_stays_frozen_whoever_calls_train(name: str) -> None:
    method, task = _second_task(name)
    batch = next(iter(task.plain_batches(task.train, torch.device("cpu"))))
    for part in FROZEN[name](method):
        before = {key: value.clone() for key, value in part.state_dict().items()}
        for call in (method.train, lambda: method.eval() and method.train(), lambda: method.network.train()):
            call()
            assert is_frozen(part)
            assert not any(module.training for module in part.modules())
        assert not {id(p) for p in part.parameters()} & {id(p) for p in method.stage_parameters()}
        torch.stack(list(method.losses(batch).values())).sum().backward()
        assert all(parameter.grad is None for parameter in part.parameters())
        assert all(torch.equal(value, before[key]) for key, value in part.state_dict().items())


def test_a_frozen_trunk_stays_frozen() -> None:
    method, _ = _second_task("memo", "method.train_base=false")
    method.train()
    assert is_frozen(method.network.trunk)
    assert not method.network.trunk.training
    free, _ = _second_task("memo", "method.train_base=true")
    assert free.train().network.trunk.training


@pytest.mark.parametrize("name", CLASS_INCREMENTAL)
def test_the_byte_report_is_the_sum_of_what_is_kept(name: str) -> None:
    benchmark = ToyBenchmark()
    method = toy_method(name)
    go_through(method, benchmark, 2)
    report = method.byte_report()
    assert report.model_bytes + report.head_bytes + report.buffer_bytes == module_bytes(method.network).total
    teacher = getattr(method, "teacher", None)
    assert report.teacher_bytes == (module_bytes(teacher).total if teacher is not None else 0)
    if not hasattr(method, "memory"):
        # The upper bound keeps all data: 48 images of 3x8x8.
        assert (report.exemplars, report.memory_bytes) == ((48, 48 * 192) if name == "joint" else (0, 0))
        return
    kept = method.memory.samples()
    assert report.exemplars == len(kept) == 16
    assert report.memory_bytes == kept.images.nbytes + kept.labels.nbytes + kept.sources.nbytes


@pytest.mark.parametrize("name", CLASS_INCREMENTAL)
def test_the_whole_state_loads_with_weights_only(name: str, tmp_path: Any) -> None:
    benchmark, method, other = ToyBenchmark(), toy_method(name), toy_method(name)
    task = go_through(method, benchmark, 2)
    torch.save(method.state_dict(), tmp_path / "state.pt")
    for index in range(2):
        other.grow(benchmark.task(index))
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    images = next(iter(task.plain_batches(task.test, torch.device("cpu")))).images
    with torch.no_grad():
        ours, theirs = method.eval().scores(images), other.eval().scores(images)
    assert ours.keys() == theirs.keys() == set(method.readouts)
    assert all(torch.equal(ours[readout], theirs[readout]) for readout in ours)
    assert all(scores.shape == (len(images), 4) for scores in ours.values())


@pytest.mark.parametrize("name", CLASS_INCREMENTAL)
def test_stages_are_the_same_whenever_they_are_asked_for(name: str) -> None:
    benchmark, method = ToyBenchmark(), toy_method(name)
    go_through(method, benchmark, 1)
    task = benchmark.task(1)
    begin(method, task)
    first, second = method.stages(task), method.stages(task)
    assert [stage.name for stage in first] == [stage.name for stage in second]
    for ours, theirs in zip(first, second, strict=True):
        assert torch.equal(ours.samples.sources, theirs.samples.sources)


@pytest.mark.parametrize("name", ["wa", "memo", "der"])
def test_new_and_old_rows_of_the_head_have_equal_mean_norms(name: str) -> None:
    method = toy_method(name)
    go_through(method, ToyBenchmark(), 2)
    norms = method.network.head.weight.detach().norm(dim=1)
    torch.testing.assert_close(norms[:2].mean(), norms[2:].mean())


def test_without_aligning_the_norms_differ() -> None:
    method = toy_method("replay")
    go_through(method, ToyBenchmark(), 2)
    norms = method.network.head.weight.detach().norm(dim=1)
    assert not torch.isclose(norms[:2].mean(), norms[2:].mean())


def _flags(module: nn.Module) -> dict[str, bool]:
    return {name: parameter.requires_grad for name, parameter in module.named_parameters()}


def test_the_stages_of_bic_leave_everything_as_it_was() -> None:
    benchmark, method = ToyBenchmark(), toy_method("bic", "method.held_out=0.5")
    go_through(method, benchmark, 1)
    task = benchmark.task(1)
    begin(method, task)
    before = _flags(method)
    representation, bias = method.stages(task)
    method.begin_stage(representation, task)
    assert not any(parameter.requires_grad for parameter in method.corrections)
    assert not is_frozen(method.network)
    method.end_stage(representation, task)
    assert _flags(method) == before

    method.begin_stage(bias, task)
    assert [id(parameter) for parameter in method.stage_parameters()] == [id(method.corrections[-1])]
    method.train()
    assert not any(module.training for module in method.network.modules())
    method.end_stage(bias, task)
    assert _flags(method) == before
    method.train()
    assert method.network.training


def test_the_bias_stage_of_bic_changes_the_newest_correction_alone() -> None:
    benchmark, method = ToyBenchmark(), toy_method("bic", "method.held_out=0.5")
    go_through(method, benchmark, 2)
    assert method.corrections[0].tolist() == [1.0, 0.0]
    assert method.corrections[1].tolist() != [1.0, 0.0]


def test_what_bic_holds_out_is_balanced_and_not_trained_on() -> None:
    benchmark, method = ToyBenchmark(), toy_method("bic", "method.held_out=0.5")
    go_through(method, benchmark, 1)
    task = benchmark.task(1)
    begin(method, task)
    representation, bias = method.stages(task)
    assert torch.bincount(bias.samples.labels).tolist() == [4, 4, 4, 4]
    assert len(representation.samples) + len(bias.samples) == len(method.training_samples(task))
    assert not set(representation.samples.sources.tolist()) & set(bias.samples.sources.tolist())


def test_joint_answers_in_the_last_task_alone() -> None:
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
