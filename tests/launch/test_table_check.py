"""Tables are checked whole: every error with its file and rows, and rows that look alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from mmcl.config.compose import compose_run
from mmcl.config.identity import identity
from mmcl.launch.table_check import check_tables

TABLE = {"title": "T", "paper": "P", "source": "Table 1", "tolerance": 1.0, "cost": "none", "data": []}
MEMO = {"label": "MEMO", "overrides": ["+method=memo"], "readout": "cnn", "printed": {}}


def written(tmp_path: Path, *rows: dict[str, Any], name: str = "table") -> Path:
    path = tmp_path / f"{name}.yaml"
    path.write_text(yaml.safe_dump({**TABLE, "rows": [MEMO | row for row in rows]}))
    return path


def test_all_errors_at_once_with_file_and_rows(tmp_path: Path) -> None:
    wrong = {"overrides": ["+method=memo", "method.alpha_axu=1"]}
    first = written(
        tmp_path, {}, {**wrong, "label": "A"}, {**wrong, "label": "B"}, {"overrides": ["+method=meno"], "label": "C"}
    )
    second = tmp_path / "broken.yaml"
    second.write_text("title: [")
    table, broken = check_tables([first, second])
    assert (table.count, len(table.identities)) == (4, 1)
    assert [error.splitlines()[0] for error in table.errors] == [
        f"{first}: rows[1] 'A' and 1 more: the configuration has errors:",
        f"{first}: rows[3] 'C': unknown method 'meno'. Did you mean 'memo'?",
    ]
    assert broken.errors[0].startswith(f"{second}: not valid YAML")


def test_typed_overrides_hold_for_every_row_and_sweeps_count_each_budget(tmp_path: Path) -> None:
    points = [
        {"memory_mb": mb, "overrides": ["+method=memo", f"memory.size={size}"]} for mb, size in ((1, 50), (2, 90))
    ]
    path = written(tmp_path, {}, {"label": "S", "overrides": None, "sweep": points})
    (table,) = check_tables([path], ("seed=3",))
    assert [row.label for row in table.rows] == ["MEMO", "S, 1 MB", "S, 2 MB"]
    assert table.rows[1].identity == identity(compose_run(["+method=memo", "memory.size=50", "seed=3"]))
    assert len(table.identities) == 3
    assert [str(node.name) for node in table.benchmarks] == ["digits"]


SAME = {"label": "again", "overrides": ["+method=memo", "method.alpha_aux=1.0"]}
PRINTED = {"printed": {"last_accuracy": 60.0}, "source": "paper"}


@pytest.mark.parametrize(
    ("first", "second", "warned"),
    [
        ({}, SAME, True),
        ({}, SAME | {"readout": "nme"}, False),
        ({}, SAME | PRINTED, False),
        (PRINTED, SAME | PRINTED, False),
        (PRINTED, SAME | PRINTED | {"printed": {"last_accuracy": 61.0}}, True),
        (PRINTED, SAME | {"printed": {"last_accuracy": 61.0}, "source": "log"}, False),
        (PRINTED, SAME | PRINTED | {"printed": {"forgetting": 9.0}}, False),
    ],
)
def test_rows_that_are_one_run_by_accident(
    tmp_path: Path, first: dict[str, Any], second: dict[str, Any], warned: bool
) -> None:
    path = written(tmp_path, first, second)
    (table,) = check_tables([path])
    expected = f"{path}: rows[0] 'MEMO' and rows[1] 'again' are the same run, read by cnn. Is an override missing?"
    assert table.warnings == ((expected,) if warned else ())
    assert table.errors == ()
