"""Methods on a toy benchmark of four classes, driven without the engine."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmcl.benchmarks.class_incremental import ClassIncrementalBenchmark, ClassIncrementalBenchmarkConfig, RawData
from mmcl.config.compose import compose_run
from mmcl.engine.assemble import build_method
from mmcl.methods.base import Method
from mmcl.protocol import Batch, ClassTask, Samples

CPU = torch.device("cpu")
TOY = ["trainer=cpu", "recipe=paper", "backbone=conv2", "backbone.width=4", "memory.size=16", "memory.per_class=null"]


class ToyBenchmark(ClassIncrementalBenchmark):
    """Noise around one shade per class: 12 training and 3 test images of 8x8 each."""

    def __init__(self, classes: int = 4, increment: int = 2, per_class: int = 12) -> None:
        order = list(range(classes))
        super().__init__(ClassIncrementalBenchmarkConfig("", "toy", "", 0, increment, 0, order, False, 0, 1))
        self.classes, self.per_class = classes, per_class

    def read(self) -> RawData:
        """Draw the images."""
        names = [str(label) for label in range(self.classes)]
        return RawData(self._draw(self.per_class, 0), self._draw(3, 1), names)

    def _draw(self, per_class: int, seed: int) -> Samples:
        labels = torch.arange(self.classes).repeat_interleave(per_class)
        noise = torch.randint(0, 60, (len(labels), 3, 8, 8), generator=torch.Generator().manual_seed(seed))
        shade = (labels * 195 // self.classes)[:, None, None, None]
        return Samples((noise + shade).to(torch.uint8), labels, torch.arange(len(labels)))


def toy_method(name: str, *overrides: str, benchmark: ClassIncrementalBenchmark | None = None) -> Any:
    """Build a method as a run does."""
    return build_method(compose_run([f"+method={name}", *TOY, *overrides]), benchmark or ToyBenchmark())


def begin(method: Method, task: ClassTask) -> None:
    """Grow and begin a task."""
    torch.manual_seed(task.index)
    method.grow(task)
    method.begin_task(task)


def go_through(method: Method, benchmark: ClassIncrementalBenchmark, tasks: int) -> ClassTask:
    """Take a few steps of every stage of some tasks, and end them; return the last one."""
    for index in range(tasks):
        task = benchmark.task(index)
        begin(method, task)
        for stage in method.stages(task):
            method.begin_stage(stage, task)
            method.train()
            _take_steps(method, task, stage.samples)
            method.end_stage(stage, task)
        method.eval()
        method.end_task(task)
    return task


def _take_steps(method: Method, task: ClassTask, samples: Samples, steps: int = 3) -> None:
    optimizer = torch.optim.SGD(method.stage_parameters(), 0.05)
    for _ in range(steps):
        for batch in task.plain_batches(samples, CPU):
            optimizer.zero_grad()
            torch.stack(list(method.losses(batch).values())).sum().backward()
            optimizer.step()


def begun(name: str, *overrides: str, tasks: int = 1, classes: int = 4) -> tuple[Any, ClassTask]:
    """Return a method that has gone through some tasks at the beginning of the next one, and that task."""
    benchmark = ToyBenchmark(classes)
    method = toy_method(name, *overrides, benchmark=benchmark)
    if tasks:
        go_through(method, benchmark, tasks)
    task = benchmark.task(tasks)
    begin(method, task)
    return method, task


def whole_batch(task: ClassTask, samples: Samples | None = None) -> Batch:
    """Return the task's training samples, or others, as one batch under the test transform."""
    (batch,) = task.plain_batches(task.train if samples is None else samples, CPU)
    return batch


def take_step(method: Method, task: ClassTask, samples: Samples) -> None:
    """Take one step of the current stage along the loss of some samples; the decay moves whatever is optimised."""
    optimizer = torch.optim.SGD(method.stage_parameters(), 0.1, weight_decay=0.1)
    torch.stack(list(method.train().losses(whole_batch(task, samples)).values())).sum().backward()
    optimizer.step()


def tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return copies of all weights and buffers."""
    return {name: value.clone() for name, value in module.state_dict().items()}


def changed(before: dict[str, Tensor], module: nn.Module) -> set[str]:
    """Name the weights and buffers that are not what :func:`tensors` copied."""
    after = module.state_dict()
    return {name for name in before if not torch.equal(before[name], after[name])}


def flags(module: nn.Module) -> dict[str, bool]:
    """Return which parameters are trained."""
    return {name: parameter.requires_grad for name, parameter in module.named_parameters()}
