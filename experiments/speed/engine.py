"""What the engine adds to a training step: a raw torch loop against the same steps through trainer and method.

    python experiments/speed/engine.py

The network is tiny, so that a step takes well under a millisecond and the engine shows. Both sides train on the same
batches with the same loss and the same optimiser. The engine's part of a step is the difference between the sides,
everything between two epochs included; steps come in blocks of 50, as runs have them, and alone. With one thread and
nothing to wait for, processor time is what a quiet machine takes, and other load disturbs it least.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.nn import functional

from mmcl.benchmarks.class_incremental import ClassIncrementalBenchmark, ClassIncrementalBenchmarkConfig, RawData
from mmcl.benchmarks.resident import Recipe, ResidentSamples
from mmcl.config.locate import shipped_folder
from mmcl.config.schema import Schedule
from mmcl.engine.progress import Progress
from mmcl.engine.stages import fit_stage
from mmcl.methods.base import Method, sgd
from mmcl.protocol import Batch, Samples, Stage, Task

BATCH_SIZE, CLASSES, SIDE = 32, 10, 8


class Noise(ClassIncrementalBenchmark):
    """Random images."""

    images = 0

    def read(self) -> RawData:
        generator = torch.Generator().manual_seed(0)
        pixels = torch.randint(256, (self.images, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)
        samples = Samples(pixels, torch.arange(self.images) % CLASSES, torch.arange(self.images))
        return RawData(samples, samples.select(torch.arange(CLASSES)), [str(label) for label in range(CLASSES)])


class Tiny(Method):
    """A linear classifier of pixels."""

    def __init__(self) -> None:
        super().__init__(None, None)  # type: ignore[arg-type]
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, CLASSES))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        return {"classification": functional.cross_entropy(self.network(batch.images), batch.labels)}


class Clock(Progress):
    """Notes the processor time at the end of each epoch."""

    def __init__(self) -> None:
        super().__init__(task_count=1, speaks=False, bar=False)
        self.ends: list[float] = []

    def epoch_done(
        self, task: Task, stage: Stage, position: tuple[int, int], epoch: int, figures: dict[str, float]
    ) -> None:
        self.ends.append(time.process_time())


def seconds_of_epochs(ends: list[float]) -> list[float]:
    """Return the processor seconds of epochs; the first epoch, which warms up, is left out."""
    return [after - before for before, after in zip(ends, ends[1:], strict=False)]


def in_engine(benchmark: Noise, schedule: Schedule, trainer_config: Any) -> tuple[Tiny, list[float]]:
    method, clock, task = Tiny(), Clock(), benchmark.task(0)
    with tempfile.TemporaryDirectory() as folder:
        fit_stage(
            method,
            benchmark,
            task,
            Stage("main", task.train, schedule),
            position=(0, 1),
            seed=1,
            trainer_config=trainer_config,
            folder=Path(folder),
            metrics=None,
            progress=clock,
        )
    return method, seconds_of_epochs(clock.ends)


def in_raw_loop(benchmark: Noise, schedule: Schedule) -> tuple[Tiny, list[float]]:
    method, draw = Tiny(), (1, 0, "main")
    benchmark.serve_training(benchmark.task(0).train, schedule.batch_size, draw)
    order = benchmark.train_dataloader().sampler  # type: ignore[attr-defined]
    recipe = Recipe(benchmark.augmentation, benchmark.mean, benchmark.std)
    samples = ResidentSamples(benchmark.task(0).train, recipe, draw)
    optimizer, scheduler = sgd(list(method.parameters()), schedule)
    ends = []
    for epoch in range(schedule.epochs):
        order.set_epoch(epoch)
        for step in order:
            batch = samples.batch(step.rows, epoch, step.share)
            loss = method.losses(batch)["classification"]
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        scheduler.step()
        ends.append(time.process_time())
    return method, seconds_of_epochs(ends)


def benchmark_of(images: int, steps_per_block: int) -> Noise:
    keys = {key: None for key in ClassIncrementalBenchmarkConfig.__dataclass_fields__}
    settings = {"name": "noise", "base": CLASSES, "increment": CLASSES, "order_seed": 1, "exact": False, "workers": 0}
    benchmark = Noise(ClassIncrementalBenchmarkConfig(**{**keys, **settings, "steps_per_block": steps_per_block}))  # type: ignore[arg-type]
    benchmark.images = images
    benchmark.setup()
    return benchmark


def main() -> None:
    """Time all in turn and print milliseconds of a step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=500, help="of an epoch")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)

    trainer_config = OmegaConf.load(shipped_folder("conf") / "trainer" / "cpu.yaml")
    trainer_config.checkpoint_every_n_epochs = 0
    schedule = Schedule(options.epochs, BATCH_SIZE, 0.1, 0.9, 5e-4, "multistep", [], 0.1, None)
    blocks, alone = (benchmark_of(options.steps * BATCH_SIZE, size) for size in (50, 1))
    sides = {
        "raw loop": lambda: in_raw_loop(blocks, schedule),
        "engine, blocks of 50": lambda: in_engine(blocks, schedule, trainer_config),
        "engine, blocks of 1": lambda: in_engine(alone, schedule, trainer_config),
    }
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    weights = {}
    for _ in range(options.rounds):
        for side, run in sides.items():
            method, its_seconds = run()
            weights[side] = method.network[1].weight.detach()
            seconds[side] += its_seconds
    print(f"same weights afterwards: {all(weight.equal(weights['raw loop']) for weight in weights.values())}")
    for name, figure in (("median", statistics.median), ("quietest epoch", min)):
        milliseconds = {side: 1000 * figure(its) / options.steps for side, its in seconds.items()}
        for side, its in milliseconds.items():
            print(f"{name:<14} {side:<20} {its:.3f} ms a step, {its - milliseconds['raw loop']:+.3f} ms")


if __name__ == "__main__":
    main()
