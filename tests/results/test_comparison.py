"""Rows are joined with the runs that produced them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmcl.results.comparison import compare, overrides_of, pick_from
from mmcl.results.store import Result
from mmcl.results.tables import Row, SweepPoint, Table
from tests.report.made import DATASET_RUN, dataset_result, datasets_table, result

RUN = ("+method=memo", "memory.size=100")


def table(*rows: Row) -> Table:
    return Table("t", "Title", "Paper", "table 1", 2.0, "none", (), rows)


def test_ours_printed_and_difference(tmp_path: Path) -> None:
    row = Row("MEMO", RUN, "cnn", {"last_accuracy": 61.5, "forgetting": 30.0, "top5_average": 90.0}, "paper")
    found = result(tmp_path, *RUN)
    (entry,) = compare(table(row), pick_from([found])).rows
    assert entry.measured["last_accuracy"] == pytest.approx(60)
    assert entry.measured["accuracy_curve"] == pytest.approx((90, 70, 60))
    assert entry.cell("last_accuracy", 2.0).difference == pytest.approx(-1.5)
    assert (entry.cell("last_accuracy", 2.0).within, entry.cell("forgetting", 2.0).within) == (True, False)
    assert entry.cell("top5_average").difference == pytest.approx(0)
    assert entry.cell("average_incremental_accuracy", 2.0).within is None


def test_forgetting_of_the_first_task_is_shown_where_it_is_printed(tmp_path: Path) -> None:
    found = result(tmp_path, *RUN)
    for printed, figure in (({"first_task_forgetting": 39.0}, True), ({"forgetting": 30.0}, False)):
        compared = compare(table(Row("MEMO", RUN, "cnn", printed, "paper")), pick_from([found]))
        assert ("first_task_forgetting" in compared.figures) == figure
        (entry,) = compared.rows
        assert entry.measured["first_task_forgetting"] == pytest.approx(40)


def test_spelling_order_and_hardware_do_not_matter(tmp_path: Path) -> None:
    found = result(tmp_path, "memory.size=100", "method=memo", "paths.data=/d", "trainer=cpu", "trainer.devices=2")
    assert overrides_of(found) == ("memory.size=100", "method=memo")
    mixed = result(tmp_path / "mixed", *RUN, "trainer.precision=bf16-mixed", "benchmark.workers=8")
    assert overrides_of(mixed) == ("method=memo", "memory.size=100", "trainer.precision=bf16-mixed")
    assert pick_from([found])(RUN) == [found]


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
    assert pick_from([new, old])(RUN) == [new]


def of_seed(folder: Path, seed: int, accuracy: float, *overrides: str) -> Result:
    figures = {
        "accuracy_curve": [accuracy, 0.4],
        "average_incremental_accuracy": accuracy / 2 + 0.2,
        "last_accuracy": 0.4,
    }
    benchmark = {"name": "digits", "order_seed": seed}
    return result(
        folder / str(seed),
        *RUN,
        *overrides,
        readouts={"cnn": figures},
        config={"seed": seed, "method": {"name": "memo"}, "benchmark": benchmark},
        provenance={"date": f"2030-01-0{seed}"},
    )


def test_seeds_give_mean_and_spread(tmp_path: Path) -> None:
    found = [of_seed(tmp_path, seed, accuracy, f"seed={seed}") for seed, accuracy in ((1, 0.6), (2, 0.7), (3, 0.8))]
    row = Row("MEMO", RUN, "cnn", {"average_incremental_accuracy": 54.0}, "paper")
    (entry,) = compare(table(row), pick_from(found)).rows
    assert (entry.seeds, entry.changes, entry.results) == (3, (), tuple(found))
    cell = entry.cell("average_incremental_accuracy", 2.0)
    assert (cell.ours, cell.spread) == (pytest.approx(55), pytest.approx(5))
    assert (cell.difference, cell.within) == (pytest.approx(1), True)
    assert entry.measured["accuracy_curve"] == pytest.approx((70, 40))
    assert entry.spread["accuracy_curve"] == pytest.approx((10, 0))


def test_one_seed_has_no_spread_and_a_typed_seed_picks_that_one(tmp_path: Path) -> None:
    found = [of_seed(tmp_path, seed, 0.5, f"seed={seed}") for seed in (1, 2)]
    assert pick_from(found)((*RUN, "seed=1")) == [found[0]]
    (entry,) = compare(table(Row("MEMO", RUN, "cnn", {})), pick_from(found[1:])).rows
    assert (entry.seeds, entry.spread, entry.changes) == (1, {}, ("seed=2",))


def test_runs_of_another_configuration_are_no_seeds_of_the_newest(tmp_path: Path) -> None:
    changed = result(tmp_path / "changed", *RUN, config={"seed": 1, "method": {"name": "memo", "lr": 0.1}})
    classes = result(tmp_path / "classes", *RUN, "seed=3", class_names=list("ghijkl"))
    new = result(tmp_path / "new", *RUN, "seed=2", provenance={"date": "2031-01-01"})
    assert pick_from([changed, classes, new])(RUN) == [new]


def test_data_sets_have_a_cell_each_and_the_mean_comes_last(tmp_path: Path) -> None:
    found = dataset_result(tmp_path, *DATASET_RUN)
    honest = Row("fixed", DATASET_RUN, "fused", {})
    tuned = Row("oracle", DATASET_RUN, "fused", {"acc_oracle_curve": (86.0, 47.0, None)}, "log")
    text = Row(
        "text",
        DATASET_RUN,
        "text",
        {"accuracy_curve": (80.0, 40.0, 70.0), "average_incremental_accuracy": 60.0},
        "log",
    )
    compared = compare(datasets_table(honest, tuned, text), pick_from([found]))
    assert compared.columns == ("Pets", "DTD", "Cars", "mean")
    cells = {entry.row.label: compared.cells(entry) for entry in compared.rows}
    assert [cell.ours for cell in cells["fixed"]] == pytest.approx([85, 45, 65, 65])
    assert [cell.ours for cell in cells["oracle"]] == pytest.approx([87, 46, 66, 199 / 3])
    assert [cell.difference for cell in cells["oracle"]] == [pytest.approx(1), pytest.approx(-1), None, None]
    assert [cell.within for cell in cells["text"]] == [True, True, False, True]


def test_mean_of_printed_entries_stands_in_for_one_that_is_not_printed(tmp_path: Path) -> None:
    row = Row("oracle", DATASET_RUN, "fused", {"acc_oracle_curve": (86.0, 47.0, 68.0)}, "paper")
    compared = compare(datasets_table(row), pick_from([dataset_result(tmp_path, *DATASET_RUN)]))
    assert compared.cells(compared.rows[0])[-1].printed == pytest.approx(67)


def test_one_data_set_needs_no_mean(tmp_path: Path) -> None:
    one = Table("t", "T", "P", "S", 1.0, "", (), (Row("text", DATASET_RUN, "text", {}),), columns=("Pets",))
    compared = compare(one, pick_from([]))
    assert compared.columns == ("Pets",)
    assert len(compared.cells(compared.rows[0])) == 1


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
    assert entry.cell("auc_last", 1.0).within is True
    assert entry.cell("auc_last", 0.5).within is False


def test_one_class_order_for_all_seeds_may_be_that_of_one_of_them(tmp_path: Path) -> None:
    found = [
        result(
            tmp_path / str(seed),
            *RUN,
            f"seed={seed}",
            config={"seed": seed, "method": {"name": "memo"}, "benchmark": {"name": "digits", "order_seed": 1}},
            provenance={"date": f"2030-01-0{seed}"},
        )
        for seed in (1, 2, 3)
    ]
    assert pick_from(found)(RUN) == found


def test_a_preset_is_the_same_as_a_key_and_as_a_group(tmp_path: Path) -> None:
    found = result(tmp_path, "+method=mnemonics", "preset=released", "seed=1")
    compared = compare(
        Table("t", "", "", "", 0.0, "", (), (Row("r", ("+method=mnemonics", "method.preset=released"), "cnn", {}),)),
        pick_from([found]),
    )
    assert compared.rows[0].results == (found,)
    assert compared.rows[0].changes == ("seed=1",)
