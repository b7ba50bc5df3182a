"""Speed of the Memory Head: mmcl against the layer as its definition reads, with weights of its own for each sample.

    OMP_NUM_THREADS=1 python experiments/speed/memory_head.py
    OMP_NUM_THREADS=1 python experiments/speed/memory_head.py --only "head 768->10, batch 128"

The straightforward form gathers and blends whole units for each sample, lets autograd find the gradients, updates keys
and counters in a full backward hook, as the released code does, and makes new keys and units where it changes a row;
its optimiser is ``torch.optim.Adam`` as one gets it. A step is forward, cross-entropy, backward and the update of keys
and counters, and the optimiser's step where the name has one. Both sides begin alike and see the same batches; before
the clock runs, gradients and keys of one step are compared (largest difference, gradients scaled to at most 1). The
sides take turns; figures are medians over repeats, in processor time, which other load disturbs least.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
import warnings
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from mmcl.methods.memory_head import MHLinear
from mmcl.methods.memory_head.row_adam import RowAdam

COUNTERS = ("mu", "eta", "key_counter", "scrambling_count")


class PerSampleHead(nn.Module):
    """Memory Head with shared keys, winner-take-all and keys that follow their queries, as the definition reads."""

    def __init__(self, head: MHLinear) -> None:
        super().__init__()
        self.head = (head,)  # options alone; a tuple hides it from torch
        self.M = nn.Parameter(head.M.detach().clone())
        self.register_buffer("K", head.K.clone())
        for name in COUNTERS:
            self.register_buffer(name, getattr(head, name).clone())
        self.register_full_backward_hook(lambda *_: self.give_away_and_move())

    def forward(self, inputs: Tensor) -> Tensor:
        (options,) = self.head
        self.queries = inputs.detach()
        if options.distance == "cosine":
            self.queries = normalize(self.queries, dim=1)
        self.best, self.chosen = torch.topk(self.respond(), options.delta, dim=2)
        attention = torch.softmax(options.gamma_alpha * self.best, dim=2)
        ones = torch.ones(len(inputs))
        self.key_counter[0].scatter_add_(0, self.chosen[:, 0, 0], ones)
        units = self.M.expand(len(inputs), -1, -1, -1)
        picked = units.gather(2, self.chosen[..., None].expand(-1, -1, -1, self.M.shape[2]))
        picked = torch.cat([picked[:, :, :1], picked[:, :, 1:].detach()], dim=2)
        weights = (attention[..., None] * picked).sum(dim=2).view(len(inputs), options.out_features, -1)
        return torch.matmul(weights[:, :, :-1], inputs[:, :, None])[:, :, 0] + weights[:, :, -1]

    def respond(self) -> Tensor:
        (options,) = self.head
        size = math.sqrt(self.K.shape[2])
        if options.distance == "cosine":
            return torch.einsum("bd,qmd->bqm", self.queries, self.K) / size
        return torch.exp(-(torch.cdist(self.queries, self.K[0])[:, None] ** 2) / (size * options.sigma_eu))

    def update(self) -> None:
        """Do nothing; the hook has done it."""

    @torch.no_grad()
    def give_away_and_move(self) -> None:
        (options,) = self.head
        winners, count = self.chosen[:, 0, 0], len(self.queries)
        if options.scramble:
            self.give_away(options, winners)
        if options.distance == "cosine":
            steps = self.queries
        else:
            scale = math.sqrt(self.K.shape[2]) * options.sigma_eu
            steps = self.best[:, 0, :1] * (self.queries - self.K[0, winners]) / scale
        self.K = self.K.clone()
        self.K[0].index_add_(0, winners, options.beta_k * steps)
        if options.distance == "cosine":
            self.K = normalize(self.K, dim=2)
        if count > 1:
            winners = torch.topk(self.respond(), options.delta, dim=2).indices[:, 0, 0]
        if options.scramble:
            self.eta[0, winners] = 0
            self.mu[0].index_add_(0, winners, torch.ones(count))
            self.eta += count

    def give_away(self, options: MHLinear, winners: Tensor) -> None:
        lowest, sample = self.best[:, 0, 0].min(dim=0)
        weak = (self.mu[0] < options.tau_mu) & (self.eta[0] >= options.tau_eta)
        if lowest < options.tau_alpha and weak.any():
            key = (self.eta[0] * weak).argmax()
            keys, units, used = self.K.clone(), self.M.detach().clone(), self.mu.clone()
            keys[0, key], units[0, key], used[0, key] = self.queries[sample], units[0, winners[sample]], 0
            self.K, self.M.data, self.mu = keys, units, used
            self.scrambling_count += 1


class Work(NamedTuple):
    """What is measured.

    Attributes:
        heads: makes the heads of a side.
        batches: inputs ``(n, b, in)`` and labels ``(n, b)``, one batch for each step.
        optimizers: of the straightforward side and of ours; they may make None, which leaves the step out.
        steps: how many of each side make one repeat.
    """

    heads: Callable[[], list[MHLinear]]
    batches: tuple[Tensor, Tensor]
    optimizers: tuple[Callable[[Any], torch.optim.Optimizer | None], ...]
    steps: tuple[int, int]


def step(heads: Iterable[Any], inputs: Tensor, labels: Tensor, optimizer: torch.optim.Optimizer | None) -> None:
    """Take one step of all heads, which share the classes."""
    heads = list(heads)
    for head in heads:
        head.M.grad = None
    cross_entropy(torch.cat([head(inputs) for head in heads], dim=1), labels).backward()
    for head in heads:
        head.update()
    if optimizer is not None:
        optimizer.step()


def seconds_of_steps(heads: list[Any], optimizer: torch.optim.Optimizer | None, work: Work, steps: range) -> float:
    """Take a side's steps on these batches and return the processor seconds of one."""
    start = time.process_time()
    for at in steps:
        step(heads, *batch(work, at), optimizer)
    return (time.process_time() - start) / len(steps)


