"""Build what a configuration names and run it: the one entry to the engine."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from mmcl.benchmarks.base import Benchmark
from mmcl.config.components import build
from mmcl.config.identity import identity, run_directory
from mmcl.config.schema import PRECISIONS
from mmcl.engine.ingredients import ingredients_of
from mmcl.engine.preemption import PreemptedError
from mmcl.engine.processes import is_first_process, started_from_outside
from mmcl.engine.results import figure_lines
from mmcl.engine.run_directory import RunDirectory
from mmcl.engine.sequence import Sequence
from mmcl.engine.state import StateFile
from mmcl.engine.trainers import make_trainer
from mmcl.errors import UserError
from mmcl.methods.base import Method
from mmcl.protocol import DatasetTask
from mmcl.randomness import key


def run(config: DictConfig, command: str) -> Path:
    """Run a checked configuration to its end and return the path of its ``result.json``.

    A finished run of the same identity returns at once, an unfinished one goes on where it stopped; ``force=true``
    starts afresh, ``eval_only=true`` learns nothing any more. Nothing is written before data and components are known
    to be good.

    Raises:
        UserError: something the user can mend; what was saved so far is kept.
        PreemptedError: the run was asked to stop and has saved what it needs to go on.
    """
    directory = RunDirectory(run_directory(config), identity(config))
    if config.eval_only and config.force:
        raise UserError("eval_only=true answers with what was learned, force=true forgets it. Leave one of them out")
    if directory.is_finished() and not config.force:
        if config.eval_only and is_first_process():
            sys.stdout.writelines(f"{line}\n" for line in figure_lines(json.loads(directory.result.read_text())))
        return directory.result
    if config.force and started_from_outside():
        raise UserError(f"force=true works with one start only, not under torchrun or srun. Delete {directory.path}")
    make_trainer(config.trainer)  # a missing device is noticed before anything is read or written
    benchmark: Benchmark = build(config.benchmark)
    benchmark.prepare_data()
    benchmark.setup()
    method = build_method(config, benchmark)
    if config.eval_only:
        require_learned(directory, method, benchmark)
        config = OmegaConf.merge(config, {"eval_only": False})  # type: ignore[assignment]
    if not is_first_process():
        Sequence(config, benchmark, method, directory, command).run()
        return directory.result
    plain = OmegaConf.to_container(config, resolve=True)
    with directory.claimed(plain, afresh=config.force):  # type: ignore[arg-type]
        sequence = Sequence(config, benchmark, method, directory, command)
        try:
            sequence.run()
        except PreemptedError:
            sequence.pause()
            raise
        except Exception as error:
            sequence.fail(str(error))
            raise
    return directory.result


def require_learned(directory: RunDirectory, method: Method[Any], benchmark: Benchmark) -> None:
    """Refuse to answer with what was never learned, before anything is written.

    A run goes on from its state: what has not been learned then is the rest of the stages of this task and of later
    ones.
    """
    if not issubclass(benchmark.task_type, DatasetTask):
        raise UserError(f"eval_only=true: {directory.path} has not finished, and every task of it learns something")
    state = StateFile(directory.state).load()
    for index in range(state.task, len(benchmark.task_sizes)):
        stages = method.stages(benchmark.task(index))[state.stages_done if index == state.task else 0 :]
        missing = [stage.name for stage in stages if stage.schedule.epochs]
        if missing:
            raise UserError(
                f"eval_only=true: stage {missing[0]} of task {index + 1} has not been learned in {directory.path}. "
                "Type the same without eval_only first"
            )


def build_method(config: DictConfig, benchmark: Benchmark) -> Method[Any]:
    """Build the method with its ingredients.

    Raises:
        UserError: they do not go together, or not with ``trainer.precision``.
    """
    torch.manual_seed(key(config.seed, "initialise"))
    method: Method[Any] = build(config.method, ingredients_of(config, benchmark))
    if config.trainer.precision in PRECISIONS and config.trainer.precision not in method.precisions:
        known = " or ".join(method.precisions)
        raise UserError(
            f"trainer.precision={config.trainer.precision}: method={config.method.name} cannot be computed in it. Type "
            f"trainer.precision={known}"
        )
    return method
