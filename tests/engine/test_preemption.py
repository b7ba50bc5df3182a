"""A run that is asked to stop saves, leaves with a code of its own, and goes on bit for bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mmcl.engine import sequence
from mmcl.engine.preemption import PreemptedError, asked_here, listening, stop_if_asked
from mmcl.errors import PREEMPTED
from tests.engine import mischief
from tests.engine.launched import launch
from tests.engine.own_features import write_features
from tests.engine.test_two_processes import CHECKOUT, on_two_processes
from tests.engine.tiny import assert_same_outcome, directory_of, metric_rows, read, run_here, tiny


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_here(tiny(tmp_path_factory.mktemp("undisturbed"), "+method=replay"))


def _stopped(arguments: list[str], accident: Callable[[], None], place: str) -> None:
    ended = launch(arguments, accident)
    assert ended.code == PREEMPTED, ended.output
    assert f"mmcl: stopped {place}, as asked. The same command goes on there." in ended.output
    assert "Traceback" not in ended.output


@pytest.mark.parametrize(
    ("accident", "place"),
    [
        (mischief.asked_before_the_first_task, "before task 1"),
        (mischief.asked_inside_an_epoch, "after epoch 3 of task 2, stage representation"),
        (mischief.asked_in_the_last_epoch, "after task 2, stage representation"),
        (mischief.asked_during_evaluation, "during an evaluation"),
        (mischief.asked_while_saving, "before task 2"),
    ],
)
def test_asked_to_stop_at_any_moment(
    accident: Callable[[], None], place: str, tmp_path: Path, undisturbed: Path
) -> None:
    arguments = tiny(tmp_path, "+method=replay")
    _stopped(arguments, accident, place)
    assert read(directory_of(tmp_path) / "result.json")["status"] == "running"
    assert_same_outcome(run_here(arguments), undisturbed)


def test_the_epoch_is_saved_where_epochs_are_not(tmp_path: Path, undisturbed: Path) -> None:
    arguments = tiny(tmp_path, "+method=replay", "trainer.checkpoint_every_n_epochs=0")
    _stopped(arguments, mischief.asked_inside_an_epoch, "after epoch 3 of task 2, stage representation")
    before = metric_rows(directory_of(tmp_path))
    assert_same_outcome(run_here(arguments), undisturbed)
    assert ("1", "representation", "2", "loss") in before, "what was learned is learned once"


def test_two_signals_that_come_together_are_one(tmp_path: Path) -> None:
    place = "after epoch 3 of task 2, stage representation"
    _stopped(tiny(tmp_path, "+method=replay"), mischief.asked_twice_at_once, place)


def test_a_second_signal_ends_at_once(tmp_path: Path, undisturbed: Path) -> None:
    arguments = tiny(tmp_path, "+method=replay")
    ended = launch(arguments, mischief.asked_again_later)
    assert ended.code == -signal.SIGTERM, ended.output
    assert_same_outcome(run_here(arguments), undisturbed)


def test_inside_a_stream(tmp_path: Path) -> None:
    features = write_features(tmp_path / "toy.npz")
    common = ["+method=dmn", "benchmark=features", "method.prompts=tip", "method.slots_per_class=5", "trainer=cpu"]
    common += [f"paths.features={features}", "trainer.checkpoint_every_n_batches=0"]
    arguments = [*common, f"paths.runs={tmp_path / 'asked'}"]
    _stopped(arguments, mischief.asked_inside_a_stream, "after batch 3 of a test stream")
    assert list((directory_of(tmp_path / "asked") / "state").glob("task000-stream-000003-*"))
    again = run_here(arguments)
    assert_same_outcome(again, run_here([*common, f"paths.runs={tmp_path / 'undisturbed'}"]))


def test_while_encoding(tmp_path: Path) -> None:
    common = ["+method=clip_zeroshot", "benchmark=shapes", "benchmark.classes=unseen", "benchmark.test_per_class=2"]
    common += ["benchmark.encode_batch_size=8", "trainer=cpu"]
    arguments = [*common, f"paths.runs={tmp_path / 'asked'}"]
    _stopped(arguments, mischief.asked_while_encoding, "while encoding")
    assert not list((tmp_path / "asked").rglob("part-*"))
    assert_same_outcome(run_here(arguments), run_here([*common, f"paths.runs={tmp_path / 'undisturbed'}"]))


def test_an_online_stream_stops_between_windows(tmp_path: Path) -> None:
    common = ["+method=vanilla", "benchmark._target_=tests.engine.short_stream.ShortStream", "trainer=cpu"]
    arguments = [*common, f"paths.runs={tmp_path / 'asked'}"]
    _stopped(arguments, mischief.asked_in_the_second_window, "after task 2, stage stream")
    assert_same_outcome(run_here(arguments), run_here([*common, f"paths.runs={tmp_path / 'undisturbed'}"]))


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
def test_signals_of_slurm_count_inside_its_jobs_alone(number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    outside = signal.getsignal(number)
    with listening():
        assert signal.getsignal(number) is outside
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    with listening():
        stop_if_asked("here")
        os.kill(os.getpid(), number)
        assert asked_here()
        with pytest.raises(PreemptedError, match="here"):
            stop_if_asked("here")
    assert signal.getsignal(number) is outside


def test_an_earlier_request_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening():
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked_here()
    with listening():
        stop_if_asked("a run after it")


def test_a_stop_is_no_failure_of_a_run_that_begins_afresh(
    tmp_path: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a run with force=true leaves is its own beginning, not the run before it."""
    arguments = tiny(tmp_path, "+method=replay")
    run_here(arguments)
    with monkeypatch.context() as patch:
        patch.setattr(sequence, "stop_if_asked", _raise)
        with pytest.raises(PreemptedError):
            run_here([*arguments, "force=true"])
    assert read(directory_of(tmp_path) / "result.json")["status"] == "running"
    assert_same_outcome(run_here(arguments), undisturbed)


