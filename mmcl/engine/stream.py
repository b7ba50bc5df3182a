"""Evaluation on the test stream of a data set: in a keyed order where it matters, resumable in the middle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from omegaconf import DictConfig
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from mmcl.benchmarks.dataset_benchmark import FeatureTasks
from mmcl.engine.predictions import Recorder
from mmcl.engine.preemption import PreemptedError, asked
from mmcl.engine.trainers import make_trainer
from mmcl.engine.versions import Versions, on_cpu, tensors
from mmcl.methods.on_features import OnFeatures
from mmcl.metrics.readouts import load_state, synced_state
from mmcl.protocol import DatasetTask, FeatureBatch
from mmcl.randomness import permutation
from mmcl.whole_files import write_whole


class Answers:
    """Counts of a stream: of every readout, and of what chooses by test labels; and the answers themselves.

    Args:
        readouts: metrics of each readout over the whole sequence.
        oracles: metrics of this task that choose something by its labels, by readout.
        task: whose stream it is.
        recorder: keeps the answers.
    """

    def __init__(
        self,
        readouts: Mapping[str, MetricCollection],
        oracles: Mapping[str, Metric],
        task: DatasetTask,
        recorder: Recorder,
    ) -> None:
        self.readouts, self.oracles, self.task, self.recorder = readouts, oracles, task, recorder

    def to(self, device: torch.device) -> None:
        """Move the counts to where the scores are."""
        for metrics in (*self.readouts.values(), *self.oracles.values()):
            metrics.to(device)

    def count(self, scores: Mapping[str, Tensor], labels: Tensor, rows: slice, images: Tensor) -> None:
        """Count some rows of a batch; ``images`` say which of the data set these are, int64 on the CPU."""
        counted = {name: values[rows] for name, values in scores.items()}
        labels = labels[rows]
        if not len(labels):
            return
        for name, values in counted.items():
            self.readouts[name].update(values, labels + self.task.known, self.task.index, self.task.known)
            self.recorder.add(name, values, labels, images)
        for metric in self.oracles.values():
            metric.update(counted, labels)

    def synced(self) -> dict[str, dict[str, Tensor]]:
        """Return the counts of all processes together; all must call."""
        state = {f"readout.{name}": synced_state(metrics) for name, metrics in self.readouts.items()}
        for name, metric in self.oracles.items():
            with metric.sync_context():
                counts: Any = metric.metric_state
                state[f"oracle.{name}"] = {key: value.cpu().clone() for key, value in counts.items()}
        return state | {f"answers.{name}": part for name, part in self.recorder.synced().items()}

    def load(self, state: Mapping[str, Mapping[str, Tensor]], is_global_zero: bool) -> None:
        """Go on from the counts of :meth:`synced`; one process takes them."""
        for name, metrics in self.readouts.items():
            load_state(metrics, state[f"readout.{name}"], is_global_zero)
        for name, metric in self.oracles.items():
            for key, value in state[f"oracle.{name}"].items() if is_global_zero else ():
                setattr(metric, key, value.to(metric.device, copy=True))
            metric._update_count = 1
        if is_global_zero:
            prefix = "answers."
            self.recorder.load({k.removeprefix(prefix): part for k, part in state.items() if k.startswith(prefix)})


class StreamWatcher(Callback):
    """Counts every batch and saves the stream's state now and then.

    Args:
        answers: what is counted.
        ordered: every process has seen the whole batch, and counts its part of it.
        batches: rows of the data set in each batch of all processes together.
        versions: where the state goes.
        every: batches between two states; 0 saves none.
        start: batches served before.
    """

    def __init__(
        self,
        answers: Answers,
        ordered: bool,
        batches: Sequence[Tensor],
        versions: Versions,
        every: int,
        start: int,
    ) -> None:
        self.answers, self.ordered, self.batches, self.versions = answers, ordered, batches, versions
        self.every, self.done = every, start

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Move the counts to where the scores are."""
        self.answers.to(pl_module.device)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: FeatureBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count, and save when it is time or when the run is asked to stop."""
        scores, labels = outputs
        part = slice(trainer.global_rank, None, trainer.world_size)
        own = slice(None) if batch.share else slice(0)
        rows = part if self.ordered else own
        self.answers.count(scores, labels, rows, self.batches[self.done][part])
        self.done += 1
        is_due = bool(self.every) and self.done % self.every == 0
        # Several processes ask one another only where they all save anyway.
        stops = (is_due or trainer.world_size == 1) and asked()
        if is_due or stops:
            self._save(trainer, pl_module)
        if stops:
            raise PreemptedError(f"after batch {self.done} of a test stream")

    def _save(self, trainer: Trainer, pl_module: LightningModule) -> None:
        counts = self.answers.synced()
        if trainer.is_global_zero:
            method = {name: on_cpu(value) for name, value in pl_module.state_dict().items()}
            content = {"batches": self.done, "method": method, "answers": counts}
            self.versions.write(self.done, tensors(content))


def evaluate_stream(
    method: OnFeatures,
    benchmark: FeatureTasks,
    task: DatasetTask,
    readouts: Mapping[str, MetricCollection],
    trainer_config: DictConfig,
    seed: int,
    folder: Path,
    recorder: Recorder,
) -> dict[str, dict[str, Any]]:
    """Add a data set's test stream to the counts of every readout, from its beginning or from the last good state.

    Args:
        method: has ended the task.
        benchmark: serves the stream.
        task: the data set.
        readouts: metrics of each readout.
        trainer_config: the ``trainer`` group.
        seed: of the run; keys the order of the stream.
        folder: directory of the run; the order goes there as ``stream_<task>_<name>.npy``.
        recorder: gets the answers.

    Returns:
        What was chosen by test labels, by readout: ``{"fused": {"accuracy": ..., ...}}``.
    """
    features = task.encoded.test(method.test_views)
    order = stream_order(len(features), method.ordered, seed, task.index)
    answers = Answers(readouts, method.oracles(task), task, recorder)
    versions = Versions(folder / "state", f"task{task.index:03d}-stream")
    method.begin_evaluation(task)
    trainer = make_trainer(trainer_config)
    start = 0
    last = versions.newest()
    if last is not None:
        saved = torch.load(last, map_location="cpu", weights_only=True)
        start = saved["batches"]
        method.load_state_dict(saved["method"])
        answers.load(saved["answers"], trainer.is_global_zero)
    if trainer.is_global_zero and start == 0:
        write_order(folder / f"stream_{task.index:03d}_{task.name}.npy", features.sources[order])
    batches, every = torch.split(order, benchmark.stream_batch_size), trainer_config.checkpoint_every_n_batches
    watcher = StreamWatcher(answers, method.ordered, batches, versions, every, start)
    benchmark.serve_stream(features, order, start, method.ordered)
    trainer = make_trainer(trainer_config, callbacks=[watcher])
    trainer.test(method, datamodule=benchmark, verbose=False)
    return {name: _plain(metric.compute()) for name, metric in answers.oracles.items()}


def stream_order(count: int, ordered: bool, seed: int, task_index: int) -> Tensor:
    """Return the row at each place of a stream, int64 ``(N,)``: shuffled by the seed where the order matters."""
    return permutation(count, seed, task_index, "stream") if ordered else torch.arange(count)


def write_order(path: Path, sources: Tensor) -> None:
    """Record which test image stood at each place of a stream."""

    def write(partial: Path) -> None:
        with partial.open("wb") as file:
            np.save(file, sources.to(torch.int32).numpy())

    write_whole(path, write)


def forget_stream(folder: Path, task: DatasetTask) -> None:
    """Delete the states inside a stream that the saved sequence state has overtaken."""
    Versions(folder / "state", f"task{task.index:03d}-stream").clear()


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.item() if isinstance(value, Tensor) else value for name, value in values.items()}
