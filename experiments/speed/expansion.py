"""Speed of MEMO's network at a late task with a frozen base: mmcl against the straightforward structure.

    python experiments/speed/expansion.py --threads 1
    python experiments/speed/expansion.py --threads 2

Reference: images altered one by one with PIL in a DataLoader, plain torch modules in NCHW, branches in a Python loop,
batch norm apart, the same freezing. mmcl: images altered in batches, its own network, freed memory kept. Each side has
a process of its own, because the allocator's setting holds for a whole process; ``reference, tuned`` is the reference
with that setting. The processes take turns, and medians are compared. ``cpu`` is the processor time of the side's main
process: on a busy machine with one thread it is the steadier figure.
"""

from __future__ import annotations

import argparse
import copy
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from mmcl.backbones import ExpandableNetwork, trainable_parameters
from mmcl.backbones.cifar_resnet import cifar_resnet
from mmcl.benchmarks.augmentation import Augmentation
from mmcl.benchmarks.resident import Recipe, ResidentSamples
from mmcl.engine.allocator import keep_freed_memory
from mmcl.methods.losses import expansion_losses
from mmcl.pixels import normalise
from mmcl.protocol import Samples

MEAN, STD = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)
TO_TENSOR = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
TRAIN_TRANSFORM = transforms.Compose(
    [
        transforms.ToPILImage(),
        transforms.RandomCrop(32, padding=4),
        transforms.RandomHorizontalFlip(),
        transforms.ColorJitter(brightness=63 / 255),
        *TO_TENSOR,
    ]
)
TEST_TRANSFORM = transforms.Compose([transforms.ToPILImage(), *TO_TENSOR])
IMAGES, CLASSES_OF_TASK = 4096, 10
Batches = Iterator[tuple[Tensor, Tensor]]
SIDES = ("reference", "reference, tuned", "mmcl")
WORKS = ("evaluation", "evaluation with data", "training step", "training step with data")


class Reference(nn.Module):
    """The same network written the straightforward way."""

    def __init__(self, network: ExpandableNetwork) -> None:
        super().__init__()
        self.trunk = copy.deepcopy(network.trunk)
        self.branches = copy.deepcopy(network.branches)
        self.head = copy.deepcopy(network.head)
        self.auxiliary_head = copy.deepcopy(network.auxiliary_head)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        base = self.trunk(images)
        parts = [branch(base) for branch in self.branches]
        return self.head(torch.cat(parts, dim=1)), self.auxiliary_head(parts[-1])

    def train(self, mode: bool = True) -> Reference:
        super().train(mode)
        for frozen in (self.trunk, *self.branches[:-1]):
            frozen.eval()
        return self


class Pictures(Dataset[tuple[Tensor, Tensor]]):
    """Images that are altered one by one."""

    def __init__(self, samples: Samples, transform: Callable[[Any], Tensor]) -> None:
        self.pictures = list(samples.images.permute(0, 2, 3, 1).numpy())  # type: ignore[union-attr]
        self.labels, self.transform = samples.labels, transform

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        return self.transform(self.pictures[row]), self.labels[row]


def build(depth: int, tasks: int) -> ExpandableNetwork:
    """Build a network of ten classes a task, with running statistics that are not trivial."""
    torch.manual_seed(0)
    network = ExpandableNetwork(lambda: cifar_resnet(depth), train_base=False, train_adaptive=False)
    for task in range(tasks):
        network.expand(CLASSES_OF_TASK * (task + 1))
        network.train()
        with torch.no_grad():
            network(torch.randn(64, 3, 32, 32))
    return network


def picture_batches(samples: Samples, size: int, transform: Callable[[Any], Tensor], workers: int) -> Batches:
    loader = DataLoader(Pictures(samples, transform), size, shuffle=True, num_workers=workers, drop_last=True)
    while True:
        yield from loader