def _raise(place: str) -> None:
    raise PreemptedError(place)


def _wait_for_the_second_task(process: subprocess.Popen[str], folder: Path) -> None:
    """Wait until a run below a folder has ended an epoch of its second task, or has ended by itself."""
    while process.poll() is None and not any(
        "\n1,representation,1," in file.read_text() for file in folder.rglob("metrics.csv")
    ):
        time.sleep(0.002)


@pytest.mark.slow
def test_one_of_two_processes_is_asked(tmp_path: Path) -> None:
    common = ("+method=replay", "backbone._target_=tests.engine.plain_backbone.make", "method.later_tasks.epochs=12")
    process = on_two_processes(tmp_path / "asked", *common)
    _wait_for_the_second_task(process, tmp_path)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == PREEMPTED, output
    assert output.count("mmcl: stopped after epoch") == 1
    results = []
    for folder in ("asked", "undisturbed"):
        again = on_two_processes(tmp_path / folder, *common)
        output, _ = again.communicate(timeout=120)
        assert again.returncode == 0, output
        results.append(Path(output.rstrip().rpartition("\n")[2]))
    assert_same_outcome(*results)


@pytest.mark.slow
def test_a_sweep_hands_on_what_it_is_asked(tmp_path: Path) -> None:
    arguments = ["-m", *tiny(tmp_path, "+method=replay", "seed=1,2", "method.later_tasks.epochs=400")]
    sweep = subprocess.Popen(
        [sys.executable, "-m", "mmcl.run", *arguments],
        cwd=CHECKOUT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    _wait_for_the_second_task(sweep, tmp_path)
    sweep.send_signal(signal.SIGTERM)
    output, _ = sweep.communicate(timeout=120)
    assert sweep.returncode == PREEMPTED, output
    assert "mmcl: stopped after epoch" in output
    assert "Traceback" not in output
    assert [read(path)["config"]["seed"] for path in tmp_path.rglob("result.json")] == [1], "the second never began"
