"""Mnemonics and AANets through the engine: resume inside every stage, two processes, precisions, bad input."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from mmcl.config.compose import compose_run
from mmcl.engine.assemble import build_method
from mmcl.engine.state import StateFile
from mmcl.engine.versions import Versions
from mmcl.errors import UserError
from mmcl.methods.base import Method
from tests.engine import mischief, told
from tests.engine.launched import launch
from tests.engine.tiny import assert_same_outcome, directory_of, metric_rows, read, run_here, stop_after_each_save, tiny
from tests.methods.toy import ToyBenchmark

CHECKOUT = Path(__file__).resolve().parents[2]
SIGKILLED = -9
SHORT = (
    "memory.size=20",
    "method.later_tasks.epochs=1",
    "method.fast_classifier.epochs=1",
    "method.balanced.epochs=2",
    "method.exemplars.queries_per_class=4",
    "method.exemplars.inner.steps=1",
    "method.exemplars.learning.epochs=3",
    "method.exemplars.learning.batch_size=10",
    "method.exemplars.learning.lr=1000",
    "method.exemplars.learning.momentum=0.9",
    "method.exemplars.adjusting.rounds=3",
    "method.exemplars.adjusting.lr=1000",
)
MNEMONICS = ("+method=mnemonics", *SHORT)
AANETS = (
    "+method=aanets",
    "memory.size=20",
    "method.later_tasks.epochs=3",
    "method.fast_classifier.epochs=1",
    "method.aggregation.lr=10",
    "method.aggregation.batch_size=40",
    "method.aggregation.per_class=8",
)


def _typed(runs: Path, given: tuple[str, ...], *overrides: str) -> list[str]:
    """Return the arguments of a run; what is typed later replaces what is given."""
    replaced = {override.partition("=")[0] for override in overrides}
    return tiny(runs, *(default for default in given if default.partition("=")[0] not in replaced), *overrides)


# ---------------------------------------------------------------------- resume


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_here(_typed(tmp_path_factory.mktemp("undisturbed"), MNEMONICS))


def test_every_stage_of_the_exemplar_level_runs_and_moves_pixels(undisturbed: Path) -> None:
    rows = metric_rows(undisturbed.parent)
    assert [stage for task, stage, epoch, name in rows if (task, epoch, name) == ("1", "0", "loss")] == [
        "representation",
        "exemplars",
        "adjusting",
        "balanced",
    ]
    state = StateFile(undisturbed.parent / "state").load().method
    assert state is not None
    pixels = state["memory._extra_state"]["float_pixels"]
    assert not torch.equal(pixels, pixels.round())
    assert "candidates._extra_state" not in state or "labels" not in state["candidates._extra_state"]


def test_a_run_goes_on_after_every_saved_state(
    tmp_path: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = _typed(tmp_path, MNEMONICS)
    stop_after_each_save(arguments, 3 + 5, monkeypatch)  # the stages and the end of each task
    assert_same_outcome(run_here(arguments), undisturbed)


def _die_learning_pixels() -> None:
    mischief._after_some_steps(mischief.die, epoch=1, stage="exemplars", steps=1)


def test_killed_while_pixels_are_learned(tmp_path: Path, undisturbed: Path) -> None:
    arguments = _typed(tmp_path, MNEMONICS)
    assert launch(arguments, _die_learning_pixels).code == SIGKILLED
    saved = Versions(directory_of(tmp_path) / "state", "task001-exemplars").newest()
    assert saved is not None
    content = torch.load(saved, weights_only=True)
    assert content["state_dict"]["exemplars"].shape == (10, 3, 32, 32)
    assert_same_outcome(run_here(arguments), undisturbed)


@pytest.mark.parametrize("stage", ["adjusting", "balanced"])
def test_interrupted_inside_a_later_stage(
    stage: str, tmp_path: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = _typed(tmp_path, MNEMONICS)
    _interrupt(arguments, stage, 1, monkeypatch)
    assert_same_outcome(run_here(arguments), undisturbed)


@pytest.mark.parametrize("mode", ["nme", "unrolled_fc"])
def test_other_modes_go_on_inside_the_exemplars_stage(
    mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed = (f"method.exemplars.mode={mode}", "method.exemplars.per_step=1", "method.exemplars.storage=uint8_trunc")
    result = run_here(_typed(tmp_path / "undisturbed", MNEMONICS, *typed))
    interrupted = _typed(tmp_path / "interrupted", MNEMONICS, *typed)
    _interrupt(interrupted, "exemplars", 2, monkeypatch)
    assert_same_outcome(run_here(interrupted), result)


def test_levels_weights_go_on_with_their_momentum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run_here(_typed(tmp_path / "undisturbed", AANETS))
    interrupted = _typed(tmp_path / "interrupted", AANETS)
    _interrupt(interrupted, "representation", 1, monkeypatch)
    saved = Versions(directory_of(tmp_path / "interrupted") / "state", "task001-representation").newest()
    content = torch.load(saved, weights_only=True)  # type: ignore[arg-type]
    _, of_shares = content["optimizer_states"]
    assert of_shares["state"][0]["momentum_buffer"].abs().max() > 0
    assert (content["state_dict"]["network.shares"] - 0.5).abs().max() > 1e-6
    assert_same_outcome(run_here(interrupted), result)


def _interrupt(arguments: list[str], stage: str, epoch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start a run that stops after a step of an epoch of a stage of the second task."""
    account = Method._account

    def stopping(self: Method[Any], *terms: Any) -> None:
        account(self, *terms)
        assert self.stage is not None
        if self.known and (self.stage.name, self.trainer.current_epoch) == (stage, epoch):  # type: ignore[attr-defined]
            raise InterruptedError

    with monkeypatch.context() as patch:
        patch.setattr(Method, "_account", stopping)
        with pytest.raises(InterruptedError):
            run_here(arguments)


