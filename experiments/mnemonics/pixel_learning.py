"""At which rate do pixels of exemplars learn, and is it worth anything to a classifier that sees these exemplars alone?

    python experiments/mnemonics/pixel_learning.py RUN

RUN is the directory of a finished run of a cosine method, such as lucir, with its ``first_task.pt``. Its first network
stands still. Random exemplars of the first task's classes are learned from one half of the training images, at one
rate after the other, and judged by the other half: the loss that is minimised, and the accuracy of the nearest class
mean of the exemplars and of a head that is trained on the exemplars alone. No test image is read.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from torch import Tensor, nn

from mmcl.backbones.cosine_head import cosine_scores
from mmcl.backbones.freezing import freeze
from mmcl.config.components import build
from mmcl.config.schema import ExemplarSchedule
from mmcl.config.strict import checked
from mmcl.engine.assemble import build_method
from mmcl.memory.herding import selector
from mmcl.memory.nearest_mean import two_view_means, unit_products
from mmcl.methods.class_incremental import encode, read_weights
from mmcl.methods.mnemonics.bilevel import BilevelLoss, UnrolledClassifier, UnrolledNetwork
from mmcl.methods.mnemonics.mnemonics import pixel_optimizer
from mmcl.methods.mnemonics.prototype_level import PrototypeLevel
from mmcl.protocol import Samples
from mmcl.randomness import permutation

PER_CLASS = 20
PER_STEP = 5
QUERIES = 125
CHUNK = 500


class Judge:
    """The network of a first task, its training images in two halves, and what exemplars are worth on the second."""

    def __init__(self, run: Path) -> None:
        config = checked(OmegaConf.create(json.loads((run / "result.json").read_text())["config"]))
        self.seed: int = config.seed
        benchmark = build(config.benchmark)
        benchmark.setup()
        method: Any = build_method(config, benchmark)
        self.task = benchmark.task(0)
        method.grow(self.task)
        method.network.load_state_dict(read_weights(str(run / "first_task.pt")))
        self.network: Any = freeze(method.network)
        order = permutation(len(self.task.train), self.seed, "halves")
        half = len(order) // 2
        self.queries, self.unseen = (self.task.train.select(rows) for rows in (order[:half], order[half:]))
        self.unseen_features = self._features(self.unseen)

    def chosen(self, rule: str) -> tuple[Tensor, Tensor]:
        """Return normalised exemplars ``(R, 3, H, W)`` that a rule picks among the queries, and their labels."""
        rows = selector(rule, self.seed, "picks")(self._features(self.queries), self.queries.labels, PER_CLASS)
        return self.images(self.queries.select(rows)), self.queries.labels[rows]

    def images(self, samples: Samples) -> Tensor:
        """Return samples under the test transform."""
        return torch.cat([batch.images for batch in self.task.plain_batches(samples, torch.device("cpu"))])

    def worth(self, exemplars: Tensor, labels: Tensor) -> dict[str, float]:
        """Return percent of the unseen half that exemplars classify right, by their means and by a head of their own.

        The head begins at random rows and is trained on the exemplars for 100 full steps of Adam.
        """
        with torch.no_grad():
            features = torch.cat([self.network(part).features for part in exemplars.split(CHUNK)])
        means = two_view_means(features, features, labels, self.task.seen)
        by_means = (unit_products(self.unseen_features, means).argmax(1) == self.unseen.labels).float().mean()
        torch.manual_seed(self.seed)
        weight = nn.Parameter(torch.randn(self.task.seen, features.shape[1]))
        optimizer = torch.optim.Adam([weight], 0.05)
        for _ in range(100):
            optimizer.zero_grad()
            F.cross_entropy(10 * cosine_scores(features, weight), labels).backward()
            optimizer.step()
        by_head = (cosine_scores(self.unseen_features, weight).argmax(1) == self.unseen.labels).float().mean()
        return {"nme": 100 * float(by_means), "head": 100 * float(by_head)}

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield queries of one epoch."""
        for rows in permutation(len(self.queries), self.seed, "queries", epoch).split(QUERIES):
            samples = self.queries.select(rows)
            yield self.images(samples), samples.labels

    def _features(self, samples: Samples) -> Tensor:
        return encode(self.network, self.task, samples, torch.device("cpu"))


def learn(judge: Judge, level: BilevelLoss, start: Tensor, labels: Tensor, schedule: ExemplarSchedule) -> Any:
    """Learn pixels for ``schedule.epochs`` steps; return them, the first and last tenth's losses, and the seconds."""
    exemplars = nn.Parameter(start.clone())
    optimizer, _ = pixel_optimizer(exemplars, schedule)
    losses: list[float] = []
    began = time.perf_counter()
    batches = (batch for epoch in range(schedule.epochs) for batch in judge.batches(epoch))
    for step, (images, query_labels) in zip(range(schedule.epochs), batches, strict=False):
        order = permutation(PER_CLASS, judge.seed, "step", step)[:PER_STEP]
        rows = (torch.arange(0, len(labels), PER_CLASS)[:, None] + order).flatten()
        loss = level(exemplars[rows], labels[rows], images, query_labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    tenth = max(1, len(losses) // 10)
    return exemplars.detach(), sum(losses[:tenth]) / tenth, sum(losses[-tenth:]) / tenth, time.perf_counter() - began


def main() -> None:
    """Print one line for each way to come by exemplars."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--levels", nargs="+", default=["nme", "unrolled_fc", "unrolled_full"])
    parser.add_argument("--rates", nargs="+", default=["adam:0.001", "adam:0.01", "adam:0.1", "sgd:1", "sgd:1000"])
    parser.add_argument("--inner", type=float, nargs=2, default=(1.0, 5), metavar=("RATE", "STEPS"), help="unrolled_fc")
    arguments = parser.parse_args()
    judge = Judge(arguments.run)
    levels: dict[str, BilevelLoss] = {
        "nme": PrototypeLevel(judge.network, None, judge.task.seen),
        "unrolled_fc": UnrolledClassifier(judge.network, arguments.inner[0], int(arguments.inner[1]), 1),
        "unrolled_full": UnrolledNetwork(judge.network, 0.1, 3, "stepwise"),
    }
    head = f"{'exemplars':28} {'first loss':>10} {'last loss':>10} {'drift':>8} {'nme':>6} {'head':>6} {'seconds':>8}"
    print(head, flush=True)
    for rule in ("random", "herding_lucir"):
        worth = judge.worth(*judge.chosen(rule))
        print(f"{rule:28} {'':>10} {'':>10} {0:8.3f} {worth['nme']:6.2f} {worth['head']:6.2f}", flush=True)
    start, labels = judge.chosen("random")
    for name in arguments.levels:
        for rate in arguments.rates:
            optimizer, lr = rate.split(":")
            momentum = 0.5 if optimizer == "adam" else 0.0
            schedule = ExemplarSchedule(arguments.steps, QUERIES, optimizer, float(lr), momentum, 0.0, 1.0, 1)
            learned, first, last, seconds = learn(judge, levels[name], start, labels, schedule)
            drift = float((learned - start).flatten(1).norm(dim=1).mean())
            worth = judge.worth(learned, labels)
            figures = f"{first:10.4f} {last:10.4f} {drift:8.3f} {worth['nme']:6.2f} {worth['head']:6.2f} {seconds:8.1f}"
            print(f"{name + ' ' + rate:28} {figures}", flush=True)


if __name__ == "__main__":
    main()