def batch(work: Work, at: int) -> tuple[Tensor, Tensor]:
    inputs, labels = work.batches
    return inputs[at % len(inputs)], labels[at % len(labels)]


def difference(ours: list[Any], straightforward: list[Any], work: Work) -> float:
    """Take one step of both sides, which begin alike, and return how far gradients and keys are apart."""
    for heads in (ours, straightforward):
        step(heads, *batch(work, 0), None)
    apart = 0.0
    for mine, theirs in zip(ours, straightforward, strict=True):
        scale = float(theirs.M.grad.abs().max()) or 1.0
        apart = max(apart, float((mine.M.grad.to_dense() - theirs.M.grad).abs().max()) / max(1.0, scale))
        apart = max(apart, float((mine.K - theirs.K).abs().max()), float((mine.mu - theirs.mu).abs().max()))
    return apart


def measure(work: Work, repeats: int) -> tuple[list[float], float]:
    """Return the median steps/s of the straightforward side and ours, and how far they were apart."""
    ours = work.heads()
    straightforward = [PerSampleHead(head) for head in ours]
    apart = difference(ours, straightforward, work)
    sides = (straightforward, ours)
    optimizers = [make([head.M for head in heads]) for make, heads in zip(work.optimizers, sides, strict=True)]
    seconds: tuple[list[float], list[float]] = ([], [])
    for repeat in range(repeats + 1):
        for side, count in enumerate(work.steps):
            steps = range(1 + repeat * count, 1 + (repeat + 1) * count)
            seconds[side].append(seconds_of_steps(sides[side], optimizers[side], work, steps))
    return [1 / statistics.median(its[1:]) for its in seconds], apart  # the first repeat warms up


# ------------------------------------------------------------------ works


