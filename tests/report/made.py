"""Results as the engine writes them, made for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mmcl.results.store import Result, find_results
from mmcl.results.tables import Row, Table

CURVE = [0.9, 0.7, 0.6]
DATASET_RUN = ("+method=dmn", "benchmark=clip/all11")
DATASETS = ["oxford_pets", "dtd", "stanford_cars"]


def content(command: str = "python -m mmcl.run +method=memo", **changes: Any) -> dict[str, Any]:
    """Return a ``result.json`` of three tasks with two classes each."""
    figures = {
        "accuracy_matrix": [[0.9, None, None], [0.6, 0.8, None], [0.5, 0.5, 0.8]],
        "accuracy_curve": CURVE,
        "top5_curve": [1.0, 0.9, 0.8],
        "average_incremental_accuracy": sum(CURVE) / 3,
        "last_accuracy": CURVE[-1],
        "forgetting": 0.35,
        "first_task_forgetting": 0.4,
        "backward_transfer": -0.35,
        "forward_transfer": None,
    }
    size = {"task": 2, "model_bytes": 2**20, "memory_bytes": 2**19, "exemplars": 100}
    made = {
        "schema": 1,
        "status": "finished",
        "identity": "0123456789abcdef",
        "config": {
            "seed": 1993,
            "method": {"name": "memo"},
            "benchmark": {"name": "digits", "base": 0, "increment": 2},
        },
        "command": command,
        "readouts": {"cnn": figures, "nme": {**figures, "last_accuracy": 0.5}},
        "task_sizes": [2, 2, 2],
        "class_names": list("abcdef"),
        "bytes": [{**size, "paper_model_bytes": 2**20, "paper_memory_bytes": 2**20}],
        "timing": {
            "wall_seconds": 75.0,
            "stages": [{"task": 0, "stage": "representation", "seconds": 3.5, "images_per_second": 900.0}],
        },
        "provenance": {
            "commit": "abc",
            "date": "2030-01-01T00:00:00",
            "versions": {"torch": "2.6"},
            "seed": 1993,
        },
    }
    return {**made, **changes}


def write(folder: Path, made: dict[str, Any], confusion: str | None = None) -> Path:
    """Write a result, and a confusion matrix of its readout ``cnn`` beside it; return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "result.json"
    path.write_text(json.dumps(made))
    if confusion is not None:
        (folder / "confusion_cnn.csv").write_text(confusion)
    return path


def result(folder: Path, *overrides: str, **changes: Any) -> Result:
    """Write a result that the given overrides produced, and read it back."""
    write(folder, content(" ".join(["python -m mmcl.run", *overrides]), **changes))
    (found,), problems = find_results(folder)
    assert not problems
    return found


def dataset_content(command: str = "python -m mmcl.run +method=dmn", **changes: Any) -> dict[str, Any]:
    """Return a ``result.json`` of three data sets with two, three and two classes."""

    def figures(*curve: float) -> dict[str, Any]:
        matrix: list[list[float | None]] = [[None] * len(curve) for _ in curve]
        for task, value in enumerate(curve):
            matrix[task][task] = value
        return {
            "accuracy_matrix": matrix,
            "accuracy_curve": list(curve),
            "top5_curve": [1.0 for _ in curve],
            "average_incremental_accuracy": sum(curve) / len(curve),
            "last_accuracy": curve[-1],
            "forgetting": None,
            "backward_transfer": None,
            "forward_transfer": None,
        }

    oracle = {
        "acc_oracle": 1.99 / 3,
        "acc_oracle_curve": [0.87, 0.46, 0.66],
        "acc_oracle_choices": [{"weight_dynamic": 0.30000001192092896, "weight_static": 0.0}] * 3,
    }
    dataset_run = {
        "config": {"seed": 0, "method": {"name": "dmn"}, "benchmark": {"name": "clip/all11"}},
        "readouts": {"text": figures(0.8, 0.4, 0.6), "fused": {**figures(0.85, 0.45, 0.65), **oracle}},
        "task_sizes": [2, 3, 2],
        "task_names": DATASETS,
        "class_names": list("abcdefg"),
    }
    return content(command, **{**dataset_run, **changes})


def dataset_result(folder: Path, *overrides: str, **changes: Any) -> Result:
    """Write a result over data sets that the given overrides produced, and read it back."""
    write(folder, dataset_content(" ".join(["python -m mmcl.run", *overrides]), **changes))
    (found,), problems = find_results(folder)
    assert not problems
    return found


def datasets_table(*rows: Row) -> Table:
    """Return a table over the data sets of :func:`dataset_content`."""
    return Table("d", "Data sets", "Paper", "table 3", 2.0, "none", (), rows, columns=("Pets", "DTD", "Cars"))
