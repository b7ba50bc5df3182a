"""Compared tables as CSV, Markdown and LaTeX."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmcl.errors import UserError
from mmcl.report.written import TEX, as_csv, as_latex, as_markdown, latex_text, markdown_text, write_tables
from mmcl.results.comparison import ComparedTable, Comparison, compare, pick_from
from mmcl.results.tables import Row, SweepPoint, Table
from tests.report.made import DATASET_RUN, dataset_result, datasets_table, result

RUN = ("+method=memo", "memory.size=100")
PRINTED = {"last_accuracy": 61.5, "accuracy_curve": (91.0, None, 61.5)}
LABELS = st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=30)


def table(*rows: Row) -> Table:
    return Table("memo/small", "Small & fast", "Paper, ICLR 2023", "table 1", 2.0, "none", (), rows)


def compared(folder: Path) -> ComparedTable:
    """Return a table with a row of two seeds and printed values, one that was not run, and one of a changed run."""
    config = {"method": {"name": "memo"}, "benchmark": {"name": "digits"}}
    found = [result(folder / str(seed), *RUN, f"seed={seed}", config={**config, "seed": seed}) for seed in (1, 2)]
    changed = result(folder / "short", "+method=der", "seed=5", config={**config, "seed": 5})
    rows = (
        Row("MEMO", RUN, "cnn", PRINTED, "paper"),
        Row("WA", ("+method=wa",), "cnn", {"last_accuracy": 50.0}, "unverified"),
        Row("DER", ("+method=der",), "cnn", {}),
    )
    return compare(table(*rows), pick_from([*found, changed]))


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(text.splitlines()))


def unescaped(text: str) -> str:
    """Return what LaTeX sets for text whose special characters are escaped."""
    back = {escaped: character for character, escaped in TEX.items()}
    return re.sub("|".join(map(re.escape, sorted(back, key=len, reverse=True))), lambda found: back[found[0]], text)


def test_csv_has_a_line_for_each_figure_of_each_row(tmp_path: Path) -> None:
    lines = read(as_csv(compared(tmp_path)))
    memo = {(line["figure"], line["entry"]): line for line in lines if line["row"] == "MEMO"}
    last = memo["last_accuracy", ""]
    assert (float(last["ours"]), float(last["spread"]), last["seeds"]) == (60.0, 0.0, "2")
    assert (last["printed"], float(last["difference"]), last["within"]) == ("61.5", -1.5, "True")
    assert (last["table"], last["readout"], last["source"]) == ("memo/small", "cnn", "paper")
    assert last["identities"] == "0123456789abcdef 0123456789abcdef"
    assert [memo["accuracy_curve", str(task)]["printed"] for task in (1, 2, 3)] == ["91.0", "", "61.5"]
    assert float(memo["accuracy_curve", "1"]["ours"]) == 90
    (missing,) = [line for line in lines if line["row"] == "WA" and line["figure"] == "last_accuracy"]
    assert (missing["ours"], missing["seeds"], missing["printed"], missing["difference"]) == ("", "0", "50.0", "")


def test_command_makes_the_runs_of_a_row(tmp_path: Path) -> None:
    commands = {line["row"]: line["command"] for line in read(as_csv(compared(tmp_path)))}
    assert commands == {
        "MEMO": "python -m mmcl.run -m +method=memo memory.size=100 seed=1,2",
        "WA": "python -m mmcl.run +method=wa",
        "DER": "python -m mmcl.run +method=der seed=5",
    }


def test_command_of_a_sweep_has_a_run_for_each_budget() -> None:
    budgets = (SweepPoint(1.0, ("+method=memo", "memory.size=1")), SweepPoint(2.0, ("+method=memo", "memory.size=2")))
    row = Row("MEMO", None, "cnn", {"auc_average": 1.0}, "paper", sweep=budgets)
    lines = read(as_csv(compare(table(row), pick_from([]))))
    assert {line["command"] for line in lines} == {
        "python -m mmcl.run +method=memo memory.size=1 && python -m mmcl.run +method=memo memory.size=2"
    }
    assert {line["figure"] for line in lines} == {"auc_average"}


def test_markdown_has_printed_values_beside_ours(tmp_path: Path) -> None:
    lines = as_markdown(compared(tmp_path)).splitlines()
    assert lines[0] == "# Small & fast"
    assert lines[2:7] == [
        "|  | seeds | average | last | printed |",
        "|---|---|---|---|---|",
        "| MEMO | 2 | 73.33 ± 0.00 | 60.00 ± 0.00 | 61.50 |",
        "| WA |  |  |  | 50.00 |",
        r"| DER \* | 1 | 73.33 | 60.00 |  |",
    ]
    notes = "\n".join(lines[8:])
    assert "Printed values: Paper, ICLR 2023, table 1; tolerance 2." in notes
    assert r"\* with seed=5" in notes
    assert "could not be verified: WA" in notes


def test_printed_values_of_data_sets_are_below_ours(tmp_path: Path) -> None:
    printed = Row("DMN", DATASET_RUN, "fused", {"accuracy_curve": (86.0, None, 64.0)}, "paper")
    only_printed = Row("TPT", None, "tpt", {"accuracy_curve": (80.0, 40.0, 60.0)}, "paper")
    found = dataset_result(tmp_path, *DATASET_RUN)
    lines = as_markdown(compare(datasets_table(printed, only_printed), pick_from([found]))).splitlines()
    assert lines[2] == "|  | Pets | DTD | Cars | mean |"
    assert lines[4:7] == [
        "| DMN | 85.00 | 45.00 | 65.00 | 65.00 |",
        "| DMN, printed | 86.00 |  | 64.00 |  |",
        "| TPT, printed | 80.00 | 40.00 | 60.00 | 60.00 |",
    ]


def test_latex_is_a_table_of_booktabs(tmp_path: Path) -> None:
    text = as_latex(compared(tmp_path))
    assert r"\label{tab:memo/small}" in text
    assert r"\caption{Small \& fast. Printed values: Paper, ICLR 2023, table 1; tolerance 2." in text
    assert r"\begin{tabular}{lrrrr}" in text
    assert r"MEMO & 2 & 73.33 $\pm$ 0.00 & 60.00 $\pm$ 0.00 & 61.50 \\" in text
    assert [text.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1, 1, 1]


def test_tables_are_written_by_name(tmp_path: Path) -> None:
    found = compared(tmp_path / "runs")
    written = write_tables([found], tmp_path / "tables", ["csv", "latex", "markdown"])
    assert written == [tmp_path / f"tables/memo/small.{ending}" for ending in ("csv", "tex", "md")]
    assert [path.read_text() for path in written] == [as_csv(found), as_latex(found), as_markdown(found)]
    assert sorted(path for path in (tmp_path / "tables").rglob("*") if path.is_file()) == sorted(written)
    with pytest.raises(UserError, match="Did you mean 'latex'"):
        write_tables([found], tmp_path / "tables", ["latx"])


@given(LABELS, st.floats(0, 100), st.floats(0, 10))
def test_csv_gives_back_text_and_numbers(label: str, ours: float, spread: float) -> None:
    row = Row(label, RUN, "cnn", {"last_accuracy": 61.5}, "paper")
    entry = Comparison(row, {"last_accuracy": ours}, spread={"last_accuracy": spread})
    lines = list(csv.DictReader(as_csv(ComparedTable(table(row), (entry,))).split("\n")))
    (line,) = [line for line in lines if line["figure"] == "last_accuracy"]
    assert (line["row"], float(line["ours"]), float(line["spread"])) == (label, ours, spread)


@given(LABELS)
def test_latex_text_can_be_read_back(text: str) -> None:
    escaped = latex_text(text)
    assert unescaped(escaped) == " ".join(text.split())
    bare = re.sub(r"\\[&%$#_{}]|\\text\w+\{\}|\$\\pm\$|\{[*\[]\}", "", escaped)
    assert not set(bare) & set(r"\&%$#_{}~^<>|*[")


@given(LABELS)
def test_markdown_text_stays_in_its_cell(text: str) -> None:
    escaped = markdown_text(text)
    assert re.sub(r"\\(.)", r"\1", escaped) == " ".join(text.split())
    assert not re.search(r"[|*`<>\[\]]", re.sub(r"\\.", "", escaped))
