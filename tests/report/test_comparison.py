"""Rows are joined with the runs that produced them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmcl.report.comparison import compare, overrides_of, pick_from
from mmcl.report.tables import Row, SweepPoint, Table
from tests.report.made import result

RUN = ("+method=memo", "memory.size=100")


def table(*rows: Row) -> Table:
    return Table("t", "Title", "Paper", "table 1", 2.0, "none", (), rows)


def test_ours_printed_and_difference(tmp_path: Path) -> None:
    row = Row("MEMO", RUN, "cnn", {"last_accuracy": 61.5, "forgetting": 30.0, "top5_average": 90.0}, "paper")
    found = result(tmp_path, *RUN)
    (entry,) = compare(table(row), pick_from([found])).rows
    assert entry.measured["last_accuracy"] == pytest.approx(60)
    assert entry.measured["accuracy_curve"] == pytest.approx((90, 70, 60))
    assert entry.difference("last_accuracy") == pytest.approx(-1.5)
    assert (entry.within("last_accuracy", 2.0), entry.within("forgetting", 2.0)) == (True, False)
    assert entry.difference("top5_average") == pytest.approx(0)
    assert entry.within("average_incremental_accuracy", 2.0) is None


def test_spelling_order_and_hardware_do_not_matter(tmp_path: Path) -> None:
    found = result(tmp_path, "memory.size=100", "method=memo", "paths.data=/d", "trainer=cpu", "trainer.devices=2")
    assert overrides_of(found) == ("memory.size=100", "method=memo")
    mixed = result(tmp_path / "mixed", *RUN, "trainer.precision=bf16-mixed", "benchmark.workers=8")
    assert overrides_of(mixed) == ("method=memo", "memory.size=100", "trainer.precision=bf16-mixed")
    assert pick_from([found])(RUN) is found


def test_run_with_fewest_changes_is_picked_and_changes_are_told(tmp_path: Path) -> None:
    short = result(tmp_path / "short", *RUN, "method.first_task.epochs=1", "seed=1")
    other = result(tmp_path / "other", *RUN, "seed=1")
    row = Row("MEMO", RUN, "cnn", {})
    (entry,) = compare(table(row), pick_from([short, other])).rows
    assert entry.results == (other,)
    assert entry.changes == ("seed=1",)


def test_newest_of_equals_is_picked(tmp_path: Path) -> None:
    new = result(tmp_path / "new", *RUN, provenance={"date": "2031-01-01"})
    old = result(tmp_path / "old", *RUN, provenance={"date": "2030-01-01"})
    assert pick_from([new, old])(RUN) is new


def test_unfinished_and_other_runs_are_not_picked(tmp_path: Path) -> None:
    running = result(tmp_path / "running", *RUN, status="running")
    other = result(tmp_path / "other", "+method=der", "memory.size=100")
    compared = compare(table(Row("MEMO", RUN, "cnn", {})), pick_from([running, other]))
    assert not compared.measured


def test_readout_that_a_run_lacks_is_empty(tmp_path: Path) -> None:
    row = Row("MEMO", RUN, "text", {"last_accuracy": 60.0}, "paper")
    (entry,) = compare(table(row), pick_from([result(tmp_path, *RUN)])).rows
    assert entry.measured == {}


def test_unevaluated_tasks_leave_the_curve_out(tmp_path: Path) -> None:
    figures = {
        "accuracy_curve": [None, None, 0.8],
        "last_accuracy": 0.8,
        "average_incremental_accuracy": None,
    }
    found = result(tmp_path, *RUN, readouts={"cnn": figures})
    (entry,) = compare(table(Row("Joint", RUN, "cnn", {})), pick_from([found])).rows
    assert entry.measured == {"last_accuracy": pytest.approx(80)}


def test_sweep_needs_every_budget(tmp_path: Path) -> None:
    points = tuple(SweepPoint(float(mb), ("+method=memo", f"memory.size={mb}")) for mb in (10, 30))
    row = Row("MEMO", None, "cnn", {"auc_last": 12.1}, "paper", sweep=points)
    small, large = (result(tmp_path / str(mb), *points[i].overrides) for i, mb in enumerate((10, 30)))
    assert not compare(table(row), pick_from([small])).measured
    (entry,) = compare(table(row), pick_from([small, large])).rows
    assert entry.measured["auc_last"] == pytest.approx(0.6 * 20)
    assert entry.within("auc_last", 1.0) is True
    assert entry.within("auc_last", 0.5) is False
