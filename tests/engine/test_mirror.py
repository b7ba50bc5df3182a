"""The mirror in wandb, read back from its offline files; nothing here needs a network."""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import wandb
from wandb.proto.wandb_internal_pb2 import Record

from mmcl.config.compose import compose_run
from mmcl.engine import mirror
from mmcl.engine.mirror import accuracy_curves, configuration, confusion_rows, matrix_rows, public
from mmcl.errors import INTERRUPTED, PREEMPTED, UserError
from tests.engine import mischief
from tests.engine.launched import launch
from tests.engine.tiny import directory_of, metric_rows, read, run_here, stop_after_each_save, tiny

BLOCK, BLOCK_HEADER, FILE_HEADER = 32768, 7, 7
SIGKILLED = -9


def records(file: Path) -> Iterator[Record]:
    """Yield the records of an offline file, which is a log in the format of LevelDB behind a header of its own."""
    content, at, whole = file.read_bytes(), FILE_HEADER, b""
    while at + BLOCK_HEADER <= len(content):
        left = BLOCK - at % BLOCK
        if left < BLOCK_HEADER:
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        whole += content[at + BLOCK_HEADER : at + BLOCK_HEADER + length]
        at += BLOCK_HEADER + length
        if kind in (1, 4):  # the whole record, or its last part
            record = Record()
            record.ParseFromString(whole)
            whole = b""
            yield record


def offline_file(run: Path) -> Path:
    (folder,) = (run / "wandb").glob("offline-run-*")
    (file,) = folder.glob("*.wandb")
    return file


def history(file: Path) -> list[dict[str, str]]:
    """Return what was logged at each step, as JSON by name, in the order of the file."""
    rows = [record.history.item for record in records(file) if record.HasField("history")]
    return [{item.key or ".".join(item.nested_key): item.value_json for item in row} for row in rows]


def steps(file: Path) -> dict[int, dict[str, str]]:
    """Return the history by step; no step may be there twice with two values."""
    found: dict[int, dict[str, str]] = {}
    for row in history(file):
        values = found.setdefault(int(row["_step"]), {})
        own = {name: value for name, value in row.items() if name[0] != "_"}
        assert all(values.get(name, value) == value for name, value in own.items())
        values.update(own)
    return found


def figures_of(found: dict[int, dict[str, str]]) -> list[dict[str, str]]:
    """Return the steps of a history without seconds, which every run has its own of, and without tables."""
    names = ("accuracy_matrix", "confusion", "accuracy")
    return [
        {key: value for key, value in found[step].items() if "seconds" not in key and key.split("/")[0] not in names}
        for step in sorted(found)
    ]


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_here([*tiny(tmp_path_factory.mktemp("mirrored"), "+method=replay"), "logger=wandb"])


def test_one_axis_goes_through_all_tasks(mirrored: Path) -> None:
    found = steps(offline_file(mirrored.parent))
    assert sorted(found) == list(range(1 + 1 + 4 + 1))
    assert [found[step]["task"] for step in sorted(found)] == ["0", "0", "1", "1", "1", "1", "1"]
    assert [step for step in found if "representation/loss" in found[step]] == [0, 2, 3, 4, 5]
    assert [step for step in found if "evaluation/cnn/accuracy" in found[step]] == [1, 6]
    rows = metric_rows(mirrored.parent)
    assert float(found[3]["representation/loss"]) == float(rows["1", "representation", "1", "loss"])


def test_tables_figure_and_summary(mirrored: Path) -> None:
    found = list(records(offline_file(mirrored.parent)))
    folder = offline_file(mirrored.parent).parent / "files" / "media"
    assert (
        len(list(folder.glob("table/accuracy_matrix/*.json"))) == len(list(folder.glob("table/confusion/*.json"))) == 2
    )
    (picture,) = folder.glob("images/*.png")
    assert picture.read_bytes()[:4] == b"\x89PNG"
    summary = {item.key: item.value_json for record in found for item in record.summary.update}
    cnn = read(mirrored)["readouts"]["cnn"]
    for key in mirror.SUMMARISED:
        assert float(summary[f"cnn/{key}"]) == cnn[key]
    assert int(summary["memory_bytes"]) == read(mirrored)["bytes"][-1]["memory_bytes"]
    assert float(summary["wall_seconds"]) > 0


def test_it_begins_with_its_configuration_and_lies_with_its_seeds(mirrored: Path) -> None:
    (started,) = (record.run for record in records(offline_file(mirrored.parent)) if record.HasField("run"))
    config = {item.key: item.value_json for item in started.config.update}
    assert '"name":"replay"' in config["method"].replace(" ", "")
    assert "provenance" in config
    assert started.run_group == f"replay-digits-{mirrored.parent.parent.name}"
    assert (started.job_type, started.display_name) == ("replay", "replay-digits-seed1993")
    assert started.run_id.startswith(read(mirrored)["identity"])
    assert (
        next(record.exit.exit_code for record in records(offline_file(mirrored.parent)) if record.HasField("exit")) == 0
    )


