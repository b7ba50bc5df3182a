"""The result store reads what it can and names what it cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmcl.results.store import find_results
from tests.report.made import DATASETS, content, dataset_content, dataset_result, write


def test_results_are_read_oldest_first(tmp_path: Path) -> None:
    write(tmp_path / "b/new", content(provenance={"date": "2031-01-01"}))
    write(tmp_path / "c/old", content(provenance={"date": "2029-01-01"}), "3,0\n1,2\n")
    results, problems = find_results(tmp_path)
    assert [result.path.parent.name for result in results] == ["old", "new"]
    assert problems == []
    assert np.array_equal(results[0].confusions["cnn"], [[3, 0], [1, 2]])
    assert results[0].label == "memo on digits B0 Inc2, seed 1993"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"schema": 1, "status": "fin', "Unterminated string"),
        ("[]", "expected a result of schema 1"),
        ('{"schema": 2}', "expected a result of schema 1"),
        ('{"schema": 1}', "key 'status': expected str, got NoneType"),
        ("\x00\xff", "Expecting value"),
    ],
)
def test_unreadable_result_is_named_and_skipped(tmp_path: Path, text: str, message: str) -> None:
    write(tmp_path / "good", content())
    bad = tmp_path / "bad" / "result.json"
    bad.parent.mkdir()
    bad.write_text(text)
    results, (problem,) = find_results(tmp_path)
    assert len(results) == 1
    assert problem.startswith(str(bad))
    assert message in problem


@pytest.mark.parametrize(
    "figures",
    [
        [],
        {"accuracy_matrix": [[0.5], [0.5, 0.5]]},
        {"accuracy_matrix": [["0.5"]]},
        {"accuracy_curve": 0.5},
        {"last_accuracy": "0.5"},
        {"acc_oracle_choices": [1.0]},
    ],
)
def test_figures_of_the_wrong_kind_are_named_and_skipped(tmp_path: Path, figures: object) -> None:
    write(tmp_path, content(readouts={"cnn": figures}))
    results, problems = find_results(tmp_path)
    assert results == []
    assert "readout 'cnn'" in problems[0]


def test_names_of_data_sets_are_read_and_others_have_none(tmp_path: Path) -> None:
    assert dataset_result(tmp_path / "named").task_names == tuple(DATASETS)
    for number, names in enumerate((None, [None, None, None])):
        write(tmp_path / f"unnamed/{number}", content(task_names=names))
    results, problems = find_results(tmp_path / "unnamed")
    assert ([result.task_names for result in results], problems) == ([(), ()], [])


@pytest.mark.parametrize(
    "changes",
    [
        {"command": "python -m mmcl.run method.prompts='a"},
        {"config": {"benchmark": "digits"}},
        {"config": {"trainer": None}},
        {"task_sizes": ["2"]},
        {"timing": {"stages": {"0": 1.0}}},
    ],
)
def test_parts_of_another_kind_are_named_and_skipped(tmp_path: Path, changes: dict[str, Any]) -> None:
    write(tmp_path, content(**changes))
    results, (problem,) = find_results(tmp_path)
    assert results == []
    assert str(next(iter(changes))) in problem


@pytest.mark.parametrize("names", ["dtd", [1, 2, 3], ["dtd"]])
def test_wrong_names_of_data_sets_are_named_and_skipped(tmp_path: Path, names: object) -> None:
    write(tmp_path, dataset_content(task_names=names))
    results, (problem,) = find_results(tmp_path)
    assert results == []
    assert "key 'task_names'" in problem


@pytest.mark.parametrize("confusion", ["1,2\n", "a,b\n1,2\n"])
def test_unreadable_confusion_matrix_is_named_and_left_out(tmp_path: Path, confusion: str) -> None:
    write(tmp_path, content(), confusion)
    (result,), problems = find_results(tmp_path)
    assert (result.confusions, problems) == ({}, [])
    (problem,) = result.confusion_problems
    assert "confusion_cnn.csv: skipped" in problem


def test_empty_folder_has_no_results(tmp_path: Path) -> None:
    assert find_results(tmp_path / "nothing") == ([], [])
