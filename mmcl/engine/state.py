"""Where a run is in its sequence, saved between stages so that the same command goes on from there."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmcl.benchmarks.base import Benchmark
from mmcl.engine.versions import Versions, tensors
from mmcl.methods.base import Method
from mmcl.protocol import Task
from mmcl.randomness import key


@dataclass
class SequenceState:
    """All that a resumed run needs; tensors and plain types only.

    Attributes:
        task: index of the task to go on with; the number of tasks when all are done.
        stages_done: finished stages of that task.
        method: the method's ``state_dict`` at this point; None before the first task.
        readouts: counts of each readout's metrics.
        oracles: of each finished task, what was chosen by its test labels, by readout.
        bytes: byte report after each finished task.
        predictions: digests of the files that hold the answers of each finished task, by their names.
        wall_seconds: time spent so far.
    """

    task: int = 0
    stages_done: int = 0
    method: dict[str, Any] | None = None
    readouts: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    oracles: list[dict[str, Any]] = field(default_factory=list)
    bytes: list[dict[str, Any]] = field(default_factory=list)
    predictions: dict[str, str] = field(default_factory=dict)
    wall_seconds: float = 0.0

    @property
    def position(self) -> int:
        """A number that grows with every saved state."""
        return self.task * 100 + self.stages_done


class StateFile:
    """The versions of a run's sequence state; the last two stay, so that a damaged file costs one stage."""

    def __init__(self, folder: Path) -> None:
        self.versions = Versions(folder, "sequence")

    def save(self, state: SequenceState) -> None:
        """Write a state, whole or not at all."""
        self.versions.write(state.position, tensors({**vars(state)}))

    def load(self) -> SequenceState:
        """Return the newest good state, or that of a run which has not begun."""
        path = self.versions.newest()
        return SequenceState(**torch.load(path, map_location="cpu", weights_only=True)) if path else SequenceState()


def grow(method: Method[Any], task: Task, seed: int) -> None:
    """Change the structure of a method for a task; what is drawn for it depends on seed and task alone."""
    torch.manual_seed(key(seed, task.index, "grow"))
    method.grow(task)


def restore_method(method: Method[Any], benchmark: Benchmark, state: SequenceState, seed: int) -> None:
    """Bring a fresh method to where a saved state is."""
    assert state.method is not None
    inside_task = state.stages_done > 0
    for index in range(state.task + inside_task):
        grow(method, benchmark.task(index), seed)
    method.load_state_dict(state.method)
