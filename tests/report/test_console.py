"""Compared tables on the console."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from mmcl.report.console import show
from mmcl.results.comparison import compare, pick_from
from mmcl.results.tables import Row
from tests.report.made import DATASET_RUN, dataset_result, datasets_table


def shown(folder: Path, *rows: Row, seeds: int = 1, width: int = 80) -> list[str]:
    config = {"method": {"name": "dmn"}, "benchmark": {"name": "clip/all11"}}
    found = [
        dataset_result(folder / str(seed), *DATASET_RUN, f"seed={seed}", config={"seed": seed, **config})
        for seed in range(seeds)
    ]
    console = Console(file=io.StringIO(), width=width)
    show(compare(datasets_table(*rows), pick_from(found)), console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def words(lines: list[str], name: str) -> list[str]:
    (line,) = [line for line in lines if name in line]
    return line.replace("│", " ").split()


def test_data_sets_have_lines_for_ours_printed_and_difference(tmp_path: Path) -> None:
    row = Row("oracle", DATASET_RUN, "fused", {"acc_oracle_curve": (86.0, None, 60.0)}, "log")
    lines = shown(tmp_path, row)
    heading = next(line for line in lines if "Pets" in line).replace("┃", " ").split()
    assert heading == ["row", "Pets", "DTD", "Cars", "mean"]
    assert words(lines, "ours") == ["oracle", "*", "ours", "87.00", "46.00", "66.00", "66.33"]
    assert words(lines, "printed") == ["printed", "86.00", "60.00"]
    assert words(lines, "diff") == ["diff", "+1.00", "+6.00"]
    assert "forgetting" not in "".join(lines)


def test_figures_of_data_sets_are_whole_on_a_narrow_terminal(tmp_path: Path) -> None:
    row = Row("a row with a rather long label", DATASET_RUN, "text", {})
    assert words(shown(tmp_path, row, width=20), "ours")[-4:] == ["80.00", "40.00", "60.00", "60.00"]


def test_several_seeds_have_a_line_for_their_spread(tmp_path: Path) -> None:
    lines = shown(tmp_path, Row("text", DATASET_RUN, "text", {}), seeds=3)
    assert words(lines, "ours") == ["text,", "3", "seeds", "ours", "80.00", "40.00", "60.00", "60.00"]
    assert words(lines, "spread") == ["spread", "0.00", "0.00", "0.00", "0.00"]


def test_a_row_without_a_run_has_its_label_alone(tmp_path: Path) -> None:
    lines = shown(tmp_path, Row("text", DATASET_RUN, "text", {}), Row("other", ("+method=coop",), "coop", {}))
    assert words(lines, "other") == ["other"]
