"""Evaluation after each window of an online stream, and what pictures of the learner need."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor
from torchmetrics import MetricCollection

from mmcl.benchmarks.online import TEST, OnlineBenchmark
from mmcl.engine.evaluation import CountAnswers
from mmcl.engine.predictions import Recorder
from mmcl.engine.trainers import make_trainer
from mmcl.methods.online import OnlineMethod
from mmcl.metrics.stream_metrics import stream_metrics
from mmcl.protocol import EvaluationBatch, StreamTask
from mmcl.whole_files import write_whole

GRID = 120
MARGIN = 0.05


def answer_name(readout: str, evaluation: str) -> str:
    """Name a readout on some samples: test samples are meant where no name is."""
    return readout if evaluation == TEST else f"{readout}_{evaluation}"


def online_metrics(method: OnlineMethod, benchmark: OnlineBenchmark) -> dict[str, MetricCollection]:
    """Return metrics for every readout on all that is asked after each window."""
    return {
        answer_name(readout, name): stream_metrics(samples.distribution_count, len(benchmark.class_names))
        for readout in method.readouts
        for name, samples in benchmark.evaluations().items()
    }


class CountDistributions(CountAnswers):
    """Feeds each readout's scores to the metrics of the samples that were asked, with their distributions."""

    def count(self, readout: str, scores: Tensor, labels: Tensor, batch: EvaluationBatch) -> None:
        """Count what one readout says about a batch."""
        name = answer_name(readout, batch.evaluation)
        self.readouts[name].update(scores, labels, task=self.task.index, distributions=batch.distributions)
        rows = self.recorder.next_rows(name, len(labels), self.part)
        self.recorder.add(name, scores, labels, rows, batch.distributions)


def evaluate_online(
    method: OnlineMethod,
    benchmark: OnlineBenchmark,
    task: StreamTask,
    readouts: Mapping[str, MetricCollection],
    trainer_config: DictConfig,
    recorder: Recorder,
) -> None:
    """Add the answers after a window to the counts of every readout, and to the recorder."""
    benchmark.serve_evaluation(task.index)
    trainer = make_trainer(trainer_config, callbacks=[CountDistributions(readouts, task, recorder)])
    trainer.test(method, datamodule=benchmark, verbose=False)


def write_trace(method: OnlineMethod, benchmark: OnlineBenchmark, folder: Path, windows: int) -> None:
    """Write ``traces/<windows>.npz``: the method's trace after so many windows and, in 2D, the class of each place.

    ``regions`` uint8 ``(GRID, GRID)`` holds the predicted classes of the points of ``xs (GRID,)`` and ``ys (GRID,)``,
    row by row of y.
    """
    values: dict[str, Any] = {name: tensor.detach().cpu().clone().numpy() for name, tensor in method.trace().items()}
    if benchmark.dimension == 2:
        values |= decision_regions(method, benchmark.stream.test.features)

    def write(partial: Path) -> None:
        with partial.open("wb") as file:
            np.savez_compressed(file, **values)

    path = folder / "traces" / f"{windows:03d}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, write)


def decision_regions(method: OnlineMethod, samples: Tensor) -> dict[str, Any]:
    """Classify a grid of points around 2D samples ``(N, 2)``, in the mode and on the device of the method."""
    low, high = samples.amin(dim=0), samples.amax(dim=0)
    border = MARGIN * (high - low)
    xs, ys = (torch.linspace(float(low[i] - border[i]), float(high[i] + border[i]), GRID) for i in range(2))
    points = torch.stack(torch.meshgrid(ys, xs, indexing="ij")[::-1], dim=-1).reshape(-1, 2)
    training = method.training
    counters = [buffer.clone() for buffer in method.buffers()]
    method.eval()
    with torch.no_grad():
        scores = method.scores(points.to(method.device))
    method.train(training)
    for buffer, before in zip(method.buffers(), counters, strict=True):
        buffer.copy_(before)  # a look at the learner is no use of its units
    classes = next(iter(scores.values())).argmax(dim=1).to(torch.uint8).reshape(GRID, GRID)
    return {"regions": classes.cpu().numpy(), "xs": xs.numpy(), "ys": ys.numpy()}
