"""What holds for every class-incremental method."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mmcl.backbones.freezing import is_frozen
from mmcl.memory.accounting import module_bytes
from tests.methods.kinds import CLASS_INCREMENTAL
from tests.methods.toy import ToyBenchmark, begin, begun, go_through, toy_method

FROZEN = {
    "memo": lambda method: [method.network.branches[0]],
    "der": lambda method: [method.network.branches[0]],
    "icarl": lambda method: [method.teacher],
    "wa": lambda method: [method.teacher],
    "bic": lambda method: [method.teacher],
}


def _in_the_second_task(name: str) -> tuple[Any, Any]:
    method, task = begun(name)
    method.begin_stage(method.stages(task)[0], task)
    return method, task


@pytest.mark.parametrize("name", sorted(FROZEN))
def test_frozen_stays_frozen_whoever_calls_train(name: str) -> None:
    method, task = _in_the_second_task(name)
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