def clusters(steps: int, batch_size: int, size: int, classes: int, run: int) -> tuple[Tensor, Tensor]:
    """Return a stream of batches around class means; ``run`` batches of a class follow each other, 0 mixes them."""
    labels = torch.randint(classes, (steps, batch_size))
    if run:
        labels = (torch.arange(steps) // run % classes)[:, None].expand(-1, batch_size).clone()
    means = torch.randn(classes, size)
    return means[labels] + 0.5 * torch.randn(steps, batch_size, size), labels


def published(size: int, outputs: int, **others: Any) -> MHLinear:
    """Make a head with the options of the published class-incremental command."""
    options: dict[str, Any] = {"key_mem_units": 10, "delta": 1, "gamma_alpha": 1, "tau_alpha": 0.95}
    options |= {"tau_mu": 500, "tau_eta": 15000, "upd_m": "WTA", "upd_k": "ad_hoc_WTA", "scramble": True}
    return MHLinear(size, outputs, **{**options, **others})


def class_incremental(batch_size: int, delta: int, steps: tuple[int, int]) -> Work:
    return Work(
        lambda: [published(768, 10, delta=delta)], clusters(200, batch_size, 768, 10, 0), (no_step, no_step), steps
    )


def alignment() -> Work:
    optimizers = (sgd, sgd)
    return Work(lambda: [published(768, 10) for _ in range(10)], clusters(20, 256, 768, 100, 0), optimizers, (1, 10))


def large_stream(decay: float) -> Work:
    """Return the stream of 420 samples of a class after another, at the size of the published one."""
    options = {"key_mem_units": 100, "delta": 2, "gamma_alpha": 5, "tau_alpha": 0.7, "tau_mu": 50, "tau_eta": 500}
    keys = {"lr": 1e-4, "weight_decay": decay}
    return Work(
        lambda: [published(512, 100, sparse_gradients=True, **options)],
        clusters(3000, 1, 512, 100, 420),
        (lambda its: torch.optim.Adam(its, **keys), lambda its: RowAdam(its, **keys)),
        (5, 100),
    )


def plane_stream(distance: str) -> Work:
    options = {"delta": 2, "gamma_alpha": 25, "tau_mu": 50, "tau_eta": 50, "beta_k": 0.01, "distance": distance}
    optimizers = (lambda its: torch.optim.Adam(its, lr=1e-2), lambda its: RowAdam(its, lr=1e-2))
    return Work(lambda: [published(2, 4, **options)], clusters(2000, 1, 2, 4, 100), optimizers, (50, 50))


def no_step(its: Any) -> None:
    """Leave the optimiser out."""


def sgd(its: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(its, lr=0.01, momentum=0.9, weight_decay=5e-4)


WORKS: dict[str, tuple[int, Callable[[], Work]]] = {
    "head 768->10, batch 8": (8, lambda: class_incremental(8, 1, (20, 40))),
    "head 768->10, batch 128": (128, lambda: class_incremental(128, 1, (3, 20))),
    "head 768->10, delta 2, batch 8": (8, lambda: class_incremental(8, 2, (20, 40))),
    "head 768->10, delta 2, batch 128": (128, lambda: class_incremental(128, 2, (3, 20))),
    "alignment, ten heads, batch 256, SGD": (256, alignment),
    "stream 512->100, 100 units, Adam": (1, lambda: large_stream(0)),
    "the same, weight decay": (1, lambda: large_stream(1e-3)),
    "stream 2->4, euclidean, Adam": (1, lambda: plane_stream("euclidean")),
    "stream 2->4, cosine, Adam": (1, lambda: plane_stream("cosine")),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=list(WORKS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=21)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore", message="Full backward hook is firing")  # when it does does not matter here
    print(f"{'samples/s':36}{'straightforward':>18}{'mmcl':>12}{'ratio':>8}{'apart':>10}")
    for name, (samples, work) in WORKS.items():
        if options.only in (None, name):
            torch.manual_seed(0)
            (theirs, mine), apart = measure(work(), options.repeats)
            print(f"{name:36}{theirs * samples:18,.1f}{mine * samples:12,.1f}{mine / theirs:8.2f}{apart:10.1e}")


if __name__ == "__main__":
    main()
