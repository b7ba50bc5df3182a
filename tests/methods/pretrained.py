"""Methods on a small fixed network or on vectors, driven without the engine."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmcl.backbones.feature_backbone import FeatureBackbone, Identity
from mmcl.benchmarks.class_incremental import ClassIncrementalBenchmark, ClassIncrementalBenchmarkConfig, RawData
from mmcl.config.components import build
from mmcl.config.compose import compose_run
from mmcl.methods.pretrained import PretrainedIngredients
from mmcl.protocol import Batch, ClassTask, FeatureBatch, ImageFeatures, Samples, Stage

DIMENSION = 6


class Vectors(ClassIncrementalBenchmark):
    """Gaussian clouds around one centre per class: training and test vectors ``(N, 6)``."""

    def __init__(self, classes: int = 6, increment: int = 2, per_class: int = 16) -> None:
        order = list(range(classes))
        super().__init__(ClassIncrementalBenchmarkConfig("", "vectors", "", 0, increment, 0, order, False, 0, 1))
        self.classes, self.per_class = classes, per_class
        self.dimension = DIMENSION

    def read(self) -> RawData:
        """Draw the vectors."""
        names = [str(label) for label in range(self.classes)]
        return RawData(self._draw(self.per_class, 1), self._draw(5, 2), names)

    def _draw(self, per_class: int, seed: int) -> Samples:
        centres = 2 * torch.randn(self.classes, DIMENSION, generator=torch.Generator().manual_seed(0))
        labels = torch.arange(self.classes).repeat_interleave(per_class)
        noise = torch.randn(len(labels), DIMENSION, generator=torch.Generator().manual_seed(seed))
        return Samples(centres[labels] + 0.7 * noise, labels, torch.arange(len(labels)))


class SmallNetwork(FeatureBackbone):
    """A linear layer, batch normalisation and tanh, always with the same weights."""

    def __init__(self) -> None:
        super().__init__(DIMENSION)
        self.linear = nn.Linear(DIMENSION, DIMENSION)
        self.norm = nn.BatchNorm1d(DIMENSION)
        numbers = torch.Generator().manual_seed(3)
        with torch.no_grad():
            self.linear.weight.copy_(torch.randn(DIMENSION, DIMENSION, generator=numbers))

    def forward(self, images: Tensor) -> Tensor:
        """Return features ``(B, 6)``."""
        return torch.tanh(self.norm(self.linear(images)))


def pretrained_method(name: str, *overrides: str, tasks: int = 3, network: bool = True) -> Any:
    """Build a method by its configuration, on the small network or on the vectors themselves."""
    arguments = [f"+method={name}", "trainer=cpu", "recipe=paper", *overrides]
    torch.manual_seed(0)
    ingredients = PretrainedIngredients(0, tasks, SmallNetwork if network else lambda: Identity(DIMENSION), 3072)
    return build(compose_run(arguments).method, ingredients)


def begin(method: Any, task: ClassTask) -> list[Stage]:
    """Grow and begin a task; return its stages."""
    torch.manual_seed(task.index)
    method.grow(task)
    method.begin_task(task)
    return method.stages(task)  # type: ignore[no-any-return]


def train(method: Any, stage: Stage, task: ClassTask, steps: int = 3) -> None:
    """Take some steps of a stage, each over all its samples, and end it."""
    method.begin_stage(stage, task)
    method.train()
    optimizer, _ = method.optimizer_of(stage)
    for step in range(steps):
        optimizer.zero_grad()
        method.losses(whole(stage, step))["classification"].backward()
        optimizer.step()
    method.end_stage(stage, task)


def whole(stage: Stage, epoch: int = 0) -> Batch | FeatureBatch:
    """Return all samples of a stage as one batch."""
    samples = stage.samples
    if isinstance(samples, ImageFeatures):
        view = epoch % samples.features.shape[1]
        return FeatureBatch(samples.features[:, view : view + 1], samples.labels, samples.sources)
    assert isinstance(samples.images, Tensor)
    return Batch(samples.images, samples.labels, samples.sources)


def go_through(method: Any, benchmark: Vectors, tasks: int, steps: int = 3) -> ClassTask:
    """Take a few steps of every stage of some tasks, and end them; return the last one."""
    for index in range(tasks):
        task = benchmark.task(index)
        for stage in begin(method, task):
            train(method, stage, task, steps)
        method.eval()
        method.end_task(task)
    return task
