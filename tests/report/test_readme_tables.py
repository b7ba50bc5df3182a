"""The result tables of the README are those of the kept results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from mmcl.cli import main
from mmcl.config.locate import shipped_folder
from mmcl.errors import UserError
from mmcl.report.readme import KeptResults, fill, make_tables, refreshed, stale_lines
from mmcl.report.readme_layout import Layout, load_layout
from tests.report.made import DATASET_RUN, DATASETS, content, dataset_content, write

EXPERIMENTS = shipped_folder("experiments")
TABLE = {
    "title": "Title",
    "paper": "Paper",
    "source": "table 1",
    "tolerance": 1.0,
    "cost": "none",
    "data": [],
    "rows": [
        {"label": "MEMO, few", "overrides": ["+method=memo"], "readout": "cnn", "printed": {}},
        {"label": "MEMO, many", "overrides": ["+method=memo", "memory.size=9"], "readout": "cnn", "printed": {}},
        {"label": "DER, few", "overrides": ["+method=der"], "readout": "cnn", "printed": {}},
    ],
}


@pytest.fixture
def kept(tmp_path: Path) -> KeptResults:
    """Return kept results of two seeds, of one with a typed override more, and of data sets."""
    root = tmp_path / "experiments" / "results"
    for seed, last in ((1, 0.5), (2, 0.6)):
        figures = {"average_incremental_accuracy": 0.7, "last_accuracy": last, "accuracy_curve": [0.9, last]}
        config = {"seed": seed, "method": {"name": "memo"}, "benchmark": {"name": "digits"}}
        command = f"python -m mmcl.run +method=memo seed={seed}"
        write(root / "digits" / f"memo-{seed}", content(command, config=config, readouts={"cnn": figures}))
    write(root / "digits/memo-many", content("python -m mmcl.run +method=memo memory.size=9 method.alpha_aux=2"))
    write(root / "sets/dmn", dataset_content(f"python -m mmcl.run {' '.join(DATASET_RUN)}"))
    return KeptResults(root)


def layout(tmp_path: Path, **changes: Any) -> Layout:
    """Return a layout of few and many exemplars by method."""
    table = tmp_path / "table.yaml"
    table.write_text(yaml.safe_dump(TABLE))
    node = {
        "heading": "method",
        "cells": {"results": "digits", "table": str(table), "figure": "last_accuracy", "decimals": 1, "spread": True},
        "columns": [{"heading": size, "words": {"size": size}} for size in ("few", "many")],
        "rows": [{"label": "ours", "row": "MEMO, {size}"}],
        **changes,
    }
    path = tmp_path / "experiments" / "readme" / "digits.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(node))
    return load_layout(path)


def rows(layout: Layout, kept: KeptResults) -> list[str]:
    """Return the rows of a table below its headings."""
    return fill(layout, kept).splitlines()[2:]


def test_tables_of_the_readme_are_those_of_the_kept_results() -> None:
    readme = (EXPERIMENTS.parent / "README.md").read_text(encoding="utf-8")
    fresh = refreshed(readme, make_tables(EXPERIMENTS / "readme", KeptResults(EXPERIMENTS / "results")))
    stale = "\n".join(stale_lines(readme, fresh))
    assert not stale, f"type: mmcl readme\n{stale}"


def test_rows_and_columns_name_a_run_together(tmp_path: Path, kept: KeptResults) -> None:
    typed = [{"label": "ours", "row": "MEMO, {size}", "at": {"many": {"also": ["method.alpha_aux=2"]}}}]
    assert fill(layout(tmp_path, rows=typed), kept).splitlines() == [
        "| method | few | many |",
        "|---|---|---|",
        "| ours | 55.0 ± 7.1 | 60.0 |",
    ]


def test_overrides_stand_in_for_a_row_and_several_rows_share_a_cell(tmp_path: Path, kept: KeptResults) -> None:
    shown = [{"label": "typed", "overrides": ["+method=memo"], "readout": "cnn", "spread": False}]
    shown += [{"label": "listed", "row": ["MEMO, few", "MEMO, few"], "spread": False}]
    assert rows(layout(tmp_path, columns=[{"heading": "last"}], rows=shown), kept) == [
        "| typed | 55.0 |",
        "| listed | 55.0, 55.0 |",
    ]


def test_a_deviation_of_zero_is_not_shown(tmp_path: Path, kept: KeptResults) -> None:
    figures = ("average_incremental_accuracy", "last_accuracy")
    columns = [{"heading": figure, "figure": figure} for figure in figures]
    shown = [{"label": "ours", "row": "MEMO, few"}]
    assert rows(layout(tmp_path, columns=columns, rows=shown), kept) == ["| ours | 70.0 | 55.0 ± 7.1 |"]


def test_seeds_bytes_and_text_are_figures(tmp_path: Path, kept: KeptResults) -> None:
    columns = [{"heading": "seeds", "figure": "seeds"}, {"heading": "MiB", "figure": "paper_mib"}]
    columns += [{"heading": "size", "text": "{size} images"}]
    shown = [{"label": "ours", "row": "MEMO, few", "words": {"size": "few"}}]
    assert rows(layout(tmp_path, columns=columns, rows=shown), kept) == ["| ours | 2 | 2.0 | few images |"]


def test_entries_of_curves_are_data_sets(tmp_path: Path, kept: KeptResults) -> None:
    table = {**TABLE, "columns": DATASETS}
    table["rows"] = [{"label": "DMN", "overrides": list(DATASET_RUN), "readout": "fused", "printed": {}}]
    (tmp_path / "sets.yaml").write_text(yaml.safe_dump(table))
    cells = {"results": "sets", "table": str(tmp_path / "sets.yaml"), "figure": "accuracy_curve", "decimals": 0}
    columns = [{"heading": name, "entry": name} for name in ("dtd", "stanford_cars")]
    shown = [{"label": "fused", "row": "DMN"}, {"label": "text", "row": "DMN", "readout": "text"}]
    found = layout(tmp_path, cells=cells, columns=columns, rows=shown)
    assert rows(found, kept) == ["| fused | 45 | 65 |", "| text | 40 | 60 |"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": [{"label": "none", "row": "DER, {size}"}]}, "row 'none': no kept run gives any"),
        ({"rows": [{"label": "ours", "row": "MEMO, few"}, {"label": "b", "row": "MEMO few"}]}, "row 'b': no kept run"),
        ({"columns": [{"heading": "few", "words": {"size": "few"}}, {"heading": "b", "row": ""}]}, "no word 'size'"),
        ({"rows": [{"label": "ours", "row": "MEMO, {sizes}"}]}, "no word 'sizes'. Give it to the row or the column"),
        ({"rows": [{"label": "ours", "results": "digit", "row": "MEMO, few"}]}, "Did you mean 'digits'?"),
        ({"cells": {"results": "digits", "decimals": 1}}, "table, results and figure are needed"),
    ],
)
def test_what_stays_empty_is_named(tmp_path: Path, kept: KeptResults, changes: dict[str, Any], message: str) -> None:
    found = layout(tmp_path, **changes)
    with pytest.raises(UserError) as error:
        fill(found, kept)
    assert str(error.value).startswith(str(found.path))
    assert message in str(error.value)


def test_a_column_that_nothing_fills_is_named(tmp_path: Path, kept: KeptResults) -> None:
    with pytest.raises(UserError, match="column 'many': no kept run gives any of its figures"):
        fill(layout(tmp_path), kept)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cells": {"decimal": 1}}, "cells: unknown key 'decimal'. Did you mean 'decimals'?"),
        ({"cells": {"decimals": "1"}}, "cells: decimals: expected int, got '1'"),
        ({"cells": {"spread": 1}}, "cells: spread: expected bool, got 1"),
        ({"columns": [{"figure": "last_accuracy"}]}, "columns[0]: key 'heading' is missing"),
        ({"columns": []}, "columns: expected a list of at least one"),
        ({"rows": [{"label": "a", "also": "seed=1"}]}, "rows[0]: also: expected a list of strings"),
        ({"rows": [{"label": "a", "words": ["b"]}]}, "rows[0]: words: expected such as"),
        ({"rows": [{"label": "a", "at": {"fw": {}}}]}, "rows[0]: at: no column 'fw'. Did you mean 'few'?"),
        ({"row": []}, "expected keys heading, cells, columns, rows"),
    ],
)
def test_a_wrong_layout_names_file_and_key(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        layout(tmp_path, **changes)
    assert str(error.value).startswith(str(tmp_path))
    assert message in str(error.value)


def test_only_tables_between_marks_change() -> None:
    readme = "before\n<!-- mmcl readme: a -->\n| old |\n<!-- end -->\nafter\n"
    fresh = refreshed(readme, {"a": "| x |\n| y |"})
    assert fresh == "before\n<!-- mmcl readme: a -->\n| x |\n| y |\n<!-- end -->\nafter\n"
    assert refreshed(fresh, {"a": "| x |\n| y |"}) == fresh
    assert stale_lines(readme, fresh) == ["@@ -3 +3,2 @@", "-| old |", "+| x |", "+| y |"]
    assert not stale_lines(fresh, fresh)


@pytest.mark.parametrize(
    ("readme", "message"),
    [
        ("<!-- mmcl readme: a -->\n| x |\n", "a table has no end"),
        ("<!-- mmcl readme: a -->\n<!-- mmcl readme: b -->\n<!-- end -->\n", "a table has no end"),
        ("<!-- mmcl readme: digit -->\n<!-- end -->\n", "no table 'digit'. Did you mean 'digits'?"),
        ("no table here", "no place for digits"),
    ],
)
def test_wrong_marks_are_named(readme: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        refreshed(readme, {"digits": "| x |"})


def test_results_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no result.json below it"):
        KeptResults(tmp_path)
    (tmp_path / "result.json").write_text("{")
    with pytest.raises(UserError, match="result.json: skipped"):
        KeptResults(tmp_path)


def test_command_checks_and_writes(
    tmp_path: Path, kept: KeptResults, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    layout(tmp_path, columns=[{"heading": "few", "words": {"size": "few"}}])
    monkeypatch.setattr("mmcl.config.locate.shipped_folder", lambda name: tmp_path / name)
    marks = [f"<!-- mmcl readme: {name} -->\n<!-- end -->\n" for name in ("digits", "paper_tables")]
    readme = tmp_path / "README.md"
    readme.write_text("".join(marks))

    def typed(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as end:
            main(["readme", *arguments])
        return int(end.value.code or 0), capsys.readouterr().out

    code, said = typed("--check")
    assert (code, readme.read_text()) == (1, "".join(marks))
    assert "+| ours | 55.0 ± 7.1 |" in said
    assert "stale. Type: mmcl readme" in said
    assert typed()[0] == 0
    assert "| ours | 55.0 ± 7.1 |" in readme.read_text()
    assert typed("--check")[0] == 0


def test_without_a_readme_the_command_says_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mmcl.config.locate.shipped_folder", lambda name: tmp_path / name)
    with pytest.raises(SystemExit) as end:
        main(["readme"])
    assert end.value.code == 2
    assert "only in a checkout" in capsys.readouterr().err
