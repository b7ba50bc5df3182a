"""Small runs in processes that stay."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmcl.cli import main
from mmcl.errors import UserError
from mmcl.launch.jobs import Job
from mmcl.launch.staying import run_in_staying

TABLE = """
title: t
paper: none
source: none
tolerance: 0.0
cost: seconds
data: []
rows:
  - {label: linear, overrides: [+method=vanilla, method.hidden=null], readout: head, printed: {}}
"""
DIES = """
import os
from mmcl.methods.vanilla import Vanilla

class Dies(Vanilla):
    def losses(self, batch):
        os._exit(9)

METHOD, LIKE = Dies, "vanilla"
"""


def test_neither_an_error_nor_a_death_stops_the_others(tmp_path: Path) -> None:
    method = tmp_path / "dies_here.py"
    method.write_text(DIES)
    common = ("trainer=cpu", f"paths.runs={tmp_path}")
    jobs = [
        Job(("+method=vanilla", *common, "method.lr=-1"), name="wrong"),
        Job((f"+method={method}", *common), name="dies"),
        Job(("+method=vanilla", *common), name="right"),
    ]
    outcomes = {outcome.job.name: outcome for outcome in run_in_staying(jobs, 1, tmp_path / "logs")}
    assert isinstance(outcomes["wrong"].exception, UserError)
    assert "method.lr=-1" in outcomes["wrong"].error
    assert "exit code 9" in outcomes["dies"].error
    result = outcomes["right"].result
    assert result is not None
    kept = json.loads(result.read_text())
    assert kept["status"] == "finished"
    assert "+method=vanilla" in kept["command"].split()
    assert "task" in (tmp_path / "logs" / "right.log").read_text()


def test_a_table_in_silent_processes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "table.yaml"
    table.write_text(TABLE)
    with pytest.raises(SystemExit) as stop:
        main(["reproduce", str(table), "seed=1,2", "trainer=cpu", "--runs", str(tmp_path / "runs"), "--jobs", "1"])
    assert stop.value.code == 0
    shown = capfd.readouterr().out
    assert "[2/2]" in shown
    assert "task " not in shown
    assert len(list((tmp_path / "runs").rglob("result.json"))) == 2
