"""Build what a configuration names and run it: the one entry to the engine."""

from __future__ import annotations

from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from mmcl.backbones.split import SplitBackbone
from mmcl.benchmarks.base import Benchmark
from mmcl.config.components import build, locate
from mmcl.config.identity import identity, run_directory
from mmcl.config.locate import options, shipped_folder
from mmcl.engine.processes import is_first_process, started_from_outside
from mmcl.engine.run_directory import RunDirectory
from mmcl.engine.sequence import Sequence
from mmcl.engine.trainers import make_trainer
from mmcl.errors import UserError, nearest
from mmcl.memory.accounting import BlockParameters, counted_parameters
from mmcl.memory.herding import selector
from mmcl.memory.quota import MemoryConfig, Quota
from mmcl.methods.base import Ingredients, Method
from mmcl.randomness import key


def run(config: DictConfig, command: str) -> Path:
    """Run a checked configuration to its end and return the path of its ``result.json``.

    A finished run of the same identity returns at once, an unfinished one goes on where it stopped; ``force=true``
    starts afresh. Nothing is written before data and components are known to be good.

    Raises:
        UserError: something the user can mend; what was saved so far is kept.
    """
    directory = RunDirectory(run_directory(config), identity(config))
    if directory.is_finished() and not config.force:
        return directory.result
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


def build_method(config: DictConfig, benchmark: Benchmark) -> Method:
    """Build the method with its backbone factory, its quota and its selector."""
    method_class = locate(config.method["_target_"])
    task_count = len(benchmark.task_sizes)

    def make_backbone() -> SplitBackbone:
        backbone: SplitBackbone = build(config.backbone)
        return backbone

    torch.manual_seed(key(config.seed, "initialise"))
    quota = _quota(config, method_class, make_backbone(), task_count, benchmark.image_bytes)
    if method_class.keeps_memory:
        quota.per_class(sum(benchmark.task_sizes))  # a budget too small stops here, not after hours in the last task
    ingredients = Ingredients(
        make_backbone=make_backbone,
        quota=quota,
        select=selector(config.memory.select, config.seed),
        seed=config.seed,
        task_count=task_count,
        image_bytes=benchmark.image_bytes,
    )
    method: Method = build(config.method, ingredients)
    return method


def _quota(
    config: DictConfig, method_class: type[Method], backbone: SplitBackbone, task_count: int, image_bytes: int
) -> Quota:
    plain, trunk, branch = (
        sum(parameter.numel() for parameter in part.parameters())
        for part in (backbone, backbone.trunk, backbone.branch)
    )
    blocks = BlockParameters(plain, trunk, branch)
    memory: MemoryConfig = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(MemoryConfig), config.memory))  # type: ignore[assignment]
    own = counted_parameters(method_class.growth, blocks, task_count)
    if memory.align_to is None:
        return Quota(memory, image_bytes, own)
    return Quota(memory, image_bytes, own, counted_parameters(_growth_of(memory.align_to), blocks, task_count))


def _growth_of(name: str) -> str:
    known = options("method")
    if name not in known:
        raise UserError(f"memory.align_to={name}: no such method.{nearest(name, known)} Methods: {', '.join(known)}")
    target = OmegaConf.select(OmegaConf.load(shipped_folder("conf") / "method" / f"{name}.yaml"), "_target_")
    growth: str = locate(target).growth
    return growth