# ---------------------------------------------------------------------- two processes


@pytest.mark.slow
def test_two_processes_learn_the_pixels_of_one(tmp_path: Path) -> None:
    """Without LUCIR's margin, whose mean is over the old images of a process's part of a batch."""
    plain = ("backbone._target_=tests.engine.plain_backbone.make", "benchmark.steps_per_block=3")
    typed = (*plain, "method.base=distillation")
    one = run_here(_typed(tmp_path / "one", MNEMONICS, *typed))
    two = _on_two_processes(tmp_path, "ToldMnemonics", _typed(tmp_path / "two", MNEMONICS, *typed))
    ours, theirs = metric_rows(one.parent), metric_rows(two.parent)
    assert ours.keys() == theirs.keys()
    for position, value in ours.items():
        assert math.isclose(float(value), float(theirs[position]), rel_tol=1e-4, abs_tol=1e-4), position
    states = [StateFile(result.parent / "state").load().method for result in (one, two)]
    pixels, others = (state["memory._extra_state"]["float_pixels"] for state in states if state is not None)
    chosen = read(one)["bytes"][-1]["exemplars"]
    assert len(pixels) == chosen == 20
    torch.testing.assert_close(others, pixels, rtol=0, atol=0.05)  # of 255
    assert (pixels - pixels.round()).abs().mean() > 0.1  # they were learned


@pytest.mark.slow
def test_two_processes_agree_on_the_levels_weights(tmp_path: Path) -> None:
    """Statistics of batch norms differ between them, which must not drive the shares apart."""
    _on_two_processes(tmp_path, "ToldAanets", _typed(tmp_path / "two", AANETS))


