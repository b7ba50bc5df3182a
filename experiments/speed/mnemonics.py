"""Speed of Mnemonics' parts on CIFAR-100: mmcl against the straightforward way.

    python experiments/speed/mnemonics.py
    python experiments/speed/mnemonics.py --only "exemplar step" herding --repeats 15

Both sides have the same ResNet-32 at the third task (60 old classes, 10 new ones, weight transfer) and random images.
Straightforward: images altered one by one with PIL, torch modules as they are, a reference that scales its weights in
every step, features of exemplars extracted again in each epoch of nme_ft, class means over all images of all classes
in two views before and after the exemplars are learnt, exemplars class by class with gradients of everything. mmcl:
what its runs call. Per turn, the straightforward side does one epoch of nme_ft and the means of one class, mmcl does
fifty epochs and the means of all classes; rates are of one epoch and of one class of a phase.

Each side has a process of its own, because mmcl's setting of the allocator holds for a whole process; ``--tuned`` gives
the other one that setting, too. The sides take turns. Rates are medians by processor time, a ratio is the median of
those of the turns. ``apart`` is how far the answers of both sides are apart beside the largest: gradients of a step's
loss (both in float64), class means, features, picked rows.
"""

from __future__ import annotations

import argparse
import copy
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import count
from multiprocessing.connection import Connection
from typing import NamedTuple

import torch
from mnemonics_straightforward import (
    BASE,
    CLASSES,
    EPOCHS,
    HERDED,
    LAST_TASK,
    NEW,
    OLD,
    TUNED_CLASSES,
    TUNING_BATCH,
    TUNING_RATE,
    Noise,
    Scene,
    Shared,
    Side,
    Straightforward,
    Work,
    answerable,
    gradients,
    in_float64,
    training_straightforward,
)
from torch import Tensor

from mmcl.backbones.freezing import freeze
from mmcl.benchmarks.cifar import CifarConfig
from mmcl.engine.allocator import keep_freed_memory
from mmcl.memory.fast_means import FastMeans, keyed_orders
from mmcl.memory.herding_lucir import herd_lucir
from mmcl.memory.nearest_mean import TwoViewNearestMean
from mmcl.methods.class_incremental import encode
from mmcl.methods.cosine_incremental import SECOND_VIEWS
from mmcl.methods.mnemonics.prototype_level import PrototypeLevel
from mmcl.protocol import Batch, Samples

STEPS = {  # base, batch size and task of a training step
    "first task, batch 128": ("lucir", 128, 0),
    "LUCIR, batch 128": ("lucir", 128, LAST_TASK),
    "LUCIR, batch 64": ("lucir", 64, LAST_TASK),
    "distillation, batch 128": ("distillation", 128, LAST_TASK),
    "distillation, batch 64": ("distillation", 64, LAST_TASK),
}
SIDES = ("straightforward", "mmcl")
UNITS = dict.fromkeys(STEPS, "images/s") | {
    "nme_ft": "epochs/s",
    "class means": "classes/s",
    "herding": "classes/s",
    "exemplar step": "steps/s",
    "features": "images/s",
}


def training_of_mmcl(scene: Scene, benchmark: Noise, shared: Shared, size: int) -> Work:
    method, stage = scene.method, scene.method.stage
    optimizer, _ = method.optimizer_of(stage)
    batches = endless(scene, benchmark, size)

    def loss_of(batch: Batch) -> Tensor:
        return torch.stack(list(method.losses(batch).values())).sum()

    def step() -> None:
        loss = loss_of(next(batches))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    def answer() -> Tensor:
        with in_float64(method):
            return gradients(method.stage_parameters(), loss_of(answerable(shared.batch, scene)))

    return Work(size, step, answer)


class Mmcl(Side):
    """The other works."""

    def __init__(self, scene: Scene, shared: Shared) -> None:
        super().__init__(scene.network, scene, shared)
        self.judge = freeze(copy.deepcopy(scene.network))
        self.fast, self.nearest = FastMeans(), TwoViewNearestMean()

    def features(self, samples: Samples, alter: Callable[[Tensor], Tensor] = lambda images: images) -> Tensor:
        return encode(self.network, self.scene.task, samples, torch.device("cpu"), alter)

    def tuned(self, epochs: int) -> Tensor:
        orders, start = keyed_orders(len(self.few), epochs, "orders"), self.shared.old_means[:TUNED_CLASSES]
        features = self.features(self.few)
        self.fast.train_on(features, self.few.labels, start, orders, TUNING_RATE, TUNING_BATCH)
        return self.fast.means

    def means(self, samples: Samples) -> Tensor:
        """Return the means of all classes that occur, which come first."""
        scale, view = self.scene.task.pixel_scale, SECOND_VIEWS["channel_reverse"]
        assert view is not None
        second = self.features(samples, lambda images: scale.normalise(view(scale.denormalise(images))))
        self.nearest.renew(self.features(samples), second, samples.labels, int(samples.labels.max()) + 1)
        return self.nearest.means

    def exemplar_loss(self, dtype: torch.dtype) -> Tensor:
        shared, images = self.shared, self.exemplars.to(dtype)
        level = PrototypeLevel(self.judge, shared.old_means.to(dtype), CLASSES)
        return level(images, shared.exemplar_labels, shared.queries.to(dtype), shared.query_labels)

    def picks(self) -> Tensor:
        return herd_lucir(self.shared.features, self.shared.labels, HERDED)

    def works(self) -> dict[str, Work]:
        kept = self.scene.kept
        return self.complete(
            {"nme_ft": (EPOCHS, lambda: self.tuned(EPOCHS)), "class means": (OLD, lambda: self.means(kept))}
        )


