"""The index says what the files say, whatever happened to either; see ``mmcl.results.index``."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcl.cli import main
from mmcl.results.index import NAME, Index, ask, discard, index_digest
from mmcl.results.result_files import scan
from mmcl.results.store import find_results
from tests.report.made import content, write

PLACES = ("a", "a/b", "c", "d\udce9")  # the last name is no UTF-8
OLD = 1_600_000_000
FILES = st.one_of(
    st.none(),  # deleted
    st.tuples(st.integers(0, 3), st.sampled_from(["finished", "running", "failed"])),
    st.sampled_from(['{"schema": 1, "status": "fin', "[]", "[" * 100_000, '{"schema": 1}']),
)


def told(root: Path) -> tuple[list[object], list[str]]:
    """Return everything that results and problems say, in an order that does not depend on the search."""
    results, problems = find_results(root)
    return sorted(str((result.path, vars(result))) for result in results), sorted(problems)


def written(root: Path, place: str, file: object, clock: int) -> None:
    """Write a file as a run that ended at some time, or delete it."""
    path = root / place / "result.json"
    if file is None:
        path.unlink(missing_ok=True)
        return
    if isinstance(file, tuple):
        number, status = file
        write(root / place, content(identity=f"{number:016d}", status=status))
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(file))
    os.utime(path, (OLD + clock, OLD + clock))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.lists(st.tuples(st.sampled_from(PLACES), FILES), max_size=4), max_size=4))
def test_after_any_changes_the_index_equals_a_fresh_one(rounds: list[list[tuple[str, object]]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root, clock = Path(folder), 0
        for changes in rounds:
            for place, file in changes:
                clock += 1
                written(root, place, file, clock)
            kept, digest, counts = told(root), index_digest(root), ask(root, Index.counts)
            discard(root)
            assert (kept, digest, counts) == (told(root), index_digest(root), ask(root, Index.counts))
            assert len(kept[0]) + len(kept[1]) == len(scan(root)[0])


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_any_damage_to_the_index_is_mended(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for number, place in enumerate(("a", "b", "c")):
            written(root, place, (number, "finished"), number)
        expected = told(root)
        index = root / NAME
        damaged = bytearray(index.read_bytes())
        for _ in range(data.draw(st.integers(0, 20))):
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
        index.write_bytes(damaged[: data.draw(st.integers(0, len(damaged)))])
        assert told(root) == expected


def test_a_sound_index_with_another_content_is_mended(tmp_path: Path) -> None:
    written(tmp_path, "a", (1, "finished"), 0)
    expected = told(tmp_path)
    sound = (tmp_path / NAME).read_bytes()
    other = sound.replace(b'"status":"finished"', b'"status":"deserted"')
    assert other != sound
    (tmp_path / NAME).write_bytes(other)
    assert told(tmp_path) == expected


def test_only_changed_files_are_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, place in enumerate(("a", "b", "c")):
        written(tmp_path, place, (number, "finished"), number)
    find_results(tmp_path)
    written(tmp_path, "b", (7, "failed"), 10)
    opened: list[Path] = []
    read_text = Path.read_text
    monkeypatch.setattr(Path, "read_text", lambda path, **how: opened.append(path) or read_text(path, **how))
    assert [result.status for result in find_results(tmp_path)[0]].count("failed") == 1
    assert opened == [tmp_path / "b/result.json"]


def test_a_file_that_changes_twice_within_a_tick_of_the_clock_is_read_twice(tmp_path: Path) -> None:
    path = write(tmp_path / "a", content(status="running"))
    before = path.stat()
    find_results(tmp_path)
    write(tmp_path / "a", content(status="stopped"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert [result.status for result in find_results(tmp_path)[0]] == ["stopped"]


def test_half_written_files_are_named_every_time(tmp_path: Path) -> None:
    written(tmp_path, "half", '{"schema": 1, "status": "fin', 0)
    assert told(tmp_path)[1] == told(tmp_path)[1] != []


def test_no_folder_of_the_machine_stands_in_an_index(tmp_path: Path) -> None:
    written(tmp_path / "one", "a", (1, "finished"), 0)
    written(tmp_path / "one", "half", "{", 0)
    find_results(tmp_path / "one")
    assert str(tmp_path).encode() not in (tmp_path / "one" / NAME).read_bytes()
    shutil.copytree(tmp_path / "one", tmp_path / "moved", copy_function=shutil.copy2)
    results, problems = find_results(tmp_path / "moved")
    assert [result.path for result in results] == [tmp_path / "moved/a/result.json"]
    assert problems[0].startswith(str(tmp_path / "moved/half"))


def test_folders_of_two_machines_merge_by_copying(tmp_path: Path) -> None:
    for machine, number in (("here", 1), ("there", 2)):
        written(tmp_path / machine, "run", (number, "finished"), number)
        find_results(tmp_path / machine)
        shutil.copytree(tmp_path / machine, tmp_path / "both" / machine)
    assert len(find_results(tmp_path / "both")[0]) == 2


def test_an_index_that_is_locked_or_cannot_be_written_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, "a", (1, "finished"), 0)
    find_results(tmp_path)
    written(tmp_path, "b", (2, "finished"), 1)
    monkeypatch.setattr("mmcl.results.index.BUSY_SECONDS", 0.05)
    connection = sqlite3.connect(tmp_path / NAME, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    assert len(find_results(tmp_path)[0]) == 2
    assert ask(tmp_path, lambda index: index.location) is None
    connection.execute("ROLLBACK")
    connection.close()
    assert ask(tmp_path, lambda index: index.location) == tmp_path / NAME
    (tmp_path / NAME).unlink()
    (tmp_path / NAME).mkdir()  # nobody can write a file there
    assert len(find_results(tmp_path)[0]) == 2


def test_another_version_is_made_anew(tmp_path: Path) -> None:
    written(tmp_path, "a", (1, "finished"), 0)
    with sqlite3.connect(tmp_path / NAME) as connection:
        connection.execute("CREATE TABLE results (path TEXT, of_another_version TEXT)")
        connection.execute("PRAGMA user_version = 1")
    assert len(find_results(tmp_path)[0]) == 1
    assert ask(tmp_path, lambda index: index.location) == tmp_path / NAME


def test_processes_may_open_a_folder_at_the_same_time(tmp_path: Path) -> None:
    for number in range(60):
        written(tmp_path, f"run{number}", (number, "finished"), number)
    program = f"from mmcl.results.store import find_results; print(len(find_results({str(tmp_path)!r})[0]))"
    processes = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) for _ in range(4)]
    assert [process.communicate()[0] for process in processes] == [b"60\n"] * 4
    assert len(find_results(tmp_path)[0]) == 60


@pytest.mark.parametrize("folder", ["state", "predictions", "wandb", "before"])
def test_what_a_run_keeps_inside_is_no_result_but_a_folder_of_that_name_may_hold_some(
    tmp_path: Path, folder: str
) -> None:
    write(tmp_path / "run", content())
    write(tmp_path / "run" / folder, content())
    write(tmp_path / folder / "run", content())
    write(tmp_path / "cache/run", content())
    write(tmp_path / ".hidden/run", content())
    found = {result.path for result in find_results(tmp_path)[0]}
    assert found == {tmp_path / "run/result.json", tmp_path / folder / "run/result.json"}


def test_a_single_run_gets_no_index(tmp_path: Path) -> None:
    write(tmp_path, content())
    assert len(find_results(tmp_path)[0]) == 1
    assert not (tmp_path / NAME).exists()


def test_the_digest_tells_figures_and_nothing_else(tmp_path: Path) -> None:
    def store(name: str, **changes: object) -> Path:
        write(tmp_path / name / "run", content(**changes))
        return tmp_path / name

    expected = index_digest(store("one"))
    same = store("same", provenance={"date": "2031-01-01"}, timing={"wall_seconds": 1.0}, command="another")
    write(same / "copy", content())
    assert index_digest(same) == expected
    readouts = content()["readouts"]
    readouts["cnn"]["last_accuracy"] += 1e-12
    others = [store("figures", readouts=readouts), store("status", status="failed"), store("who", identity="f" * 16)]
    assert len({expected, *map(index_digest, others)}) == 4


def test_numbers_and_words_that_a_table_cannot_hold_do_no_harm(tmp_path: Path) -> None:
    config = {"seed": 2**80, "method": {"name": "\ud800"}, "benchmark": {"name": "x"}}
    write(tmp_path / "odd", content(config=config, bytes=[{"model_bytes": 2**70}], timing={"wall_seconds": 1e400}))
    write(tmp_path / "huge", json.loads(json.dumps(content()).replace("75.0", "1" + "0" * 400)))
    results, problems = find_results(tmp_path)
    assert [result.seed for result in results] == [2**80]
    assert len(problems) == 1


def test_the_command_counts_results_and_prints_the_digest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(tmp_path, "a", (1, "finished"), 0)
    written(tmp_path, "half", "{", 0)
    for arguments in (["index", str(tmp_path)], ["index", str(tmp_path), "--rebuild", "--digest"]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 0
    printed = capsys.readouterr()
    assert "digits     memo    finished        1" in printed.out
    assert str(tmp_path / NAME) in printed.out
    assert printed.out.splitlines()[-1] == index_digest(tmp_path)
    assert "half" in printed.err
    with pytest.raises(SystemExit) as ended:
        main(["index", str(tmp_path / "nowhere")])
    assert ended.value.code == 2
