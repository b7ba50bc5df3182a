"""Small runs in processes that stay."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmcl.cli import main
from mmcl.errors import UserError
from mmcl.launch.staying import run_all

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


def test_a_failed_run_does_not_stop_the_others(tmp_path: Path) -> None:
    plain = ["+method=vanilla", "trainer=cpu", f"paths.runs={tmp_path}"]
    wrong, right = run_all([[*plain, "method.lr=-1"], plain], jobs=1)
    assert isinstance(wrong, UserError)
    assert "method.lr=-1" in str(wrong)
    assert isinstance(right, Path)
    result = json.loads(right.read_text())
    assert result["status"] == "finished"
    assert "+method=vanilla" in result["command"].split()


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