def endless(scene: Scene, benchmark: Noise, size: int) -> Iterator[Batch]:
    for epoch in count():
        yield from benchmark.augmented_batches(scene.method.stage.samples, size, ("steps", epoch), scene.method.device)


def works_of(side: str, names: list[str]) -> dict[str, Work]:
    keys = {name: None for name in CifarConfig.__dataclass_fields__}
    settings = {"base": BASE, "increment": NEW, "order_seed": 1993, "exact": False, "workers": 0, "steps_per_block": 50}
    benchmark, shared = Noise(CifarConfig(**{**keys, **settings})), Shared()  # type: ignore[arg-type]
    works: dict[str, Work] = {}
    for name, (base, size, task) in STEPS.items():
        if name in names:
            scene = Scene(benchmark, base, task)
            if side == "mmcl":
                works[name] = training_of_mmcl(scene, benchmark, shared, size)
            else:
                works[name] = training_straightforward(scene, shared, base, size)
    scene = Scene(benchmark, "lucir", LAST_TASK)
    others = (Mmcl if side == "mmcl" else Straightforward)(scene, shared).works()
    return works | {name: work for name, work in others.items() if name in names}


def serve(side: str, options: argparse.Namespace, pipe: Connection) -> None:
    """Answer in a process of its own: first to the shared inputs, then with the seconds of each work asked for."""
    torch.set_num_threads(options.threads)
    if side == "mmcl" or options.tuned:
        keep_freed_memory()
    works = works_of(side, options.only)
    pipe.send({name: (work.units, work.answer().detach().double().numpy()) for name, work in works.items()})
    while (name := pipe.recv()) is not None:
        wall, processor = time.perf_counter(), time.process_time()
        works[name].run()
        pipe.send((time.perf_counter() - wall, time.process_time() - processor))


class Seconds(NamedTuple):
    wall: float
    processor: float


def take_turns(pipes: dict[str, Connection], name: str, repeats: int) -> list[tuple[Seconds, ...]]:
    """Return what each turn took of both sides; the first turn, which warms up, is left out."""
    turns = []
    for _ in range(repeats + 1):
        turn = []
        for side in SIDES:
            pipes[side].send(name)
            turn.append(Seconds(*pipes[side].recv()))
        turns.append(tuple(turn))
    return turns[1:]


def report(name: str, turns: list[tuple[Seconds, ...]], units: list[float], apart: float) -> None:
    theirs, ours = (
        its_units / statistics.median(turn[side].processor for turn in turns) for side, its_units in enumerate(units)
    )
    walls, processors = (
        statistics.median(getattr(turn[0], clock) / units[0] / getattr(turn[1], clock) * units[1] for turn in turns)
        for clock in Seconds._fields
    )
    print(f"{name:26}{theirs:16.4g}{ours:12.4g}{processors:8.2f}{walls:8.2f}{apart:10.1e}  {UNITS[name]}", flush=True)


def main() -> None:
    """Compare the answers of both sides, then their speed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(UNITS), default=list(UNITS), metavar="WORK")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tuned", action="store_true", help="the straightforward side keeps freed memory, too")
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()

    context = multiprocessing.get_context("spawn")
    pipes, processes = {}, []
    for side in SIDES:
        pipes[side], end = context.Pipe()
        processes.append(context.Process(target=serve, args=(side, options, end)))
        processes[-1].start()
    answers = [pipes[side].recv() for side in SIDES]
    print(f"threads {options.threads}, medians of {options.repeats}")
    print(f"{'':26}{'straightforward':>16}{'mmcl':>12}{'ratio':>8}{'wall':>8}{'apart':>10}")
    for name in (name for name in UNITS if name in options.only):
        units, values = zip(*(answer[name] for answer in answers), strict=True)
        apart = abs(values[0] - values[1]).max() / abs(values[0]).max()
        report(name, take_turns(pipes, name, options.repeats), list(units), apart)
    for side, process in zip(SIDES, processes, strict=True):
        pipes[side].send(None)
        process.join()


if __name__ == "__main__":
    main()
