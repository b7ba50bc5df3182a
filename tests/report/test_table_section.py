"""Rows of the page: verdicts, commands, costs, and where they are from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mmcl.report.table_section import TableView, table_views, verdict_of
from mmcl.results.comparison import Cell, compare, pick_from
from mmcl.results.costs import costs_of, hardware_of, images_per_second
from mmcl.results.store import find_results
from mmcl.results.tables import Row, SweepPoint, Table
from tests.report.made import content, result, write

MEMO = ("+method=memo", "method.note='a b'")


def view_of(folder: Path, *rows: Row, **changes: Any) -> TableView:
    results, _ = find_results(folder)
    table = Table("memo/x", "T", "P", "table 1", 2.0, "", (), rows, **changes)
    (view,) = table_views([compare(table, pick_from(results))], {})
    return view


def seeded(folder: Path, *seeds: int, **changes: Any) -> None:
    for seed in seeds:
        command = f"python -m mmcl.run +method=memo \"method.note='a b'\" seed={seed}"
        write(folder / str(seed), content(command, config={**content()["config"], "seed": seed}, **changes))


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ([0.5, -1.0], ("within", "")),
        ([2.0], ("within", "")),
        ([2.5], ("outside", "")),
        ([0.5, 2.5, -7.0], ("outside", "2 of 3")),
        ([None, 0.0], ("within", "")),
        ([None], ("no print", "")),
    ],
)
def test_a_row_is_outside_where_any_figure_is(
    tmp_path: Path, differences: list[float | None], expected: tuple[str, str]
) -> None:
    seeded(tmp_path, 1)
    (row,) = view_of(tmp_path, Row("MEMO", MEMO, "cnn", {})).rows
    cells = [
        Cell("last_accuracy", 50 + (off or 0), printed=None if off is None else 50, tolerance=2.0)
        for off in differences
    ]
    assert verdict_of(row.entry, cells) == expected


def test_what_was_not_run_says_so_and_how(tmp_path: Path) -> None:
    sweep = tuple(SweepPoint(size, (*MEMO, f"memory.size={size}")) for size in (1, 2))
    command = "python -m mmcl.run +method=memo \"method.note='a b'\" memory.size=1"
    write(tmp_path, content(command))
    rows = (
        Row("DER", ("+method=der",), "cnn", {}),
        Row("Sweep", None, "cnn", {}, sweep=sweep),
        Row("GEM", None, "cnn", {}),
    )
    view = view_of(tmp_path, *rows)
    assert [(row.verdict, row.detail) for row in view.rows] == [
        ("not run", ""),
        ("not run", "1 of 2 runs"),
        ("printed only", ""),
    ]
    assert view.rows[0].commands.splitlines() == ["mmcl reproduce memo/x --rows DER", "python -m mmcl.run +method=der"]
    assert len(view.rows[1].commands.splitlines()) == 3
    assert view.rows[2].commands == ""
    assert (view.measured, view.verdicts["not run"]) == (0, 2)


def test_commands_name_all_seeds_once_and_stay_quoted(tmp_path: Path) -> None:
    seeded(tmp_path, 1, 2)
    (row,) = view_of(tmp_path, Row("MEMO", MEMO, "cnn", {})).rows
    first, *runs = row.commands.splitlines()
    assert first == "mmcl reproduce memo/x --rows MEMO seed=1,2"
    assert runs == [f"python -m mmcl.run +method=memo \"method.note='a b'\" seed={seed}" for seed in (1, 2)]


def test_columns_without_a_print_have_no_place_for_one(tmp_path: Path) -> None:
    seeded(tmp_path, 1)
    view = view_of(tmp_path, Row("MEMO", MEMO, "cnn", {"last_accuracy": 50.0}, "paper"))
    assert dict(zip(view.compared.columns, view.printed, strict=True)) == {
        "average_incremental_accuracy": False,
        "last_accuracy": True,
    }


def test_tables_of_one_name_have_addresses_of_their_own(tmp_path: Path) -> None:
    table = Table("Memo/x y", "T", "P", "table 1", 2.0, "", (), (Row("M", MEMO, "cnn", {}),))
    compared = compare(table, pick_from([]))
    assert [view.anchor for view in table_views([compared, compared], {})] == ["table-memo-x-y", "table-memo-x-y-2"]


def test_costs_are_means_over_runs(tmp_path: Path) -> None:
    stages = [
        {"seconds": 1.0, "images_per_second": 100.0},
        {"seconds": 3.0, "images_per_second": 20.0},
        {"seconds": 9.0},
    ]
    first = result(tmp_path / "a", *MEMO, timing={"wall_seconds": 10.0, "stages": stages})
    second = result(
        tmp_path / "b",
        *MEMO,
        timing={"wall_seconds": 20.0},
        bytes=[{"model_bytes": 2, "memory_bytes": 3, "teacher_bytes": 9}],
    )
    assert images_per_second(first) == 40.0
    costs = costs_of([first, second])
    assert (costs.seconds, costs.images_per_second) == (15.0, 40.0)
    assert costs.kept_bytes == (2**20 + 2**19 + 5) / 2
    nothing = costs_of([result(tmp_path / "c", *MEMO, timing={}, bytes=[])])
    assert (nothing.seconds, nothing.images_per_second, nothing.kept_bytes) == (None, None, None)


@pytest.mark.parametrize(
    ("hardware", "words"),
    [
        ({"machine": "x86_64", "cpus": 2, "threads": 1, "gpus": []}, "x86_64, 2 CPUs, 1 thread"),
        ({"machine": "x86_64", "cpus": 16, "threads": 8, "gpus": ["A", "A"]}, "2 × A, 16 CPUs, 8 threads"),
        ({"machine": "arm64"}, "arm64"),
        (None, "unknown hardware"),
    ],
)
def test_hardware_is_told_in_words(tmp_path: Path, hardware: Any, words: str) -> None:
    assert hardware_of(result(tmp_path, *MEMO, provenance={"hardware": hardware})) == words