def test_no_folder_of_the_machine_is_logged(mirrored: Path) -> None:
    of_the_machine = (str(mirrored.parent), str(Path.cwd()), str(mirrored.parents[4]))
    for record in records(offline_file(mirrored.parent)):
        if record.WhichOneof("record_type") in ("run", "config", "history", "summary", "files", "environment"):
            assert not any(folder.encode() in record.SerializeToString() for folder in of_the_machine)
    assert not list(offline_file(mirrored.parent).parent.glob("files/wandb-metadata.json"))


@pytest.mark.parametrize("how", ["killed inside an epoch", "stopped after each state"])
def test_a_run_that_was_cut_has_one_whole_history(
    how: str, mirrored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [*tiny(tmp_path, "+method=replay"), "logger=wandb"]
    if how == "killed inside an epoch":
        assert launch(arguments, mischief.die_inside_an_epoch).code == SIGKILLED
    else:
        stop_after_each_save(arguments, 3, monkeypatch)
    before = offline_file(directory_of(tmp_path))
    shutil.copytree(before.parent, f"{before.parent}-1")  # as wandb names another start within the same second
    again = offline_file(run_here(arguments).parent)
    assert again != before
    assert again.name == before.name  # the id is the same
    assert figures_of(steps(again)) == figures_of(steps(offline_file(mirrored.parent)))


def test_a_run_that_is_forced_is_another_one(tmp_path: Path) -> None:
    arguments = [*tiny(tmp_path, "+method=finetune", "method.later_tasks.epochs=1"), "logger=wandb"]
    first = offline_file(run_here(arguments).parent)
    again = offline_file(run_here([*arguments, "force=true"]).parent)
    assert first.name != again.name
    assert not first.exists()


def test_online_goes_on_where_the_server_left_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[int] = []
    asked: dict[str, Any] = {}

    def init(**settings: Any) -> SimpleNamespace:
        asked.update(settings)
        return SimpleNamespace(
            log=lambda values, step: logged.append(step),
            finish=lambda exit_code: None,
            summary={},
            starting_step=3,
            id="x",
        )

    monkeypatch.setattr(wandb, "init", init)
    run_here([*tiny(tmp_path, "+method=finetune"), "logger=wandb", "logger.mode=online"])
    assert (asked["mode"], asked["resume"]) == ("online", "allow")
    assert logged == [3, 4, 5, 6, 6]  # the last one is that of the tables


@pytest.mark.parametrize(
    ("error", "code"), [(UserError("no"), 2), (KeyboardInterrupt(), INTERRUPTED), (RuntimeError("no"), 1), (None, 0)]
)
def test_the_end_has_the_exit_code_of_the_run(error: BaseException | None, code: int) -> None:
    assert mirror._exit_code(error) == code


def test_a_run_that_stops_for_another_ends_as_preempted() -> None:
    assert mirror._exit_code(mirror.PreemptedError("after epoch 1")) == PREEMPTED


def test_a_failing_start_says_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: Any) -> None:
        raise wandb.errors.UsageError("api_key not configured (no-tty)")

    monkeypatch.setattr(wandb, "init", init)
    with pytest.raises(UserError, match=r"api_key not configured.*logger\.mode=offline"):
        run_here([*tiny(tmp_path, "+method=finetune"), "logger=wandb", "logger.mode=online"])
    assert not list(tmp_path.rglob("state/*.pt"))


def test_a_failure_later_costs_the_mirror_and_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    fake = SimpleNamespace(log=full, finish=full, summary={}, starting_step=0, id="x")
    monkeypatch.setattr(wandb, "init", lambda **_: fake)
    result = run_here([*tiny(tmp_path, "+method=finetune"), "logger=wandb", "logger.mode=online"])
    assert read(result)["status"] == "finished"
    assert caplog.text.count("wandb has stopped") == 1


def test_the_configuration_names_no_folder(tmp_path: Path) -> None:
    config = compose_run(tiny(tmp_path, "+method=replay"))
    assert str(tmp_path) not in str(public(config))
    assert public(config)["method"]["name"] == "replay"
    other_seed = compose_run(tiny(tmp_path, "+method=replay", "seed=7", f"paths.run={tmp_path / 'here'}"))
    assert configuration(config) == configuration(other_seed)


def test_rows_of_tables() -> None:
    assert matrix_rows([[0.5, None], [0.25, 1.0]]) == (
        ["after task", "task 0", "task 1"],
        [[0, 0.5, None], [1, 0.25, 1.0]],
    )
    columns, rows = confusion_rows(torch.tensor([[3, 0], [5, 1]]), ["first", "a", "b"])
    assert columns == ["class", "answer", "samples"]
    assert rows == [["b", "a", 5], ["a", "a", 3], ["b", "b", 1]]


def test_the_curve_is_drawn_where_something_was_not_asked() -> None:
    assert accuracy_curves({"cnn": {"accuracy_curve": [None, 0.5]}})[:4] == b"\x89PNG"


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_MODE", "offline")
