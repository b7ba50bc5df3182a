"""The command line: look up, check, keep; errors end in exit code 2 and name what to type."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmcl.cli import main
from mmcl.commands.look import KINDS
from mmcl.config.locate import options
from mmcl.results.keep import keep_results
from tests.report.made import content as made_content
from tests.report.made import write


def output(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    captured = capsys.readouterr()
    assert ended.value.code in (0, None), captured.err
    return captured.out


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_ls_names_everything(capsys: pytest.CaptureFixture[str]) -> None:
    listed = output(capsys, "ls").split()
    assert {"memo", "joint", "cifar100", "resnet32", "memo/cifar100_b0_inc10", "quick", "wandb"} <= set(listed)
    assert set(KINDS) <= set(listed)


@pytest.mark.parametrize("group", ["method", "benchmark", "backbone"])
def test_show_has_a_page_for_every_component(group: str, capsys: pytest.CaptureFixture[str]) -> None:
    for name in options(group):
        page = output(capsys, "show", name)
        assert f"{group} {name}" in page
        assert "python -m mmcl.run" in page


def test_show_gives_the_meaning_of_a_key_at_its_limit(capsys: pytest.CaptureFixture[str]) -> None:
    page = output(capsys, "show", "memo")
    assert "method.alpha_aux" in page
    assert "0 is none" in page


def test_an_unknown_name_is_answered_by_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Did you mean 'memo'?" in refusal(capsys, "show", "memoo")
    assert "Did you mean 'memo/student'?" in refusal(capsys, "check", "memo/studnt")
    assert "Did you mean 'cifar100'?" in refusal(capsys, "data", "check", "cifar1000")


def test_check_accepts_experiments_tables_and_overrides(capsys: pytest.CaptureFixture[str]) -> None:
    assert "ok" in output(capsys, "check", "memo/student_resnet14_2495")
    assert output(capsys, "check", "quick").count("ok") == 47
    assert "ok" in output(capsys, "check", "method=memo", "seed=1")


def test_check_collects_what_is_wrong_in_keys_and_values(capsys: pytest.CaptureFixture[str]) -> None:
    keys = refusal(capsys, "check", "method=memo", "method.alpha_axu=1", "trainer.devises=2")
    assert "method.alpha_aux" in keys
    assert "trainer.devices" in keys
    values = refusal(capsys, "check", "method=memo", "trainer.precision=foo", "backbone.depth=15")
    assert "trainer.precision=foo" in values
    assert "backbone.depth=15" in values


def test_data_check_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["data", "check", "cifar100", f"paths.data={tmp_path}"])
    assert ended.value.code == 1
    assert "MISSING" in capsys.readouterr().out


def test_kept_results_name_no_folder_of_the_machine(tmp_path: Path) -> None:
    content = made_content(
        "python -m mmcl.run +method=memo paths.runs=/somewhere method.first_task_weights=/there/first_task.pt"
    )
    content["config"]["paths"] = {"data": "/somewhere/else"}
    content["config"]["benchmark"]["data"] = "/somewhere/else"
    content["config"]["backbone"] = {"name": "mini_clip", "weights": "/somewhere/weights.safetensors"}
    content["command"] += " \"backbone.weights='/somewhere/weights.safetensors'\""
    write(tmp_path / "runs" / "a", content)
    (kept,) = keep_results(tmp_path / "runs", tmp_path / "kept")
    text = kept.read_text()
    assert "somewhere" not in text
    assert "/there" not in text
    assert json.loads(text)["readouts"] == content["readouts"]


def test_report_needs_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no such folder" in refusal(capsys, "report", "nowhere")