def _on_two_processes(folder: Path, name: str, arguments: list[str]) -> Path:
    """Run on two processes, compare what each of them held, and return the result."""
    method = {"ToldMnemonics": "mnemonics", "ToldAanets": "aanets"}[name]
    command = [sys.executable, "-m", "mmcl.run", *arguments, "trainer=ddp_cpu", "trainer.devices=2"]
    command = [argument for argument in command if argument != "trainer=cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", told.FOLDER: str(folder)}
    ended = subprocess.run(
        [*command, f"method._target_=tests.engine.told.{name}"],
        cwd=CHECKOUT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, method + ended.stdout + ended.stderr
    for task in range(2):
        first, second = (torch.load(folder / f"task{task}-process{rank}.pt", weights_only=True) for rank in range(2))
        assert first.keys() == second.keys()
        assert {part for part in first if not torch.equal(first[part], second[part])} == set()
    return directory_of(folder / "two") / "result.json"


# ---------------------------------------------------------------------- precisions


@pytest.mark.parametrize("mode", ["unrolled_fc", "unrolled_full"])
def test_an_unrolled_mode_runs_in_bfloat16(mode: str, tmp_path: Path) -> None:
    typed = (f"method.exemplars.mode={mode}", "trainer.precision=bf16-mixed", "benchmark.base=8")
    short = ("benchmark.increment=2", "method.exemplars.learning.epochs=1")
    result = run_here(_typed(tmp_path, MNEMONICS, *typed, *short))
    assert read(result)["status"] == "finished"
    state = StateFile(result.parent / "state").load().method
    assert state is not None
    pixels = state["memory._extra_state"]["float_pixels"]
    assert pixels.dtype == torch.float32
    assert pixels.isfinite().all()


def test_float16_is_refused_where_gradients_go_through_gradients(tmp_path: Path) -> None:
    ended = launch(_typed(tmp_path / "runs", MNEMONICS, "trainer.precision=16-mixed"))
    assert ended.code == 2
    assert "Type trainer.precision=32-true or bf16-mixed" in ended.output
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("mode", ["off", "nme"])
def test_float16_is_fine_where_they_do_not(mode: str, tmp_path: Path) -> None:
    typed = _typed(tmp_path, MNEMONICS, "trainer.precision=16-mixed", f"method.exemplars.mode={mode}")
    assert "16-mixed" in build_method(compose_run(typed), ToyBenchmark(increment=2)).precisions


# ---------------------------------------------------------------------- bad input

MISTAKES = {
    "hard negatives": (["method.less_forget.hard_negatives=6"], ["only 5 new classes", "hard_negatives=5"]),
    "no hard negatives": (["method.less_forget.hard_negatives=0"], ["at least 1", "margin_weight=0"]),
    "no inner step": (["method.exemplars.inner.steps=0"], ["steps=0", "method.exemplars.mode=off"]),
    "no inner rate": (["method.exemplars.inner.lr=0"], ["lr=0.0", "above 0"]),
    "rate of pixels": (["method.exemplars.learning.lr=0"], ["lr=0.0", "more than 0"]),
    "rate of old pixels": (["method.exemplars.adjusting.lr=-1"], ["method.exemplars.adjusting", "lr=-1.0", "above 0"]),
    "too many exemplars": (
        ["memory.size=null", "memory.per_class=200"],
        ["200 exemplars", "only 140 images", "memory.per_class=20", "method.exemplars.mode=off"],
    ),
    "base": (["benchmark.base=20"], ["benchmark.base=20", "10 classes", "benchmark.base=10"]),
    "mode": (["method.exemplars.mode=unroled_full"], ["method.exemplars.mode=unroled_full", "'unrolled_full'"]),
    "storage": (["method.exemplars.storage=uint8"], ["method.exemplars.storage=uint8", "'uint8_trunc'"]),
    "queries": (["method.exemplars.queries=news"], ["method.exemplars.queries=news", "'new'"]),
    "unrolling": (["method.exemplars.inner.unrolling=step"], ["inner.unrolling=step", "'stepwise'"]),
    "optimiser": (["method.exemplars.learning.optimizer=adm"], ["optimizer=adm", "'adam'"]),
    "loss": (["method.base=lucr"], ["method.base=lucr", "'lucir'"]),
    "network": (["method.network=anets"], ["method.network=anets", "'aanets'"]),
    "branch": (["method.aggregation.stable=fre"], ["method.aggregation.stable=fre", "'free'"]),
    "rate of the levels": (["method.aggregation.lr=-1"], ["method.aggregation", "lr=-1.0", "at least 0"]),
    "preset": (["method.preset=relased"], ["unknown preset 'relased'", "'released'"]),
    "second view": (["method.second_view=hflipp"], ["method.second_view=hflipp", "'hflip'"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_stop_before_anything_is_written(mistake: str, tmp_path: Path) -> None:
    overrides, words = MISTAKES[mistake]
    with pytest.raises(UserError) as refused:
        run_here(_typed(tmp_path / "runs", MNEMONICS, *overrides))
    assert all(word in str(refused.value) for word in words), refused.value
    assert not (tmp_path / "runs").exists()


def test_a_mistake_ends_the_command_with_a_message(tmp_path: Path) -> None:
    ended = launch(_typed(tmp_path / "runs", MNEMONICS, "method.exemplars.inner.steps=0"))
    assert ended.code == 2, ended.output
    assert "Traceback" not in ended.output
    assert "mmcl: method.exemplars.inner: steps=0" in ended.output


@pytest.mark.parametrize(
    ("key", "overrides", "words"),
    [
        ("learning", [], "too large for an image in task 1, stage exemplars"),
        ("learning", ["method.exemplars.learning.weight_decay=1"], "not finite in task 1, stage exemplars"),
        ("adjusting", [], "too large for an image in task 2, stage adjusting"),
    ],
)
def test_a_rate_that_breaks_pixels_stops_and_keeps_the_last_good_state(
    key: str, overrides: list[str], words: str, tmp_path: Path
) -> None:
    ended = launch(_typed(tmp_path, MNEMONICS, f"method.exemplars.{key}.lr=1e38", *overrides))
    assert ended.code == 2, ended.output
    assert words in ended.output
    assert f"method.exemplars.{key}.lr=1e+37" in ended.output
    broken = directory_of(tmp_path)
    assert read(broken / "result.json")["status"] == "failed"
    state = StateFile(broken / "state").load().method
    assert state is not None
    assert all(value.isfinite().all() for value in state.values() if isinstance(value, torch.Tensor))
    assert all(pixels.isfinite().all() for pixels in _kept_pixels(state))
    assert all(float(pixels.abs().max()) < 1e6 for pixels in _kept_pixels(state))


def _kept_pixels(state: dict[str, Any]) -> list[torch.Tensor]:
    stores = (state[f"{name}._extra_state"] for name in ("memory", "candidates") if f"{name}._extra_state" in state)
    return [store[key].float() for store in stores for key in ("float_pixels", "images") if key in store]


def test_a_single_exemplar_of_a_class_is_not_adjusted(tmp_path: Path) -> None:
    typed = ("memory.size=null", "memory.per_class=1", "method.exemplars.learning.epochs=1")
    result = run_here(_typed(tmp_path, MNEMONICS, *typed, "method.later_tasks.epochs=0", "method.balanced.epochs=0"))
    assert "adjusting" not in {stage for _, stage, _, _ in metric_rows(result.parent)}
