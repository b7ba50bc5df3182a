"""Evaluation: every readout on the test images of all classes seen so far, none padded, none counted twice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning import Callback, LightningModule, Trainer
from omegaconf import DictConfig
from torch import Tensor
from torchmetrics import MetricCollection

from mmcl.benchmarks.class_incremental import ClassIncrementalBenchmark
from mmcl.engine.predictions import Recorder
from mmcl.engine.trainers import make_trainer
from mmcl.methods.base import Method
from mmcl.protocol import ClassTask, Task


class CountAnswers(Callback):
    """Feeds each readout's scores to its metrics and to the recorder, on the device, without a copy to the host.

    Each process has every ``world``-th sample, as the loaders of tests serve them.
    """

    def __init__(self, readouts: Mapping[str, MetricCollection], task: Task, recorder: Recorder) -> None:
        self.readouts, self.task, self.recorder = readouts, task, recorder
        self.part = (0, 1)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Move the counts to where the scores are."""
        self.part = (trainer.global_rank, trainer.world_size)
        for metrics in self.readouts.values():
            metrics.to(pl_module.device)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count a batch."""
        scores, labels = outputs
        for name, values in scores.items():
            self.count(name, values, labels, batch)

    def count(self, readout: str, scores: Tensor, labels: Tensor, batch: Any) -> None:
        """Count what one readout says about a batch."""
        self.readouts[readout].update(scores, labels, self.task.index)
        self.recorder.add(readout, scores, labels, self.recorder.next_rows(readout, len(labels), self.part))


def evaluate(
    method: Method[ClassTask],
    benchmark: ClassIncrementalBenchmark,
    task: ClassTask,
    readouts: Mapping[str, MetricCollection],
    trainer_config: DictConfig,
    recorder: Recorder,
) -> None:
    """Add a task's evaluation to the counts of every readout, and its answers to the recorder."""
    benchmark.serve_test(task.test)
    trainer = make_trainer(trainer_config, callbacks=[CountAnswers(readouts, task, recorder)])
    trainer.test(method, datamodule=benchmark, verbose=False)
