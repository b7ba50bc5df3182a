"""``mmcl check``: one table in detail, many in a line each, all errors at once, and the data where it is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from mmcl.cli import main

TABLE = {"title": "T", "paper": "P", "source": "Table 1", "tolerance": 1.0, "cost": "none", "data": []}


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    capsys.readouterr()
    try:
        code = main(["check", *words])
    except SystemExit as stop:
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    return int(code or 0), captured.out, captured.err


def test_many_tables_get_a_line_each_and_a_sum(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "dmn/table3")
    assert code == 0
    assert [line.split() for line in out.splitlines()] == [
        ["ok", "dmn/table3_rn50", "12", "rows", "5", "runs"],
        ["ok", "dmn/table3_vit_b16", "6", "rows", "4", "runs"],
        ["2", "tables,", "18", "rows,", "9", "different", "runs;", "0", "experiments"],
    ]


def test_one_table_gets_a_line_for_each_run_and_says_which_data_is_there(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, out, _ = run(capsys, "memo/student", f"paths.data={tmp_path}")
    lines = out.splitlines()
    assert (code, sum(line.startswith("ok  ") for line in lines)) == (0, 6)
    assert f"MISSING  {tmp_path}/cifar-100-python/train  pixels and labels" in lines
    assert "MISSING" not in run(capsys, "memo/student")[1]


def test_errors_come_at_once_with_what_was_found_right(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    row = {"readout": "cnn", "printed": {}}
    rows = [
        {**row, "label": "A", "overrides": ["+method=memo"]},
        {**row, "label": "B", "overrides": ["+method=meno"]},
        {**row, "label": "C", "overrides": ["+method=memo", "method.alpha_aux=1.0"]},
    ]
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({**TABLE, "rows": rows}))
    code, out, err = run(capsys, str(file))
    assert code == 2
    assert [line[:2] for line in out.splitlines()] == ["ok", "--", "ok", "wa"]
    assert "rows[0] 'A' and rows[2] 'C' are the same run" in out
    assert "rows[1] 'B': unknown method 'meno'. Did you mean 'memo'?" in err


def test_an_unknown_name_and_two_names_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Did you mean 'memory_head'?" in run(capsys, "memory_heat")[2]
    assert "type one name, or overrides" in run(capsys, "memo", "dmn")[2]
