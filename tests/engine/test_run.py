"""What a run leaves behind, when it is skipped, and when it is run again."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmcl.results.store import read_result
from tests.engine.launched import Ended, launch
from tests.engine.tiny import assert_same_outcome, metric_rows, read, tiny

NAMES = {"status", "identity", "command", "config", "readouts", "bytes", "timing", "provenance", "task_sizes"}
FIGURES = {"accuracy_matrix", "average_incremental_accuracy", "last_accuracy", "forgetting"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def finished(runs: Path) -> Ended:
    return launch(tiny(runs, "+method=replay"))


def test_lines_of_a_run(finished: Ended, runs: Path) -> None:
    assert finished.code == 0
    first, second, result = finished.output.splitlines()
    assert first.startswith("task  1/2  classes    5  cnn ")
    assert second.startswith("task  2/2  classes   10  cnn ")
    assert Path(result).is_relative_to(runs)
    assert Path(result).name == "result.json"


def test_result_has_its_fixed_names(finished: Ended) -> None:
    result = read(Path(finished.last_line))
    assert result.keys() >= NAMES
    assert result["status"] == "finished"
    assert result["readouts"].keys() == {"cnn", "nme"}
    for figures in result["readouts"].values():
        assert figures.keys() >= FIGURES
        accuracies = [value for row in figures["accuracy_matrix"] for value in row if value is not None]
        assert len(accuracies) == 3
        assert all(0 <= value <= 1 for value in accuracies)
    assert result["config"]["method"]["later_tasks"]["epochs"] == 4
    assert [stage["epochs"] for stage in result["timing"]["stages"]] == [1, 4]
    assert result["command"].startswith("python -m mmcl.run ")
    assert read_result(Path(finished.last_line)).finished


def test_metrics_have_every_epoch_once(finished: Ended) -> None:
    rows = metric_rows(Path(finished.last_line).parent)
    epochs = [(task, epoch) for task, stage, epoch, name in rows if (stage, name) == ("representation", "loss")]
    assert epochs == [("0", "0"), *(("1", str(epoch)) for epoch in range(4))]
    assert [task for task, *_, name in rows if name == "nme/accuracy"] == ["0", "1"]


def test_a_finished_run_is_not_run_again(finished: Ended, runs: Path) -> None:
    before = _files(runs)
    again = launch([*tiny(runs, "method=replay"), "trainer.devices=1", "logger=csv"])
    assert (again.code, again.output) == (0, finished.last_line + "\n")
    assert _files(runs) == before


def test_force_runs_again(finished: Ended, runs: Path, tmp_path: Path) -> None:
    copy = tmp_path / "first.json"
    forced = launch([*tiny(tmp_path, "+method=replay"), "force=true"])
    copy = Path(forced.last_line)
    changed = copy.stat().st_mtime_ns
    again = launch([*tiny(tmp_path, "+method=replay"), "force=true"])
    assert again.output == finished.output.replace(str(runs), str(tmp_path))
    assert copy.stat().st_mtime_ns > changed
    assert_same_outcome(copy, Path(finished.last_line))


def _files(folder: Path) -> dict[str, tuple[int, bytes]]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}
