"""Reproduction of a table, with a stand-in for the program that runs an experiment."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from mmcl.config.compose import compose_run
from mmcl.config.identity import identity
from mmcl.errors import UserError
from mmcl.launch import isolation, one_by_one, slurm
from mmcl.launch.jobs import Job
from mmcl.launch.reproduce import Launch, reproduce
from mmcl.launch.staying import run_in_staying
from tests.report.made import content

SERIAL = Launch("serial")

STAND_IN = """
import os, pathlib, sys
arguments = sys.argv[3:]
assert arguments[-1].startswith("paths.runs="), arguments
log = pathlib.Path({folder!r}) / "calls"
log.open("a").write(" ".join(arguments[:-1]) + "\\n")
if "+method=der" in arguments:
    sys.exit(2)
if "+method=wa" in arguments:
    print("no path")
    sys.exit(0)
path = pathlib.Path(arguments[-1].split("=")[1]) / arguments[0].split("=")[1] / "result.json"
path.parent.mkdir(parents=True, exist_ok=True)
path.write_text({result!r})
print("task 0: 90 %")
print(path)
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    script = tmp_path / "python"
    text = STAND_IN.format(folder=str(tmp_path), result=json.dumps(content()))
    script.write_text(f"#!{sys.executable}\n{text}")
    script.chmod(0o755)
    monkeypatch.setattr(isolation.sys, "executable", str(script))
    return tmp_path


def table_file(folder: Path, *methods: str) -> Path:
    rows = [
        {"label": f"{name} {readout}", "overrides": [f"+method={name}"], "readout": readout, "printed": {}}
        for name in methods
        for readout in ("cnn", "nme")
    ]
    rows.append(
        {
            "label": "GEM",
            "overrides": None,
            "readout": "cnn",
            "printed": {"last_accuracy": 1},
            "source": "paper",
        }
    )
    keys = {"title": "T", "paper": "P", "source": "S", "tolerance": 1, "cost": "", "data": [], "rows": rows}
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(keys))
    return path