def resident_batches(samples: Samples, size: int) -> Batches:
    resident = ResidentSamples(samples, Recipe(Augmentation(), MEAN, STD), (1993, 5, "main"))
    for epoch in count():
        for rows in torch.randperm(len(samples)).split(size)[: len(samples) // size]:
            batch = resident.batch(rows, epoch, 1.0)
            yield batch.images, batch.labels


def plain_batches(samples: Samples, size: int) -> Batches:
    while True:
        for start in range(0, len(samples) - size + 1, size):
            pixels, labels = samples.images[start : start + size], samples.labels[start : start + size]
            yield normalise(pixels, MEAN, STD), labels  # type: ignore[arg-type]


def evaluate(network: nn.Module, batches: Batches) -> None:
    images, _ = next(batches)
    with torch.inference_mode():
        network.eval()(images)


def train(network: nn.Module, batches: Batches, optimiser: torch.optim.Optimizer, known: int) -> None:
    images, labels = next(batches)
    logits, auxiliary_logits = network.train()(images)[:2]
    terms = expansion_losses(logits, auxiliary_logits, labels, known, 1.0)
    optimiser.zero_grad()
    torch.stack(list(terms.values())).sum().backward()
    optimiser.step()


def works_of(side: str, options: argparse.Namespace) -> tuple[nn.Module, dict[str, Callable[[], None]]]:
    """Return a side's network and what is timed."""
    ours, known = build(options.depth, options.tasks), CLASSES_OF_TASK * (options.tasks - 1)
    labels = torch.arange(IMAGES) % (known + CLASSES_OF_TASK)
    samples = Samples(torch.randint(256, (IMAGES, 3, 32, 32), dtype=torch.uint8), labels, torch.arange(IMAGES))
    network: nn.Module = ours if side == "mmcl" else Reference(ours)
    if side == "mmcl":
        tests, trains = plain_batches(samples, options.test_batch), resident_batches(samples, options.train_batch)
    else:
        tests = picture_batches(samples, options.test_batch, TEST_TRANSFORM, options.workers)
        trains = picture_batches(samples, options.train_batch, TRAIN_TRANSFORM, options.workers)
    optimiser = torch.optim.SGD(trainable_parameters(network), lr=0.01, momentum=0.9, weight_decay=2e-4)
    ready = [(torch.randn(size, 3, 32, 32), labels[:size]) for size in (options.test_batch, options.train_batch)]
    works: list[Callable[[], None]] = [
        partial(evaluate, network, iter(lambda: ready[0], None)),
        partial(evaluate, network, tests),
        partial(train, network, iter(lambda: ready[1], None), optimiser, known),
        partial(train, network, trains, optimiser, known),
    ]
    return network, dict(zip(WORKS, works, strict=True))


def serve(side: str, options: argparse.Namespace, pipe: Connection) -> None:
    """Answer in a process of its own: first with logits, then with the seconds of each work that is asked for."""
    torch.set_num_threads(options.threads)
    if side != "reference":
        keep_freed_memory()
    network, works = works_of(side, options)
    with torch.inference_mode():
        pipe.send(network.eval()(torch.linspace(-2, 2, 100 * 3072).view(100, 3, 32, 32))[0].numpy())
    while (work := pipe.recv()) is not None:
        wall, processor = time.perf_counter(), time.process_time()
        works[work]()
        pipe.send((time.perf_counter() - wall, time.process_time() - processor))


def take_turns(pipes: dict[str, Connection], work: str, repeats: int) -> dict[str, tuple[float, float]]:
    """Return the median wall and processor seconds of a work for each side."""
    seconds: dict[str, list[tuple[float, float]]] = {side: [] for side in pipes}
    for repeat in range(repeats + 2):
        for side, pipe in pipes.items():
            pipe.send(work)
            answer = pipe.recv()
            if repeat >= 2:
                seconds[side].append(answer)
    return {
        side: (statistics.median(wall for wall, _ in its), statistics.median(cpu for _, cpu in its))
        for side, its in seconds.items()
    }


def report(work: str, size: int, seconds: dict[str, tuple[float, float]]) -> None:
    """Print images per second of each side, and how many times as fast mmcl is."""
    print(f"{work}, batches of {size}")
    for side, (wall, processor) in seconds.items():
        ratios = [its / own for its, own in zip((wall, processor), seconds["mmcl"], strict=True)]
        rates = f"{size / wall:6.0f} img/s wall, {size / processor:6.0f} img/s cpu"
        print(f"  {side:<17} {rates}   mmcl is {ratios[0]:.2f} (wall), {ratios[1]:.2f} (cpu) times as fast")


def main() -> None:
    """Compare outputs, then the speed of evaluation and of a training step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, help="of the reference's loaders; default: none with one thread, else 2")
    parser.add_argument("--depth", type=int, default=32)
    parser.add_argument("--tasks", type=int, default=5)
    parser.add_argument("--train-batch", type=int, default=128)
    parser.add_argument("--test-batch", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    if options.workers is None:
        options.workers = 0 if options.threads == 1 else 2

    context = multiprocessing.get_context("spawn")
    pipes, processes = {}, []
    for side in SIDES:
        pipes[side], end = context.Pipe()
        processes.append(context.Process(target=serve, args=(side, options, end)))
        processes[-1].start()
    logits = {side: torch.from_numpy(pipe.recv()) for side, pipe in pipes.items()}
    difference = (logits["mmcl"] - logits["reference"]).abs().max() / logits["reference"].abs().max()
    print(f"ResNet-{options.depth}, {options.tasks} branches, frozen base; threads {options.threads}, ", end="")
    print(f"loader workers of the reference {options.workers}, medians of {options.repeats}")
    print(f"largest relative difference of logits {difference:.1e}")
    for work in WORKS:
        size = options.test_batch if work.startswith("evaluation") else options.train_batch
        report(work, size, take_turns(pipes, work, options.repeats))
    for pipe in pipes.values():
        pipe.send(None)
    for process in processes:
        process.join()


if __name__ == "__main__":
    main()
