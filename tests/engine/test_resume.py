"""A run that is killed at any moment and started again ends as if nothing had happened, bit for bit."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mmcl.methods.base import Method
from tests.engine import mischief
from tests.engine.launched import launch, start
from tests.engine.tiny import assert_same_outcome, directory_of, metric_rows, read, run_here, stop_after_each_save, tiny
from tests.methods.kinds import CLASS_INCREMENTAL

SIGKILLED = -9
WITH_SCHEDULE = ("method.later_tasks.scheduler=multistep", "method.later_tasks.milestones=[1,3]")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_here(tiny(tmp_path_factory.mktemp("undisturbed"), "+method=replay"))


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that was killed inside the third epoch of its second task."""
    runs = tmp_path_factory.mktemp("killed")
    assert launch(tiny(runs, "+method=replay"), mischief.die_inside_an_epoch).code == SIGKILLED
    assert {path.name.rsplit("-", 1)[0] for path in (directory_of(runs) / "state").iterdir()} == {
        "sequence-000001",
        "sequence-000100",
        "task001-representation-000001",
        "task001-representation-000002",
    }
    return runs


@pytest.fixture
def runs(killed: Path, tmp_path: Path) -> Path:
    """A copy of the killed run, to be harmed further."""
    return Path(shutil.copytree(killed, tmp_path / "runs"))


def test_killed_from_outside_and_started_again_by_the_same_command(tmp_path: Path, undisturbed: Path) -> None:
    arguments = tiny(tmp_path, "+method=replay")
    process = start(arguments, tmp_path / "log")
    while process.is_alive() and not any("\n1,representation,1," in file.read_text() for file in _metrics(tmp_path)):
        time.sleep(0.002)
    process.kill()
    process.join()
    assert process.exitcode == SIGKILLED
    assert read(directory_of(tmp_path) / "result.json")["status"] == "running"
    again = launch(arguments)
    assert again.code == 0, again.output
    assert "task  1/2" not in again.output
    assert_same_outcome(Path(again.last_line), undisturbed)


def test_killed_inside_an_epoch(runs: Path, undisturbed: Path) -> None:
    before = metric_rows(directory_of(runs))
    assert ("1", "representation", "1", "loss") in before
    assert ("1", "representation", "2", "loss") not in before
    text = (directory_of(runs) / "metrics.csv").read_text()
    result = run_here(tiny(runs, "+method=replay"))
    assert (result.parent / "metrics.csv").read_text().startswith(text)
    assert_same_outcome(result, undisturbed)


@pytest.mark.parametrize(
    "accident",
    [
        mischief.die_writing_the_first_state,
        mischief.die_writing_the_state,
        mischief.die_writing_a_checkpoint,
        mischief.die_between_stages,
        mischief.die_before_evaluation,
    ],
)
def test_killed_while_something_is_written(accident: Callable[[], None], tmp_path: Path, undisturbed: Path) -> None:
    arguments = tiny(tmp_path, "+method=replay")
    assert launch(arguments, accident).code == SIGKILLED
    assert_same_outcome(run_here(arguments), undisturbed)
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("accident", [mischief.die_between_stages, mischief.die_inside_the_bias_stage])
def test_killed_between_two_stages(accident: Callable[[], None], tmp_path: Path, bic: Path) -> None:
    arguments = tiny(tmp_path, "+method=bic")
    assert launch(arguments, accident).code == SIGKILLED
    assert_same_outcome(run_here(arguments), bic)


@pytest.fixture(scope="module")
def bic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_here(tiny(tmp_path_factory.mktemp("bic"), "+method=bic"))


def test_half_a_line_in_the_metrics(runs: Path, undisturbed: Path) -> None:
    with (directory_of(runs) / "metrics.csv").open("a") as file:
        file.write("1,representation,2,classific")
    assert_same_outcome(run_here(tiny(runs, "+method=replay")), undisturbed)


@pytest.mark.parametrize(
    "damaged",
    [
        ["task001-representation-000002"],
        ["task001-representation-000001", "task001-representation-000002"],
        ["sequence-000100"],
        ["sequence-000001", "sequence-000100"],
    ],
    ids=",".join,
)
def test_damaged_files_are_named_and_passed_over(
    damaged: list[str], runs: Path, undisturbed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in damaged:
        (path,) = (directory_of(runs) / "state").glob(f"{name}-*.pt")
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    assert_same_outcome(run_here(tiny(runs, "+method=replay")), undisturbed)
    assert all(name in caplog.text for name in damaged)


def test_a_truncated_state(runs: Path, undisturbed: Path) -> None:
    (path,) = (directory_of(runs) / "state").glob("sequence-000100-*.pt")
    path.write_bytes(path.read_bytes()[:1000])
    assert_same_outcome(run_here(tiny(runs, "+method=replay")), undisturbed)


@pytest.mark.parametrize("name", CLASS_INCREMENTAL)
def test_every_method_goes_on_inside_a_task(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = [f"+method={name}", "method.later_tasks.epochs=3", *WITH_SCHEDULE]
    if name == "joint":
        arguments += ["method.every_task=true", "method.first_task.epochs=3"]
    undisturbed = run_here(tiny(tmp_path / "undisturbed", *arguments))
    with monkeypatch.context() as patch:
        patch.setattr(Method, "_account", _interrupting(Method._account, epoch=2))
        with pytest.raises(InterruptedError):
            run_here(tiny(tmp_path / "interrupted", *arguments))
    assert_same_outcome(run_here(tiny(tmp_path / "interrupted", *arguments)), undisturbed)


def test_every_boundary_of_a_sequence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted after each saved state in turn, a run of BiC needs many starts and ends as one start does."""
    arguments = ["+method=bic", "method.later_tasks.epochs=1", "benchmark.increment=4", "memory.size=100"]
    undisturbed = run_here(tiny(tmp_path / "undisturbed", *arguments))
    interrupted = tiny(tmp_path / "interrupted", *arguments)
    stop_after_each_save(interrupted, 2 + 3 + 3, monkeypatch)
    assert_same_outcome(run_here(interrupted), undisturbed)


def _interrupting(account: Callable[..., None], epoch: int) -> Callable[..., None]:
    def interrupt(self: Method, *arguments: object) -> None:
        account(self, *arguments)
        if self.known and self.trainer.current_epoch == epoch:
            raise InterruptedError

    return interrupt


def _metrics(runs: Path) -> list[Path]:
    return list(runs.rglob("metrics.csv"))
