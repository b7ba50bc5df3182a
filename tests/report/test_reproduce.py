"""Reproduction of a table, with a stand-in for the program that runs an experiment."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import yaml

from mmcl.report import reproduce as module
from mmcl.report.reproduce import reproduce
from tests.report.made import content

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
    monkeypatch.setattr(module.sys, "executable", str(script))
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
    assert reproduce(table_file(stand_in, "memo", "replay"), ["seed=1"], stand_in / "runs") == 0
    assert (stand_in / "calls").read_text().splitlines() == ["+method=memo seed=1", "+method=replay seed=1"]
    output = capsys.readouterr().out
    assert "task 0: 90 %" in output
    assert "60.00" in output
    assert "memo nme" in (stand_in / "runs/report_small.html").read_text()


def test_several_seeds_give_mean_and_spread(stand_in: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert reproduce(table_file(stand_in, "memo"), ["seed=1,2", "trainer=cpu"], stand_in / "runs") == 0
    calls = (stand_in / "calls").read_text().splitlines()
    assert calls == ["+method=memo seed=1 trainer=cpu", "+method=memo seed=2 trainer=cpu"]
    assert "Of several seeds: mean and standard deviation." in capsys.readouterr().out
    assert "± 0.00" in (stand_in / "runs/report_small.html").read_text()


def test_failed_rows_are_told_and_do_not_stop_the_others(stand_in: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert reproduce(table_file(stand_in, "der", "wa", "memo"), [], stand_in / "runs") == 1
    output = capsys.readouterr().out
    assert "+method=der" in output
    assert "exit code 2" in output
    assert "named no finished result.json, but 'no path'" in output
    assert "60.00" in output


def test_interrupt_stops_and_still_shows(
    stand_in: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = module._run

    def interrupted(arguments: list[str], console: object) -> object:
        if "+method=replay" in arguments:
            raise KeyboardInterrupt
        return real(arguments, console)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "_run", interrupted)
    assert reproduce(table_file(stand_in, "memo", "replay", "icarl"), [], stand_in / "runs") == 130
    assert (stand_in / "calls").read_text().splitlines() == ["+method=memo"]
    assert "The same command continues here." in capsys.readouterr().out
