"""``mmcl verify``: an honest run passes; one digit, one answer or another checkpoint is found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmcl import cli
from mmcl.engine.answered_again import other_parts
from mmcl.engine.predictions import file_of
from mmcl.engine.run_record import read_run, relocated
from mmcl.engine.state import StateFile
from mmcl.engine.verify import DIFFERS, LEFT_OUT, NOT_CHECKED, NOTE, OK, Check, differences, exit_code, verify_run
from tests.engine import test_mml, test_online, test_pretrained, test_stream
from tests.engine.own_features import write_features
from tests.engine.tiny import read, run_here, tiny

ALL = "figures", "confusion", "state", "identity", "answers", "checkpoint", "bytes"


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_features(tmp_path_factory.mktemp("features") / "toy.npz")


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_here(tiny(tmp_path_factory.mktemp("honest"), "+method=replay")).parent


@pytest.fixture
def folder(honest: Path, tmp_path: Path) -> Path:
    """A copy of an honest run, to be tampered with."""
    return Path(shutil.copytree(honest, tmp_path / "run"))


def checks_of(folder: Path, with_checkpoint: bool = False) -> list[Check]:
    return list(verify_run(read_run(folder, {}), with_checkpoint))


def found(checks: list[Check], verdict: str = DIFFERS) -> dict[str, str]:
    """Return the words of the first check of each kind with a verdict."""
    return {check.what: check.words for check in reversed(checks) if check.verdict == verdict}


def change(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    content = read(folder / "result.json")
    edit(content)
    (folder / "result.json").write_text(json.dumps(content))


# ------------------------------------------------------------------ honest runs


def test_an_honest_run(honest: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in honest.rglob("*")}
    checks = checks_of(honest, with_checkpoint=True)
    assert {check.what for check in checks if check.verdict == OK} >= set(ALL)
    assert {check.verdict for check in checks} <= {OK, NOTE}
    assert exit_code(checks) == 0
    assert {path: path.stat().st_mtime_ns for path in honest.rglob("*")} == before


def _arguments(kind: str, runs: Path, features: Path) -> list[str]:
    if kind == "pre-trained":
        return test_pretrained._arguments(runs, "slca_memory_head")
    if kind == "online":
        return test_online.typed(runs, "gdumb")
    if kind == "memory":
        return test_mml._typed(runs, features)
    learned = () if kind == "stream without learning" else test_stream.LEARNED
    return test_stream._dmn(runs, features, *learned)


@pytest.mark.parametrize("kind", ["pre-trained", "online", "memory", "stream", "stream without learning"])
def test_an_honest_run_of_every_kind(kind: str, tmp_path: Path, features: Path) -> None:
    checks = checks_of(run_here(_arguments(kind, tmp_path, features)).parent, with_checkpoint=True)
    assert {check.what for check in checks if check.verdict == OK} >= set(ALL)
    assert {check.verdict for check in checks} <= {OK, NOTE}


def test_a_run_of_two_data_sets_that_went_on_after_a_stop(
    tmp_path: Path, features: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.engine.tiny import stop_after_each_save

    data = tmp_path / "features"
    data.mkdir()
    for seed, name in enumerate(("b", "a")):
        write_features(data / f"{name}.npz", seed)
    arguments = test_stream._dmn(tmp_path / "runs", data)
    stop_after_each_save(arguments, 1, monkeypatch)
    assert exit_code(checks_of(run_here(arguments).parent, with_checkpoint=True)) == 0


# ------------------------------------------------------------------ tampered runs


def _next_digit(value: float) -> float:
    """Change one digit of a number between 0 and 1, the third one."""
    digits = f"{value:.17g}"
    place = 4 if len(digits) > 4 else len(digits) - 1
    return float(digits[:place] + str((int(digits[place]) + 1) % 10) + digits[place + 1 :])


@pytest.mark.parametrize("figure", ["last_accuracy", "forgetting", "backward_transfer", "average_incremental_accuracy"])
def test_one_digit_of_a_figure(figure: str, folder: Path) -> None:
    before = read(folder / "result.json")["readouts"]["nme"][figure]
    change(folder, lambda result: result["readouts"]["nme"].update({figure: _next_digit(before)}))
    checks = checks_of(folder)
    assert f"nme.{figure}: result.json {_next_digit(before)}, recomputed {before}" == found(checks)["figures"]
    assert exit_code(checks) == 1


def test_one_digit_at_the_very_end_of_a_figure(folder: Path) -> None:
    before = read(folder / "result.json")["readouts"]["cnn"]["last_accuracy"]
    after = float(np.nextafter(before, 1))
    change(folder, lambda result: result["readouts"]["cnn"].update(last_accuracy=after))
    assert "cnn.last_accuracy" in found(checks_of(folder))["figures"]


@pytest.mark.parametrize("name", ["accuracy_matrix", "accuracy_curve", "top5_curve"])
def test_one_number_of_a_curve_or_matrix(name: str, folder: Path) -> None:
    def edit(result: dict[str, Any]) -> None:
        row = result["readouts"]["cnn"][name]
        row = row[1] if name == "accuracy_matrix" else row
        row[0] = row[0] / 2 + 0.1

    change(folder, edit)
    assert f"cnn.{name}" in found(checks_of(folder))["figures"]


def test_a_figure_that_is_left_out(folder: Path) -> None:
    change(folder, lambda result: result["readouts"]["cnn"].pop("forgetting"))
    assert "cnn.forgetting: result.json None" in found(checks_of(folder))["figures"]


def test_a_readout_that_is_left_out(folder: Path) -> None:
    change(folder, lambda result: result["readouts"].pop("cnn"))
    assert "cnn has answers" in found(checks_of(folder))["figures"]


def test_a_confusion_matrix(folder: Path) -> None:
    file = folder / "confusion_cnn.csv"
    rows = [line.split(",") for line in file.read_text().splitlines()]
    rows[3][2] = str(int(rows[3][2]) + 1)
    file.write_text("\n".join(map(",".join, rows)))
    assert "confusion_cnn.csv[3][2]" in found(checks_of(folder))["confusion"]


def test_a_setting(folder: Path) -> None:
    change(folder, lambda result: result["config"]["memory"].update(size=61))
    assert "its configuration gives" in found(checks_of(folder))["identity"]


def test_bytes(folder: Path) -> None:
    change(folder, lambda result: result["bytes"][0].update(memory_bytes=1))
    assert "bytes[0].memory_bytes: result.json 1" in found(checks_of(folder))["state"]


@pytest.mark.parametrize("task", [0, 1])
def test_an_answer(task: int, folder: Path) -> None:
    path = file_of(folder, task)
    with np.load(path) as content:
        values = dict(content)
    row = int((values["cnn.ranks"] != 0).argmax())
    values["cnn.answers"][row], values["cnn.ranks"][row] = values["cnn.truths"][row], 0
    np.savez_compressed(path, **values)
    checks = checks_of(folder, with_checkpoint=True)
    assert path.name in found(checks)["answers"]
    assert "cnn.accuracy_curve" in found(checks)["figures"]
    assert ("checkpoint" in found(checks)) == (task == 1)


def test_an_answer_that_changes_no_figure(folder: Path) -> None:
    path = file_of(folder, 0)
    with np.load(path) as content:
        values = dict(content)
    row = int((values["cnn.ranks"] > 1).argmax())
    values["cnn.ranks"][row] = 1
    np.savez_compressed(path, **values)
    assert "was changed after the run" in found(checks_of(folder))["answers"]


def test_answers_that_are_missing_or_damaged(folder: Path) -> None:
    file_of(folder, 0).unlink()
    file_of(folder, 1).write_bytes(file_of(folder, 1).read_bytes()[:100])
    words = [check.words for check in checks_of(folder) if check.what == "answers"]
    assert "task_000.npz is missing" in words[0]
    assert "task_001.npz is damaged" in words[1]


def test_another_checkpoint(folder: Path, tmp_path: Path) -> None:
    other = run_here(tiny(tmp_path / "other", "+method=replay", "seed=7")).parent
    shutil.rmtree(folder / "state")
    shutil.copytree(other / "state", folder / "state")
    checks = checks_of(folder, with_checkpoint=True)
    assert {"checkpoint", "answers", "figures"} <= found(checks).keys()
    assert " answers or ranks; last_accuracy " in found(checks)["checkpoint"]


def test_another_checkpoint_with_the_counts_of_this_run(folder: Path) -> None:
    """Weights alone are changed, under a name with the right digest."""
    file = StateFile(folder / "state")
    state = file.load()
    assert state.method is not None
    name = next(name for name in state.method if name.endswith("weight"))
    state.method[name] = torch.roll(state.method[name], 1, 0)
    file.save(state)
    checks = checks_of(folder, with_checkpoint=True)
    assert list(found(checks)) == ["checkpoint"]


def test_the_checkpoint_of_another_method(folder: Path, tmp_path: Path) -> None:
    other = run_here(tiny(tmp_path / "other", "+method=der", "method.later_tasks.epochs=1")).parent
    shutil.rmtree(folder / "state")
    shutil.copytree(other / "state", folder / "state")
    assert "does not fit method=replay" in found(checks_of(folder, with_checkpoint=True))["checkpoint"]


def test_the_checkpoint_of_a_stream(tmp_path: Path, features: Path) -> None:
    run, other = (run_here(test_stream._dmn(tmp_path / str(seed), features, f"seed={seed}")).parent for seed in (1, 2))
    shutil.rmtree(run / "state")
    shutil.copytree(other / "state", run / "state")
    words = [check.words for check in checks_of(run, with_checkpoint=True) if check.verdict == DIFFERS]
    assert any("the state that the end of the last task leaves" in line for line in words)


def test_a_damaged_last_state(folder: Path) -> None:
    (path,) = (folder / "state").glob("sequence-000200-*.pt")
    path.write_bytes(path.read_bytes()[:500])
    checks = checks_of(folder, with_checkpoint=True)
    assert "the newest good state is of task 1 of 2" in found(checks)["state"]
    assert "checkpoint" in found(checks, NOT_CHECKED)


# ------------------------------------------------------------------ what cannot be checked


def test_a_run_from_before_answers_were_kept(folder: Path) -> None:
    shutil.rmtree(folder / "predictions")
    checks = checks_of(folder, with_checkpoint=True)
    assert "before answers were kept" in found(checks, NOT_CHECKED)["answers"]
    assert not found(checks)
    assert any(check.words == "cnn: the same accuracy after the last task" for check in checks)
    assert exit_code(checks) == 1


def test_a_run_without_its_state(folder: Path) -> None:
    shutil.rmtree(folder / "state")
    checks = checks_of(folder, with_checkpoint=True)
    assert not found(checks)
    assert {"state", "checkpoint"} <= found(checks, NOT_CHECKED).keys()
    assert {"figures", "confusion"} <= found(checks, OK).keys()


def test_data_that_is_not_here_or_lies_elsewhere(tmp_path: Path) -> None:
    file = write_features(tmp_path / "toy.npz")
    run = run_here(test_stream._dmn(tmp_path / "runs", file)).parent
    moved = tmp_path / "elsewhere" / "toy.npz"
    moved.parent.mkdir()
    file.rename(moved)
    checks = checks_of(run, with_checkpoint=True)
    assert str(file) in found(checks, NOT_CHECKED)["checkpoint"]
    assert list(found(checks)) == ["identity"]
    again = list(verify_run(read_run(run, {"features": str(moved)}), with_checkpoint=True))
    assert exit_code(again) == 0


def test_the_checkpoint_may_be_left_out(honest: Path) -> None:
    checks = checks_of(honest)
    assert [check.verdict for check in checks if check.what == "checkpoint"] == [LEFT_OUT]
    assert exit_code(checks) == 0


def test_another_commit_is_a_note(folder: Path) -> None:
    change(folder, lambda result: result["provenance"].update(commit="0000"))
    checks = checks_of(folder)
    assert "commit 0000 then" in found(checks, NOTE)["origin"]
    assert exit_code(checks) == 0


# ------------------------------------------------------------------ parts and the command


def test_differences_name_their_places() -> None:
    assert differences({"a": [1, {"b": None}]}, {"a": [1, {"b": 0.5}]}, 0.0) == [("a[1].b", None, 0.5)]
    assert differences([1.0], [1.0 + 1e-15], 1e-12) == []
    assert differences([1.0], [1.0 + 1e-9], 1e-12) != []
    assert differences([1, 2], [1], 0.0) == [("", [1, 2], [1])]
    assert differences(float("nan"), float("nan"), 0.0) != []


def test_parts_of_a_state_that_differ() -> None:
    one = {"a": {"b": torch.zeros(2)}, "c": [torch.ones(1), 3], "d": "x"}
    other = {"a": {"b": torch.tensor([0.0, 0.5])}, "c": [torch.ones(2), 3], "d": "x"}
    assert other_parts(one, one) == []
    assert other_parts(one, other) == [("a.b", 0.5), ("c.0", float("inf"))]


def test_folders_of_another_machine(honest: Path) -> None:
    config = read_run(honest, {}).config
    config.paths.data = "/of/another"
    config.benchmark.data = "/of/another"
    config.benchmark.folder = "/of/another/birds"
    moved = relocated(config, {"data": "/here"})
    assert (moved.paths.data, moved.benchmark.data, moved.benchmark.folder) == ("/here", "/here", "/here/birds")


def test_the_command(honest: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def typed(*words: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            cli.main(["verify", *map(str, words)])
        output = capsys.readouterr()
        return int(ended.value.code or 0), output.out, output.err

    code, output, _ = typed(honest / "result.json", "--without-checkpoint")
    assert code == 0
    assert all(line.startswith(("ok ", "left out ", "note ")) for line in output.splitlines())
    change(folder, lambda result: result["readouts"]["cnn"].update(last_accuracy=0.999))
    code, output, _ = typed(folder, "--without-checkpoint")
    assert code == 1
    assert "DIFFERS      figures     cnn.last_accuracy: result.json 0.999, recomputed " in output
    change(folder, lambda result: result.update(status="running"))
    code, _, errors = typed(folder)
    assert code == 2
    assert "has not finished" in errors
    code, _, errors = typed(folder.parent)
    assert code == 2
    assert "no result.json" in errors
    code, _, errors = typed(honest, "seed=3")
    assert code == 2
    assert "paths.data=" in errors
    code, _, errors = typed(honest, "paths.nothing=/x")
    assert code == 2
    assert "paths.data" in errors
