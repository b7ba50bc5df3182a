"""A run that is forced anew replaces what was there when it ends well, and leaves it when it fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmcl.engine.run_directory import RunDirectory
from mmcl.errors import UserError


@pytest.fixture
def finished(tmp_path: Path) -> RunDirectory:
    directory = RunDirectory(tmp_path / "run", "abc")
    with directory.claimed({}, afresh=False):
        _leave(directory, "old")
    return directory


def _leave(directory: RunDirectory, word: str) -> None:
    directory.write_result({"status": "finished", "word": word})
    directory.state.mkdir(exist_ok=True)
    (directory.state / word).touch()
    (directory.path / "metrics.csv").write_text(word)


def _fail_afresh(directory: RunDirectory) -> None:
    with directory.claimed({"other": 1}, afresh=True):
        _leave(directory, "new")
        raise UserError("something is missing")


def _content(directory: RunDirectory) -> dict[str, str]:
    files = (path for path in directory.path.rglob("*") if path.is_file() and path.name != "run.lock")
    return {path.relative_to(directory.path).as_posix(): path.read_text() for path in files}


def test_a_forced_run_that_ends_well_replaces_everything(finished: RunDirectory) -> None:
    with finished.claimed({}, afresh=True):
        assert not finished.result.exists()
        _leave(finished, "new")
    assert _content(finished)["metrics.csv"] == "new"
    assert "state/old" not in _content(finished)


def test_a_forced_run_that_fails_leaves_what_was_there(finished: RunDirectory) -> None:
    before = _content(finished)
    with pytest.raises(UserError, match="missing"):
        _fail_afresh(finished)
    assert _content(finished) == before


def test_where_nothing_was_a_failed_forced_run_stays_to_be_looked_at(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / "run", "abc")
    with pytest.raises(UserError, match="missing"):
        _fail_afresh(directory)
    assert _content(directory)["metrics.csv"] == "new"
