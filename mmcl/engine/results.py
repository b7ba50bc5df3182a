"""What a run leaves behind: ``result.json`` and the line that is printed after each task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmcl.benchmarks.base import Benchmark
from mmcl.engine.provenance import provenance
from mmcl.engine.run_directory import MetricsFile
from mmcl.protocol import DatasetTask, StreamTask, Task

SCHEMA = 1
MEBIBYTE = 2**20


def result_of(
    *,
    status: str,
    error: str | None,
    identity: str,
    config: dict[str, Any],
    command: str,
    benchmark: Benchmark,
    readouts: Mapping[str, dict[str, object]],
    byte_reports: list[dict[str, Any]],
    metrics: MetricsFile,
    wall_seconds: float,
) -> dict[str, Any]:
    """Assemble the content of ``result.json``; accuracies are fractions, bytes are bytes."""
    return {
        "schema": SCHEMA,
        "status": status,
        "error": error,
        "identity": identity,
        "command": command,
        "config": config,
        "task_sizes": benchmark.task_sizes,
        "task_names": benchmark.task_names,
        "class_names": benchmark.class_names,
        "readouts": dict(readouts),
        "bytes": byte_reports,
        "timing": {"wall_seconds": wall_seconds, "stages": _stage_timing(metrics)},
        "provenance": {**provenance(), "seed": config["seed"]},
    }


def _stage_timing(metrics: MetricsFile) -> list[dict[str, Any]]:
    """Sum the seconds of each stage's epochs, in the order in which they were run."""
    stages = dict.fromkeys((task, stage) for task, stage, _, metric in metrics.rows if metric == "seconds")
    timing = []
    for task, stage in stages:
        seconds, epochs = metrics.total(int(task), stage, "seconds")
        images, _ = metrics.total(int(task), stage, "images")
        timing.append(
            {
                "task": int(task),
                "stage": stage,
                "epochs": epochs,
                "seconds": seconds,
                "images_per_second": images / seconds if seconds else None,
            }
        )
    return timing


def with_oracles(values: dict[str, Any], oracles: list[dict[str, Any]]) -> dict[str, Any]:
    """Add to a readout's figures what its oracle reached, choosing by test labels: named apart, never the headline.

    Args:
        values: figures of the readout.
        oracles: what the oracle computed after each task; empty where there is none.
    """
    if not oracles:
        return values
    curve = [entry["accuracy"] for entry in oracles]
    choices = [{name: value for name, value in entry.items() if name != "accuracy"} for entry in oracles]
    return {
        **values,
        "acc_oracle": sum(curve) / len(curve),
        "acc_oracle_curve": curve,
        "acc_oracle_choices": choices,
    }


def figure_lines(result: Mapping[str, Any]) -> list[str]:
    """Return a line for each task of a finished ``result.json``: the accuracies of every readout after it."""
    curves = {name: figures["accuracy_curve"] for name, figures in result["readouts"].items()}
    names = result.get("task_names") or [""] * max(map(len, curves.values()))
    return [
        f"task {index + 1:>2}/{len(names)}  {name}  "
        + "  ".join(f"{readout} {100 * curve[index]:5.2f}" for readout, curve in curves.items() if _has(curve, index))
        for index, name in enumerate(names)
    ]


def _has(curve: Sequence[float | None], index: int) -> bool:
    return index < len(curve) and curve[index] is not None


def task_line(task: Task, task_count: int, accuracies: Mapping[str, float | None], report: Mapping[str, Any]) -> str:
    """Return the line that a person wants after each task."""
    answers = "  ".join(f"{name} {100 * value:5.2f}" for name, value in accuracies.items() if value is not None)
    model = report["model_bytes"] + report["head_bytes"] + report["buffer_bytes"]
    if isinstance(task, DatasetTask):
        what, rows = f"{task.name}  classes {task.size:>4}", "features"
    elif isinstance(task, StreamTask):
        what, rows = task.name, "samples"
    else:
        what, rows = f"classes {task.seen:>4}", "images"
    return (
        f"task {task.index + 1:>2}/{task_count}  {what}  {answers or 'no answer yet'}  "
        f"memory {report['exemplars']} {rows} {_size(report['memory_bytes'])}  model {_size(model)}"
    )


def _size(count: int) -> str:
    """Return a number of bytes in MiB, or in KiB where that would be nothing."""
    return f"{count / MEBIBYTE:.2f} MiB" if count == 0 or count >= MEBIBYTE / 100 else f"{count / 1024:.2f} KiB"
