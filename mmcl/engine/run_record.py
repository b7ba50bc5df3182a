"""A finished run as its files tell it, and its figures counted anew from the kept answers."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from torchmetrics import MetricCollection

from mmcl.config.components import locate
from mmcl.engine.predictions import Predictions, scores_like
from mmcl.engine.run_directory import read_of_run
from mmcl.engine.state import SequenceState, StateFile
from mmcl.errors import MissingFileError, UserError
from mmcl.metrics.readouts import confusion_matrix, readout_metrics
from mmcl.metrics.stream_metrics import stream_metrics
from mmcl.protocol import DatasetTask, StreamTask, Task

NEEDED = ("status", "identity", "config", "command", "readouts", "task_sizes", "class_names", "bytes", "provenance")
AT_ONCE = 2000  # samples whose scores are rebuilt at once


@dataclass(frozen=True)
class RunRecord:
    """What a finished run left.

    Attributes:
        folder: its directory.
        result: content of ``result.json``.
        config: its configuration, with the paths of this machine.
        state: the newest good state; an empty one where there is none.
    """

    folder: Path
    result: Mapping[str, Any]
    config: DictConfig
    state: SequenceState

    @property
    def task_type(self) -> type[Task]:
        """The kind of its tasks."""
        kind: type[Task] = locate(self.config.benchmark["_target_"]).task_type
        return kind

    @property
    def task_count(self) -> int:
        """Length T of its sequence."""
        return len(self.result["task_sizes"])

    def first_class(self, task: int) -> int:
        """Return the class from which a task's truths and answers count."""
        return sum(self.result["task_sizes"][:task]) if issubclass(self.task_type, DatasetTask) else 0


def read_run(path: Path, moved: Mapping[str, str]) -> RunRecord:
    """Read a finished run.

    Args:
        path: directory of the run, or its ``result.json``.
        moved: what lies elsewhere on this machine, such as ``{"data": "~/data"}``; any key of ``paths``.

    Raises:
        UserError: this is no run, or one that has not finished.
    """
    path = path.expanduser()
    folder = path.parent if path.name == "result.json" else path
    result = _read_result(folder / "result.json")
    if result["status"] != "finished":
        raise UserError(f"{folder} has not finished (status {result['status']}). Type again: {result['command']}")
    config = relocated(OmegaConf.create(result["config"]), moved)
    return RunRecord(folder, result, config, StateFile(folder / "state").load())


def relocated(config: DictConfig, moved: Mapping[str, str]) -> DictConfig:
    """Return a configuration whose files below ``paths.<name>`` lie elsewhere.

    Raises:
        UserError: ``paths`` has no such name.
    """
    plain: Any = OmegaConf.to_container(config)
    for name, folder in moved.items():
        if name not in plain.get("paths", {}):
            known = ", ".join(f"paths.{known}" for known in plain.get("paths", {}))
            raise UserError(f"paths.{name}: this run has no such folder. Known: {known or 'none'}")
        plain = _replaced(plain, str(plain["paths"][name]), str(Path(folder).expanduser()))
        plain["paths"][name] = folder
    moved_config: DictConfig = OmegaConf.create(plain)  # type: ignore[assignment]
    return moved_config


def counted(run: RunRecord, answers: Sequence[Mapping[str, Predictions]]) -> dict[str, MetricCollection]:
    """Return the metrics of every readout of ``result.json``, counted from the answers after each task.

    Raises:
        ValueError: an answer is to no class or distribution of the run.
    """
    counts = {}
    for name in run.result["readouts"]:
        collection = _fresh_metrics(run, name)
        for task, readouts in enumerate(answers):
            if name in readouts:
                _count(collection, readouts[name], task, run.first_class(task))
        counts[name] = collection
    return counts


def confusions(run: RunRecord, counts: Mapping[str, MetricCollection]) -> dict[str, list[list[int]]]:
    """Return the counts ``[true][answered]`` of every readout after the last task, as the run writes them."""
    size = run.result["task_sizes"][-1] if issubclass(run.task_type, DatasetTask) else None
    return {name: confusion_matrix(metrics)[:size, :size].tolist() for name, metrics in counts.items()}


def read_confusion(path: Path) -> list[list[int]]:
    """Read a ``confusion_<readout>.csv``.

    Raises:
        UserError: it is missing or no table of counts.
    """
    try:
        with path.open(newline="") as file:
            return [[int(value) for value in row] for row in csv.reader(file)]
    except FileNotFoundError as error:
        raise MissingFileError(f"{path.name} is missing") from error
    except ValueError as error:
        raise UserError(f"{path.name} has something else than counts: {error}") from error


def _fresh_metrics(run: RunRecord, readout: str) -> MetricCollection:
    sizes = run.result["task_sizes"]
    if issubclass(run.task_type, StreamTask):
        distributions = len(run.result["readouts"][readout]["accuracy_matrix"])
        return stream_metrics(distributions, len(run.result["class_names"]))
    return readout_metrics(sizes, confused=max(sizes) if issubclass(run.task_type, DatasetTask) else None)


def _count(collection: MetricCollection, answered: Predictions, task: int, first_class: int) -> None:
    for part in answered.parts(AT_ONCE):
        labels: Tensor = part.truths + first_class
        try:
            if part.distributions is None:
                collection.update(scores_like(part), labels, task, first_class)
            else:
                collection.update(scores_like(part), labels, task=task, distributions=part.distributions)
        except (IndexError, RuntimeError) as error:
            raise ValueError(f"answers of other classes or distributions than the run's: {error}") from error


def _replaced(value: Any, old: str, new: str) -> Any:
    """Return nested containers where strings that name something below ``old`` name it below ``new``."""
    if isinstance(value, dict):
        return {name: _replaced(part, old, new) for name, part in value.items()}
    if isinstance(value, list):
        return [_replaced(part, old, new) for part in value]
    if isinstance(value, str) and (value == old or value.startswith(old.rstrip("/") + "/")):
        return new + value[len(old.rstrip("/")) :]
    return value


def _read_result(path: Path) -> dict[str, Any]:
    content = read_of_run(path)
    missing = [key for key in NEEDED if key not in content]
    if missing:
        raise UserError(f"{path} is no result of a run: it has no {missing[0]!r}")
    return content