def test_every_run_once_and_a_report(stand_in: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert reproduce(table_file(stand_in, "memo", "replay"), ["seed=1"], stand_in / "runs", SERIAL) == 0
    assert (stand_in / "calls").read_text().splitlines() == ["+method=memo seed=1", "+method=replay seed=1"]
    output = capsys.readouterr().out
    assert "task 0: 90 %" in output
    assert "60.00" in output
    assert "memo nme" in (stand_in / "runs/report_small.html").read_text()


def test_several_seeds_give_mean_and_spread(stand_in: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert reproduce(table_file(stand_in, "memo"), ["seed=1,2", "trainer=cpu"], stand_in / "runs", SERIAL) == 0
    calls = (stand_in / "calls").read_text().splitlines()
    assert calls == ["+method=memo seed=1 trainer=cpu", "+method=memo seed=2 trainer=cpu"]
    assert "Of several seeds: mean and standard deviation." in capsys.readouterr().out
    assert "± 0.00" in (stand_in / "runs/report_small.html").read_text()


def test_failed_rows_are_told_and_do_not_stop_the_others(stand_in: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert reproduce(table_file(stand_in, "der", "wa", "memo"), [], stand_in / "runs", SERIAL) == 1
    output = capsys.readouterr().out
    assert "+method=der" in output
    assert "exit code 2" in output
    assert "named no result.json, but 'no path'" in output
    assert "60.00" in output


def test_interrupt_stops_and_still_shows(
    stand_in: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = one_by_one._run

    def interrupted(overrides: tuple[str, ...], console: Console) -> tuple[int, str]:
        if "+method=replay" in overrides:
            raise KeyboardInterrupt
        return real(overrides, console)

    monkeypatch.setattr(one_by_one, "_run", interrupted)
    assert reproduce(table_file(stand_in, "memo", "replay", "icarl"), [], stand_in / "runs", SERIAL) == 130
    assert (stand_in / "calls").read_text().splitlines() == ["+method=memo"]
    assert "The same command continues here." in capsys.readouterr().out


def test_a_finished_run_is_found_by_its_identity_wherever_it_was_copied_to(stand_in: Path) -> None:
    known = identity(compose_run(["+method=memo", "seed=3"]))
    copied = stand_in / "runs/from_another_machine/some/folder/result.json"
    copied.parent.mkdir(parents=True)
    copied.write_text(json.dumps(content("python -m mmcl.run +method=memo seed=3", identity=known)))
    assert reproduce(table_file(stand_in, "memo"), ["seed=3,4"], stand_in / "runs", SERIAL) == 0
    assert (stand_in / "calls").read_text().splitlines() == ["+method=memo seed=4"]
    assert reproduce(table_file(stand_in, "memo"), ["seed=3", "force=true"], stand_in / "runs", SERIAL) == 0
    assert (stand_in / "calls").read_text().splitlines()[-1] == "+method=memo seed=3 force=true"


def test_rows_may_be_chosen_by_their_labels(stand_in: Path) -> None:
    file = table_file(stand_in, "memo", "replay")
    assert reproduce(file, [], stand_in / "runs", SERIAL, rows="rep*") == 0
    assert (stand_in / "calls").read_text().splitlines() == ["+method=replay"]
    with pytest.raises(UserError, match="Rows: memo cnn, memo nme"):
        reproduce(file, [], stand_in / "runs", SERIAL, rows="MEMO")


def test_seeds_go_up_from_that_of_the_row(stand_in: Path) -> None:
    assert reproduce(table_file(stand_in, "memo"), [], stand_in / "runs", SERIAL, seeds=2) == 0
    assert (stand_in / "calls").read_text().splitlines() == ["+method=memo seed=1993", "+method=memo seed=1994"]
    with pytest.raises(UserError, match="Leave one of them out"):
        reproduce(table_file(stand_in, "memo"), ["seed=1"], stand_in / "runs", SERIAL, seeds=2)


def test_a_dry_run_says_what_would_be_run_and_runs_nothing(stand_in: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = stand_in / "runs"
    assert reproduce(table_file(stand_in, "memo"), [], runs, SERIAL) == 0
    file = table_file(stand_in, "memo", "replay")
    assert reproduce(file, ["seed=5", "benchmark=imagenet100", "paths.data=/nowhere"], runs, SERIAL, dry_run=True) == 0
    output = capsys.readouterr().out
    assert "2 runs: 2 new" in output
    assert "no data" in output
    assert "imagenet100: MISSING /nowhere" in output
    assert reproduce(file, ["seed=5"], runs, SERIAL, dry_run=True) == 0
    output = capsys.readouterr().out
    assert "about 1 min 15 s" in output  # of another seed
    assert "1 run without an estimate" in output
    assert (stand_in / "calls").read_text().splitlines() == ["+method=memo"]


def test_rows_without_data_or_sense_are_told_and_the_others_are_run(
    stand_in: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = table_file(stand_in, "memo", "replay")
    table = yaml.safe_load(file.read_text())
    table["rows"][0]["overrides"] = ["+method=memo", "benchmark=imagenet100", "paths.data=/nowhere"]
    table["rows"][1]["overrides"] = ["+method=memo", "method.alpha_axu=1"]
    file.write_text(yaml.safe_dump(table))
    assert reproduce(file, [], stand_in / "runs", SERIAL) == 1
    output = capsys.readouterr().out
    assert "refused: small.yaml: memo nme" in output.replace("small: memo nme", "small.yaml: memo nme")
    assert "alpha_aux" in output
    assert "not run, for /nowhere" in output
    assert (stand_in / "calls").read_text().splitlines() == ["+method=replay"]


def test_a_job_of_the_cluster_gives_the_same_as_a_plain_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm, "SECONDS_BETWEEN_LOOKS", 0.2)
    runs = tmp_path / "runs"
    words = ("+method=vanilla", "method.hidden=null", "trainer=cpu")
    jobs = [
        Job((*words, f"paths.runs={runs}"), name="right"),
        Job((*words, "method.lr=-1", f"paths.runs={runs}"), name="wrong"),
    ]
    outcomes = {entry.job.name: entry for entry in slurm.run_on_slurm(jobs, tmp_path / "slurm", {}, cluster="local")}
    assert "exit code 2" in outcomes["wrong"].error
    result = outcomes["right"].result
    assert result is not None
    (plain,) = run_in_staying([Job((*words, f"paths.runs={tmp_path / 'plain'}"))], 1)
    assert plain.result is not None
    here, there = (json.loads(path.read_text())["readouts"] for path in (result, plain.result))
    assert here == there
    assert set(json.loads((tmp_path / "slurm/submitted.json").read_text())) == {"right", "wrong"}


def test_unknown_parameters_of_slurm_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--slurm: "):
        list(slurm.run_on_slurm([Job(())], tmp_path, {"partitoin": "gpu"}, cluster="local"))
