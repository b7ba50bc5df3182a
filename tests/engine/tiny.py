"""Runs of a second or two, and what of them must be equal whatever happened in between."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mmcl.config.compose import compose_run
from mmcl.engine import sequence
from mmcl.engine.assemble import run
from mmcl.engine.state import StateFile

TINY = (
    "benchmark=digits",
    "benchmark.increment=5",
    "backbone=conv2",
    "backbone.width=4",
    "memory.size=60",
    "memory.per_class=null",
    "method.first_task.epochs=1",
    "method.first_task.batch_size=128",
    "method.first_task.lr=0.02",
    "method.later_tasks.epochs=4",
    "method.later_tasks.batch_size=128",
    "method.later_tasks.lr=0.02",
    "trainer=cpu",
)


def tiny(runs: Path, *overrides: str) -> list[str]:
    """Return the arguments of a run in two tasks, of one and of four epochs, below a folder."""
    given = {override.partition("=")[0].lstrip("+") for override in overrides}
    return [*(base for base in TINY if base.partition("=")[0] not in given), *overrides, f"paths.runs={runs}"]


def run_here(arguments: list[str]) -> Path:
    """Run in this process and return the path of ``result.json``."""
    return run(compose_run(arguments), "python -m mmcl.run")


def stop_after_each_save(arguments: list[str], starts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start a run several times; each start is stopped right after the first state that it saves."""
    save = sequence.Sequence._save

    def save_and_stop(self: sequence.Sequence) -> None:
        save(self)
        raise InterruptedError

    with monkeypatch.context() as patch:
        patch.setattr(sequence.Sequence, "_save", save_and_stop)
        for _ in range(starts):
            with pytest.raises(InterruptedError):
                run_here(arguments)


def directory_of(runs: Path) -> Path:
    """Return the directory of the only run below a folder."""
    (identity,) = runs.rglob("identity.json")
    return identity.parent


def read(result: Path) -> dict[str, Any]:
    """Return the content of a ``result.json``."""
    content: dict[str, Any] = json.loads(result.read_text())
    return content


def metric_rows(directory: Path) -> dict[tuple[str, ...], str]:
    """Return the figures of ``metrics.csv`` as they were written, without times; no line may be there twice."""
    with (directory / "metrics.csv").open(newline="") as file:
        _, *lines = csv.reader(file)
    rows = {tuple(line[:-1]): line[-1] for line in lines}
    assert len(rows) == len(lines)
    return {position: value for position, value in rows.items() if position[-1] != "seconds"}


def assert_same_outcome(result: Path, other: Path) -> None:
    """Compare what two runs left behind, bit for bit: figures, answers, weights, memory, and the course of training."""
    ours, theirs = read(result), read(other)
    for name in ("status", "identity", "task_sizes", "class_names", "readouts", "bytes"):
        assert ours[name] == theirs[name], name
    assert metric_rows(result.parent) == metric_rows(other.parent)
    states = [vars(StateFile(path.parent / "state").load()) for path in (result, other)]
    for state in states:
        state.pop("wall_seconds")
    assert_equal(*states)


def assert_equal(ours: Any, theirs: Any, where: str = "state") -> None:
    """Compare nested containers of tensors and plain types, bit for bit."""
    assert type(ours) is type(theirs), where
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), where
        for name in ours:
            assert_equal(ours[name], theirs[name], f"{where}.{name}")
    elif isinstance(ours, list):
        assert len(ours) == len(theirs), where
        for index, pair in enumerate(zip(ours, theirs, strict=True)):
            assert_equal(*pair, f"{where}[{index}]")
    elif isinstance(ours, torch.Tensor):
        assert ours.dtype == theirs.dtype, where
        assert torch.equal(ours, theirs), where
    else:
        assert ours == theirs, where
