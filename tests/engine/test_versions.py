"""Files are whole or not there, and a damaged version never takes the place of a good one."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmcl.engine.versions import Versions
from mmcl.whole_files import write_whole


def _write(versions: Versions, number: int, text: str) -> Path:
    versions.write(number, lambda part: part.write_text(text) and None)
    newest = versions.newest()
    assert newest is not None
    assert newest.read_text() == text
    return newest


def test_the_last_two_versions_stay(tmp_path: Path) -> None:
    versions = Versions(tmp_path, "state")
    assert versions.newest() is None
    for number in range(3):
        _write(versions, number, f"content {number}")
    assert sorted(path.read_text() for path in tmp_path.iterdir()) == ["content 1", "content 2"]
    versions.clear()
    assert versions.newest() is None


def test_a_damaged_version_makes_room_when_its_number_comes_again(tmp_path: Path) -> None:
    versions = Versions(tmp_path, "state")
    good, damaged = _write(versions, 1, "good"), _write(versions, 2, "to be damaged")
    damaged.write_text("damaged")
    assert versions.newest() == good
    _write(versions, 2, "good again")
    assert good.exists()
    assert not damaged.exists()
    _write(versions, 2, "good again")  # the same content under the same name
    assert len(list(tmp_path.iterdir())) == 2


def test_other_stems_are_left_alone(tmp_path: Path) -> None:
    other = _write(Versions(tmp_path, "other"), 1, "other")
    for number in range(4):
        _write(Versions(tmp_path, "state"), number, "mine")
    assert other.exists()


def test_a_writer_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_whole(path, lambda part: part.write_text("old"))

    def fail(part: Path) -> None:
        part.write_text("half")
        raise InterruptedError

    with pytest.raises(InterruptedError):
        write_whole(path, fail)
    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]
