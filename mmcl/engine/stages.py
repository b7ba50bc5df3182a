"""One stage: a fresh trainer, our order of samples, and a resume from the last good epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning import Callback
from omegaconf import DictConfig

from mmcl.backbones.expandable import ExpandableNetwork
from mmcl.backbones.feature_backbone import FeatureBackbone
from mmcl.backbones.split import SplitBackbone
from mmcl.benchmarks.base import Benchmark
from mmcl.config.schema import ExemplarSchedule, MemorySchedule, Schedule, StepSchedule
from mmcl.engine.progress import Progress
from mmcl.engine.run_directory import MetricsFile
from mmcl.engine.trainers import EpochCheckpoints, EpochFigures, Figures, SameBuffers, SeedEpochs, make_trainer
from mmcl.engine.versions import Versions
from mmcl.methods.base import Method
from mmcl.protocol import Stage, Task


def fit_stage(
    method: Method[Any],
    benchmark: Benchmark,
    task: Task,
    stage: Stage,
    *,
    position: tuple[int, int],
    seed: int,
    trainer_config: DictConfig,
    folder: Path,
    metrics: MetricsFile | None,
    progress: Progress,
) -> None:
    """Train a method through one stage, from its beginning or from the last good checkpoint of an earlier start.

    Args:
        method: has begun the task; trained in place.
        benchmark: serves the stage's samples.
        task: the stage's task.
        stage: what to train on, how long and how.
        position: number of the stage in the task, from 0, and how many there are.
        seed: of the run.
        trainer_config: the ``trainer`` group.
        folder: where checkpoints inside the stage go; empty again when the stage is done.
        metrics: gets the figures of every epoch; None on processes that write nothing.
        progress: is told of every epoch.
    """
    draw = (seed, task.index, stage.name)

    def report(epoch: int, figures: Figures) -> None:
        if metrics is not None:
            metrics.append(task.index, stage.name, epoch, figures)
        progress.epoch_done(task, stage, position, epoch, figures)

    method.begin_stage(stage, task)
    if stage.schedule.epochs and len(stage.samples):
        checkpoints = Versions(folder, f"task{task.index:03d}-{stage.name}")
        last = checkpoints.newest()
        benchmark.serve_training(stage.samples, stage.schedule.batch_size, draw)
        where = f"task {task.index + 1}, stage {stage.name}"
        watchers: list[Callback] = [
            SeedEpochs(*draw),
            EpochFigures(where, _advice(stage, method, task), report),
            SameBuffers(),
            EpochCheckpoints(checkpoints, trainer_config.checkpoint_every_n_epochs, where),
        ]
        trainer = make_trainer(trainer_config, stage.schedule.epochs, watchers)
        if trainer_config.compile:
            compile_backbones(method)
        device = trainer.strategy.root_device
        # Lightning keeps the modes that it finds, and the task before ended in eval mode.
        method.train()
        trainer.fit(method, datamodule=benchmark, ckpt_path=None if last is None else str(last))
        method.to(device)
    method.end_stage(stage, task)


def _advice(stage: Stage, method: Method[Any], task: Task) -> str:
    """Return an override that lowers the learning rate of a stage."""
    schedule = stage.schedule
    if isinstance(schedule, StepSchedule | MemorySchedule):
        return f"method.schedule.lr={schedule.lr / 10:g}"
    if isinstance(schedule, ExemplarSchedule):
        key = "learning" if stage.name == "exemplars" else "adjusting"
        return f"method.exemplars.{key}.lr={schedule.lr / 10:g}"
    if isinstance(schedule, Schedule):
        whole = "first_task" if task.index == 0 and hasattr(method.config, "first_task") else "later_tasks"
        key = stage.name if hasattr(method.config, stage.name) else whole
        return f"method.{key}.lr={schedule.lr / 10:g}"
    return f"method.lr={method.config.lr / 10:g}"


def compile_backbones(method: Method[Any]) -> None:
    """Compile every trunk and branch in place: names in the state stay, and a growing head recompiles nothing."""
    for module in method.modules():
        if isinstance(module, (SplitBackbone, FeatureBackbone)):
            module.compile()
        elif isinstance(module, ExpandableNetwork):
            for part in (module.trunk, *module.branches):
                part.compile()


def forget_checkpoints(folder: Path, task: Task, stage: Stage) -> None:
    """Delete the checkpoints inside a stage that the saved sequence state has overtaken."""
    Versions(folder, f"task{task.index:03d}-{stage.name}").clear()
