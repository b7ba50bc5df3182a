"""Tables as data: strict reading, and the numbers of the shipped ones."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from pathlib import Path

import pytest
import yaml

from mmcl.config.locate import options
from mmcl.errors import UserError
from mmcl.results.tables import SOURCES, Table, find_tables, load_table, table_names, tables_named

TABLES = [load_table(path) for path in find_tables()]
METHODS = set(options("method"))
VALID = {
    "title": "Title",
    "paper": "Paper",
    "source": "table 1",
    "tolerance": 1.0,
    "cost": "none",
    "data": [],
    "rows": [{"label": "A", "overrides": ["+method=memo"], "readout": "cnn", "printed": {}}],
}


def written(tmp_path: Path, **changes: object) -> Path:
    path = tmp_path / "table.yaml"
    path.write_text(yaml.safe_dump({**VALID, **changes}))
    return path


def with_row(tmp_path: Path, **changes: object) -> Path:
    return written(tmp_path, rows=[{**VALID["rows"][0], **changes}])  # type: ignore[index]


def test_valid_table_is_read(tmp_path: Path) -> None:
    table = load_table(written(tmp_path))
    assert (table.name, table.rows[0].runs) == ("table", (("+method=memo",),))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tolerence": 1}, "unknown key 'tolerence'. Did you mean 'tolerance'?"),
        ({"tolerance": "small"}, "tolerance: expected a number, got 'small'"),
        ({"tolerance": True}, "tolerance: expected a number"),
        ({"rows": []}, "rows: expected a list"),
        ({"data": "cifar100"}, "data: expected a list of strings"),
        ({"columns": "Pets"}, "columns: expected a list of strings"),
        ({"hours": "many"}, "hours: expected a number, got 'many'"),
        ({"source": 3}, "source: expected text, got 3"),
        ({"rows": 2 * VALID["rows"]}, "rows[1]: label 'A' with readout cnn is that of rows[0]"),  # type: ignore[operator]
    ],
)
def test_wrong_key_of_a_table_names_file_and_key(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    path = written(tmp_path, **changes)
    with pytest.raises(UserError) as error:
        load_table(path)
    assert str(error.value).startswith(str(path))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"overides": []}, "rows[0]: unknown key 'overides'. Did you mean 'overrides'?"),
        ({"overrides": [1]}, "rows[0]: overrides: expected a list of strings"),
        ({"printed": {"last_acuracy": 1}}, "unknown figure 'last_acuracy'. Did you mean 'last_accuracy'?"),
        ({"printed": {"last_accuracy": "60"}, "source": "paper"}, "last_accuracy: expected a number"),
        (
            {"printed": {"accuracy_curve": 60}, "source": "paper"},
            "expected a list with one percentage per task",
        ),
        ({"printed": {"last_accuracy": 60}}, "key 'source' is missing: paper, survey"),
        ({"sweep": [{"memory_mb": 7.6, "overrides": []}]}, "overrides or a sweep, not both"),
        ({"overrides": None, "sweep": [{"memory": 7.6}]}, "sweep[0]: unknown key 'memory'"),
    ],
)
def test_wrong_key_of_a_row_names_row_and_key(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        load_table(with_row(tmp_path, **changes))


def test_curve_needs_an_entry_for_each_column(tmp_path: Path) -> None:
    row = {**VALID["rows"][0], "printed": {"accuracy_curve": [1, None]}, "source": "log"}  # type: ignore[index]
    assert load_table(written(tmp_path, rows=[row], columns=["A", "B"])).rows[0].printed == {
        "accuracy_curve": (1.0, None)
    }
    with pytest.raises(
        UserError, match=re.escape("accuracy_curve: expected 3 entries, one for each of the columns A, B, C")
    ):
        load_table(written(tmp_path, rows=[row], columns=["A", "B", "C"]))


def test_missing_key_is_named(tmp_path: Path) -> None:
    path = tmp_path / "table.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in VALID.items() if key != "paper"}))
    with pytest.raises(UserError, match="key 'paper' is missing"):
        load_table(path)


def test_broken_yaml_is_named(tmp_path: Path) -> None:
    path = tmp_path / "table.yaml"
    path.write_text("title: [")
    with pytest.raises(UserError, match="not valid YAML"):
        load_table(path)


def test_unknown_table_names_the_nearest() -> None:
    with pytest.raises(UserError, match="Did you mean 'memo/student'"):
        load_table("memo/studnet")


def test_shipped_tables_are_found_by_name() -> None:
    families = Counter(name.partition("/")[0] for name in table_names())
    assert families == {"quick": 1, "memo": 20, "dmn": 17, "mnemonics": 8, "memory_head": 11, "mml": 12, "planes": 7}
    assert load_table("memo/student").name == "memo/student"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("quick", ["quick"]),
        ("memo/cifar100_b0_inc10", ["memo/cifar100_b0_inc10"]),  # though others begin so
        ("dmn/table3", ["dmn/table3_rn50", "dmn/table3_vit_b16"]),
        ("memo/imagenet1000", ["memo/imagenet1000_b0_inc100_fair"]),
        ("mnemonics/", [name for name in table_names() if name.startswith("mnemonics/")]),
        ("all", table_names()),
    ],
)
def test_a_name_stands_for_itself_or_for_all_that_begin_so(name: str, expected: list[str]) -> None:
    assert [load_table(path).name for path in tables_named(name)] == expected


@pytest.mark.parametrize("name", ["mem", "memo/cifar10", "memo/cifar100_b0_inc", "", "/"])
def test_a_name_ends_at_a_word(name: str) -> None:
    with pytest.raises(UserError, match="Tables: dmn/ablation"):
        tables_named(name)


def test_a_file_is_a_table(tmp_path: Path) -> None:
    assert tables_named(str(written(tmp_path))) == [tmp_path / "table.yaml"]


@pytest.mark.parametrize("path", find_tables(), ids=lambda path: path.stem)
def test_a_shipped_table_says_what_it_is(path: Path) -> None:
    table = load_table(path)
    assert "hours" in yaml.safe_load(path.read_text())
    assert table.hours is None or table.hours > 0
    assert table.hours is None or "rough count" in table.cost
    for row in table.rows:
        assert (row.source in SOURCES) if row.printed else row.source is None, row.label
        assert row.printed or row.runs, row.label
    if any(row.printed for row in table.rows):
        assert table.source[0].isupper()
    else:
        assert table.source == "no printed values" or table.source.startswith("none: ")
    runs = re.match(r"(\d+) runs?\b", table.cost)
    assert runs is None or int(runs[1]) == len(table.runs)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_overrides_are_well_formed(table: Table) -> None:
    experiments = options("experiment")
    for overrides in (run for row in table.rows for run in row.runs):
        keys = [override.lstrip("+").split("=")[0] for override in overrides]
        assert len(set(keys)) == len(keys)
        chosen = dict(override.lstrip("+").split("=") for override in overrides)
        assert chosen.get("experiment") in experiments if "experiment" in chosen else chosen["method"] in METHODS


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_printed_figures_agree_with_each_other(table: Table) -> None:
    for row in table.rows:
        curve, average = (row.printed.get(name) for name in row.dataset_figures)
        if isinstance(curve, tuple) and isinstance(average, float) and None not in curve:
            assert statistics.fmean(curve) == pytest.approx(average, abs=0.02), row.label  # type: ignore[type-var]
            assert table.columns or curve[-1] == row.printed["last_accuracy"], row.label
        figures = {name: value for name, value in row.printed.items() if isinstance(value, float)}
        assert all(value > 0 for name, value in figures.items() if name not in ("forgetting", "forward_transfer"))


def test_some_printed_figures() -> None:
    memo = load_table("memo/cifar100_b0_inc10_fair").rows[4]
    assert (memo.label, memo.printed["average_incremental_accuracy"]) == ("MEMO", 72.37)
    labels = {row.label: row for row in load_table("memo/cifar100_b50_inc10").rows}
    assert labels["MEMO"].printed == {"average_incremental_accuracy": 69.39, "last_accuracy": 62.83}
    assert labels["PODNet"].runs == ()
    sweep = load_table("memo/imagenet100_memory").rows[4].sweep
    assert [point.memory_mb for point in sweep] == [329, 493, 755, 872, 1180, 1273]
    assert "memory.size=4171" in sweep[4].overrides


def test_number_and_sum_of_printed_curves() -> None:
    curves = [
        row.printed.get("accuracy_curve") for table in TABLES if table.name.startswith("memo/") for row in table.rows
    ]
    assert len([curve for curve in curves if curve is not None]) == 5 + 4 + 6
    der = load_table("memo/cifar100_b0_inc10_fair").rows[3].printed["accuracy_curve"]
    assert isinstance(der, tuple)
    assert sum(der) == pytest.approx(714.79)


def test_some_printed_figures_of_data_sets() -> None:
    log = {row.label: row for row in load_table("dmn/log_training_free_vit_b16").rows}
    fused = log["0 shots, fused, oracle weights"]
    assert (fused.test_tuned, fused.printed["acc_oracle"]) == (True, 70.10)
    assert fused.printed["acc_oracle_curve"][2:5] == (54.61, 91.88, 67.77)  # type: ignore[index]
    assert log["16 shots, static"].printed["accuracy_curve"][-1] == 80.94  # type: ignore[index]
    assert not log["0 shots, fused, fixed weights"].test_tuned
    learned = {row.label: row for row in load_table("dmn/log_few_shot_vit_b16").rows}
    assert "method.schedule_of.eurosat.lr=0.0001" in learned["4 shots, text"].runs[0]
    assert learned["8 shots, text"].runs[0] == ("+experiment=dmn/few_shot_vit_b16", "method.shots=8")


@pytest.mark.parametrize(("name", "slip", "mean"), [("rn50", 63.71, 63.37), ("vit_b16", 70.72, 70.47)])
def test_slip_of_the_paper_is_flagged_and_compared_by_its_entries(name: str, slip: float, mean: float) -> None:
    (row,) = [row for row in load_table(f"dmn/table3_{name}").rows if row.label == "DMN-ZS, oracle weights"]
    curve = row.printed["acc_oracle_curve"]
    assert isinstance(curve, tuple)
    assert statistics.fmean(curve) == pytest.approx(mean, abs=0.005)  # type: ignore[type-var]
    assert "acc_oracle" not in row.printed
    assert f"prints {slip}" in row.note


def test_every_figure_chosen_on_test_labels_has_an_honest_row_beside_it() -> None:
    for table in TABLES:
        honest = {row.runs for row in table.rows if not row.test_tuned and row.readout == "fused"}
        tuned = {row.runs for row in table.rows if row.test_tuned and row.runs}
        assert tuned <= honest or "ablation" in table.name, table.name
