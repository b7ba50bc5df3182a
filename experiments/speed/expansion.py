"""Speed of MEMO's network at a late task with a frozen base: ours against the straightforward structure.

    python -m experiments.speed.expansion --threads 1

Reference: plain torch modules in NCHW, branches in a Python loop, batch norm unfolded, the same freezing.
Both sides run in turn, A B A B, and the medians are compared. Outputs are compared first.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmcl.backbones import ExpandableNetwork, trainable_parameters
from mmcl.backbones.cifar_resnet import cifar_resnet


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


def build(depth: int, tasks: int) -> ExpandableNetwork:
    """Build a network of ten classes a task, with running statistics that are not trivial."""
    torch.manual_seed(0)
    network = ExpandableNetwork(lambda: cifar_resnet(depth), train_base=False, train_adaptive=False)
    for task in range(tasks):
        network.expand(10 * (task + 1))
        network.train()
        with torch.no_grad():
            network(torch.randn(64, 3, 32, 32))
    return network


def training_step(network: nn.Module, images: Tensor, labels: Tensor, known: int) -> Callable[[], None]:
    """Return one step of stochastic gradient descent on MEMO's loss."""
    optimiser = torch.optim.SGD(trainable_parameters(network), lr=0.01, momentum=0.9, weight_decay=2e-4)

    def step() -> None:
        logits, auxiliary_logits = network(images)[:2]
        auxiliary_labels = (labels - known + 1).clamp(min=0)
        loss = functional.cross_entropy(logits, labels)
        loss = loss + functional.cross_entropy(auxiliary_logits, auxiliary_labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return step


def evaluation(network: nn.Module, images: Tensor) -> Callable[[], None]:
    """Return one pass over a test batch."""

    def evaluate() -> None:
        with torch.inference_mode():
            network(images)

    return evaluate


def medians_ms(first: Callable[[], None], second: Callable[[], None], repeats: int) -> tuple[float, float]:
    """Time two functions in turn; milliseconds."""
    times: tuple[list[float], list[float]] = ([], [])
    for repeat in range(repeats + 1):
        for function, kept in zip((first, second), times, strict=True):
            start = time.perf_counter()
            function()
            if repeat > 0:
                kept.append(1000 * (time.perf_counter() - start))
    return statistics.median(times[0]), statistics.median(times[1])


def compare(title: str, size: int, reference: Callable[[], None], ours: Callable[[], None], repeats: int) -> None:
    """Print images per second of both sides and their ratio."""
    slow, fast = medians_ms(reference, ours, repeats)
    rates = f"reference {1000 * size / slow:7.0f} img/s   mmcl {1000 * size / fast:7.0f} img/s"
    print(f"{title:<28} {rates}   ratio {slow / fast:.2f}")


def main() -> None:
    """Compare outputs, then the speed of a training step and of evaluation."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--depth", type=int, default=32)
    parser.add_argument("--tasks", type=int, default=5)
    parser.add_argument("--train-batch", type=int, default=128)
    parser.add_argument("--test-batch", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    ours = build(options.depth, options.tasks)
    reference = Reference(ours)
    classes = 10 * options.tasks
    images = torch.randn(options.train_batch, 3, 32, 32)
    labels = torch.randint(classes, (options.train_batch,))
    tests = torch.randn(options.test_batch, 3, 32, 32)
    ours.eval(), reference.eval()
    with torch.no_grad():
        expected, actual = reference(tests[:64])[0], ours(tests[:64]).logits
    difference = (expected - actual).abs().max() / expected.abs().max()
    print(f"largest relative difference of logits {difference:.1e}")
    compare(
        f"evaluation, {options.tasks} branches",
        options.test_batch,
        evaluation(reference, tests),
        evaluation(ours, tests),
        options.repeats,
    )
    ours.train(), reference.train()
    for frozen in (reference.trunk, *reference.branches[:-1]):
        frozen.eval()
    compare(
        f"training step, {options.tasks} branches",
        options.train_batch,
        training_step(reference, images, labels, classes - 10),
        training_step(ours, images, labels, classes - 10),
        options.repeats,
    )


if __name__ == "__main__":
    main()
