"""Build what a configuration names and run it: the one entry to the engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from mmcl.benchmarks.base import Benchmark
from mmcl.config.components import build
from mmcl.config.identity import identity, run_directory
from mmcl.engine.ingredients import ingredients_of
from mmcl.engine.processes import is_first_process, started_from_outside
from mmcl.engine.run_directory import RunDirectory
from mmcl.engine.sequence import Sequence
from mmcl.engine.state import StateFile
from mmcl.engine.trainers import make_trainer
from mmcl.errors import UserError
from mmcl.methods.base import Method
from mmcl.randomness import key


def run(config: DictConfig, command: str) -> Path:
    """Run a checked configuration to its end and return the path of its ``result.json``.

    A finished run of the same identity returns at once, an unfinished one goes on where it stopped; ``force=true``
    starts afresh, ``eval_only=true`` learns nothing any more. Nothing is written before data and components are known
    to be good.

    Raises:
        UserError: something the user can mend; what was saved so far is kept.
    """
    directory = RunDirectory(run_directory(config), identity(config))
    if directory.is_finished() and not config.force:
        return directory.result
    if config.eval_only:
        _require_learned(directory, bool(config.force))
    if config.force and started_from_outside():
        raise UserError(f"force=true works with one start only, not under torchrun or srun. Delete {directory.path}")
    make_trainer(config.trainer)  # a missing device is noticed before anything is read or written
    benchmark: Benchmark = build(config.benchmark)
    benchmark.prepare_data()
    benchmark.setup()
    method = build_method(config, benchmark)
    if not is_first_process():
        Sequence(config, benchmark, method, directory, command).run()
        return directory.result
    plain = OmegaConf.to_container(config, resolve=True)
    with directory.claimed(plain, afresh=config.force):  # type: ignore[arg-type]
        sequence = Sequence(config, benchmark, method, directory, command)
        try:
            sequence.run()
        except Exception as error:
            sequence.fail(str(error))
            raise
    return directory.result


def _require_learned(directory: RunDirectory, force: bool) -> None:
    """Refuse to answer with what was never learned, before anything is written."""
    if force:
        raise UserError("eval_only=true answers with what was learned, force=true forgets it. Leave one of them out")
    state = StateFile(directory.state).load()
    if not state.task and not state.stages_done:
        raise UserError(
            f"eval_only=true: {directory.path} has learned nothing yet. Type the same without eval_only first; a "
            "finished run then returns its figures at once"
        )


def build_method(config: DictConfig, benchmark: Benchmark) -> Method[Any]:
    """Build the method with its ingredients."""
    torch.manual_seed(key(config.seed, "initialise"))
    method: Method[Any] = build(config.method, ingredients_of(config, benchmark))
    return method
