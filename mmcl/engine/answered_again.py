"""The last task of a finished run, answered again: from its last state, or by going through its end once more."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, field
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from mmcl.benchmarks.base import Benchmark
from mmcl.config.components import build
from mmcl.engine.assemble import build_method, require_learned
from mmcl.engine.evaluation import evaluate
from mmcl.engine.online import evaluate_online
from mmcl.engine.predictions import Predictions, Recorder, file_of, read_predictions
from mmcl.engine.run_directory import RunDirectory
from mmcl.engine.run_record import RunRecord
from mmcl.engine.sequence import Sequence, metrics_of
from mmcl.engine.state import StateFile, restore_method
from mmcl.engine.trainers import make_trainer
from mmcl.errors import UserError
from mmcl.protocol import DatasetTask, StreamTask


class OtherStateError(UserError):
    """The saved state is not one of this run."""


ONE_DEVICE = {"accelerator": "auto", "devices": 1, "num_nodes": 1, "strategy": "auto", "progress": False}


@dataclass(frozen=True)
class AnsweredAgain:
    """What the code answers now after the last task.

    Attributes:
        predictions: by readout.
        bytes: byte report of model and memory.
        oracles: what was chosen by test labels, by readout.
        other_parts: parts of the state that came out otherwise, with their largest difference; only where the end of
            the task was gone through again.
        replayed: whether it was.
    """

    predictions: Mapping[str, Predictions]
    bytes: Mapping[str, Any]
    oracles: Mapping[str, Any] = field(default_factory=dict)
    other_parts: Mapping[str, float] = field(default_factory=dict)
    replayed: bool = False


def answer_again(run: RunRecord) -> AnsweredAgain:
    """Answer the last task's test samples again.

    Where tasks are data sets, answers may change what is remembered, and a memory may be no part of the state; so the
    end of the last task is gone through again from the state before it.

    Raises:
        OtherStateError: the last state does not fit the method.
        UserError: the data is missing or gives other tasks, or no state allows it.
    """
    config = _for_here(run.config)
    benchmark: Benchmark = build(config.benchmark)
    benchmark.prepare_data()
    benchmark.setup()
    if (
        list(benchmark.task_sizes) != run.result["task_sizes"]
        or list(benchmark.class_names) != run.result["class_names"]
    ):
        raise UserError(f"benchmark={config.benchmark.name} has other tasks or classes now than result.json has")
    if issubclass(benchmark.task_type, DatasetTask):
        return _replayed(run, config, benchmark)
    return _from_last_state(run, config, benchmark)


def _for_here(config: DictConfig) -> DictConfig:
    """Return the configuration for one device of this machine, without a mirror."""
    here: DictConfig = OmegaConf.merge(config, {"trainer": ONE_DEVICE, "logger": {"name": "csv"}})  # type: ignore[assignment]
    return here


def _from_last_state(run: RunRecord, config: DictConfig, benchmark: Any) -> AnsweredAgain:
    method = build_method(config, benchmark)
    try:
        restore_method(method, benchmark, run.state, config.seed)
    except (RuntimeError, KeyError, ValueError, TypeError) as error:
        raise OtherStateError(f"the last state does not fit method={config.method.name}: {error}") from error
    method.to(make_trainer(config.trainer).strategy.root_device).eval()
    task = benchmark.task(run.task_count - 1)
    recorder, metrics = Recorder(), metrics_of(method, benchmark)
    if isinstance(task, StreamTask):
        evaluate_online(method, benchmark, task, metrics, config.trainer, recorder)  # type: ignore[arg-type]
    else:
        evaluate(method, benchmark, task, metrics, config.trainer, recorder)
    return AnsweredAgain(recorder.predictions(), asdict(method.byte_report()))


def _replayed(run: RunRecord, config: DictConfig, benchmark: Benchmark) -> AnsweredAgain:
    """Resume a copy of the run from the state before its last one."""
    last = run.task_count - 1
    versions = StateFile(run.folder / "state").versions
    before = versions.newest(before=run.state.position)
    trained = any(entry["task"] == last for entry in run.result["timing"]["stages"])
    if before is None and (last or trained):
        raise UserError("the state before the last one is missing or damaged, and nothing may be trained again")
    with TemporaryDirectory() as folder:
        directory = RunDirectory(Path(folder), run.result["identity"])
        directory.state.mkdir()
        if before is not None:
            shutil.copy(before, directory.state)
        method = build_method(config, benchmark)
        require_learned(directory, method, benchmark)
        with redirect_stdout(StringIO()):  # the line of the task is the run's
            Sequence(config, benchmark, method, directory, run.result["command"]).run()
        state = StateFile(directory.state).load()
        return AnsweredAgain(
            read_predictions(file_of(directory.path, last)),
            json.loads(directory.result.read_text())["bytes"][-1],
            state.oracles[-1],
            dict(other_parts(run.state.method or {}, state.method or {})),
            replayed=True,
        )


def other_parts(kept: Mapping[str, Any], again: Mapping[str, Any], where: str = "") -> list[tuple[str, float]]:
    """Return names of tensors and values that differ between two nested states, with the largest difference.

    It is infinite where something has another shape or is no number.
    """
    found: list[tuple[str, float]] = []
    for name in dict.fromkeys([*kept, *again]):
        ours, theirs, path = _by_name(kept.get(name)), _by_name(again.get(name)), f"{where}{name}"
        if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
            found += other_parts(ours, theirs, f"{path}.")
        elif isinstance(ours, Tensor) and isinstance(theirs, Tensor) and ours.shape == theirs.shape:
            if not torch.equal(ours, theirs):
                found.append((path, _largest_difference(ours.double(), theirs.double())))
        elif isinstance(ours, Tensor) or isinstance(theirs, Tensor) or ours != theirs:
            found.append((path, float("inf")))
    return found


def _largest_difference(ours: Tensor, theirs: Tensor) -> float:
    """Return the largest difference of two tensors: none between equal infinities, infinite from a number to none."""
    same = (ours == theirs) | (ours.isnan() & theirs.isnan())
    apart = (ours - theirs).abs().nan_to_num(nan=float("inf"), posinf=float("inf"))
    return float(apart.masked_fill(same, 0.0).max())


def _by_name(value: Any) -> Any:
    return {str(place): part for place, part in enumerate(value)} if isinstance(value, list | tuple) else value
