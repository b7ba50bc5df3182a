"""Speed of the Memory-Modular Learner's steps: mmcl against the steps as their definition reads.

    OMP_NUM_THREADS=1 python experiments/speed/mml.py
    OMP_NUM_THREADS=1 python experiments/speed/mml.py --only training --repeats 7

The straightforward form scales the whole memory to length 1 and ranks it in each step, normalises and projects all
neighbours as keys and values, and steps with ``torch.optim.Adam`` as one gets it. mmcl finds the neighbours of a query
once, as neither queries nor memory change from step to step; ``first evaluation`` includes that search on both sides.
A training step is forward, cross-entropy, backward and Adam's step. Before the clock runs, losses and gradients of one
batch are compared (largest difference beside the largest gradient of each tensor, without the keys' biases, whose
gradients are 0). The sides take turns; figures are medians over repeats, in processor time, which other load disturbs
least.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from mmcl.memory.search import RowIndex, make_index
from mmcl.methods.mml.learner import ClassKnowledge, MmlLearner, Queries, class_knowledge, near_rows
from mmcl.methods.mml.optimizers import mml_optimizer
from mmcl.methods.mml.readout import side_logits

CLASSES, IMAGES, TEXTS, DIMENSION, BATCH, NEIGHBOURS = 100, 10_000, 15_000, 512, 256, 32


class Side(ABC):
    """One of the two sides."""

    optimizer: torch.optim.Optimizer

    @abstractmethod
    def loss(self, batch: Queries) -> Tensor:
        """Return the mean loss of a batch."""

    def train(self, batch: Queries) -> None:
        """Take a step."""
        self.optimizer.zero_grad()
        self.loss(batch).backward()
        self.optimizer.step()


class Straightforward(Side):
    """The steps as the definition reads."""

    def __init__(self, learner: MmlLearner, knowledge: ClassKnowledge) -> None:
        self.learner, self.knowledge = copy.deepcopy(learner), knowledge
        self.optimizer = torch.optim.Adam(self.learner.parameters(), 1e-6, eps=1e-6, weight_decay=5e-4)

    def logits(self, features: Tensor) -> Tensor:
        learner, knowledge, sides = self.learner, self.knowledge, []
        for block, items in ((learner.attn_img, knowledge.images), (learner.attn_txt, knowledge.texts)):
            scores = normalize(features, dim=1) @ normalize(items, dim=1).T
            near = items[scores.topk(NEIGHBOURS, dim=1).indices]
            sides.append(block.plain(features, near, near) + features)
        prototypes = (knowledge.image_prototypes, knowledge.text_prototypes)
        of_images, of_texts = (side_logits(*pair, learner.temperature) for pair in zip(sides, prototypes, strict=True))
        return of_images + of_texts

    def loss(self, batch: Queries) -> Tensor:
        return cross_entropy(self.logits(batch.features), batch.labels)

    @torch.no_grad()
    def answer(self, batch: Queries) -> None:
        self.logits(batch.features)

    first_answer = answer


class Ours(Side):
    """The steps of mmcl."""

    def __init__(self, learner: MmlLearner, knowledge: ClassKnowledge) -> None:
        self.learner, self.knowledge = copy.deepcopy(learner), knowledge
        self.indexes = [make_index("exact", items) for items in (knowledge.images, knowledge.texts)]
        self.optimizer = mml_optimizer("adam", self.learner.parameters(), 1e-6, 1e-6, 5e-4)

    def loss(self, batch: Queries) -> Tensor:
        return self.learner.batch_loss(batch, self.knowledge)[0]

    @torch.no_grad()
    def answer(self, batch: Queries) -> None:
        self.learner(batch, self.knowledge)

    def first_answer(self, batch: Queries) -> None:
        self.answer(placed(batch.features, batch.labels, self.indexes))


class Work(NamedTuple):
    straightforward: Straightforward
    ours: Ours
    batch: Queries


def placed(features: Tensor, labels: Tensor, indexes: list[RowIndex]) -> Queries:
    images, texts = (near_rows(features, index, NEIGHBOURS, "k") for index in indexes)
    return Queries(features, labels, images, texts)


def make_work() -> Work:
    """Draw classes as clusters in both modalities, with a batch of queries near them."""
    draws = torch.Generator().manual_seed(0)
    centres = torch.randn(2, CLASSES, DIMENSION, generator=draws)

    def around(modality: int, count: int) -> Tensor:
        spread = 2 * torch.randn(count, DIMENSION, generator=draws)
        return centres[modality][torch.arange(count) % CLASSES] + spread

    knowledge = class_knowledge(around(0, IMAGES), around(1, TEXTS), *normalize(centres, dim=2))
    learner = MmlLearner(DIMENSION, 16.0, draws)
    ours = Ours(learner, knowledge)
    batch = placed(around(0, BATCH), torch.arange(BATCH) % CLASSES, ours.indexes)
    return Work(Straightforward(learner, knowledge), ours, batch)


def difference(work: Work) -> tuple[float, float]:
    """Return how far losses and gradients of both sides are apart on one batch."""
    losses, gradients = [], []
    for side in (work.straightforward, work.ours):
        side.optimizer.zero_grad()
        loss = side.loss(work.batch)
        loss.backward()
        losses.append(loss.item())
        gradients.append({name: parameter.grad.clone() for name, parameter in side.learner.named_parameters()})
    apart = 0.0
    for name, theirs in gradients[0].items():
        if name.endswith("ln_k.bias"):
            continue
        distance = (gradients[1][name] - theirs).abs()
        if name.endswith("in_proj_bias"):
            distance[DIMENSION : 2 * DIMENSION] = 0
        apart = max(apart, float(distance.max() / theirs.abs().max()))
    return abs(losses[0] - losses[1]), apart


def seconds(step: Callable[[Queries], None], batch: Queries) -> float:
    start = time.process_time()
    step(batch)
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("training", "evaluation", "first evaluation"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    work = make_work()
    loss, gradient = difference(work)
    print(f"apart: loss {loss:.1e}, gradients {gradient:.1e}")
    print(f"{'queries/s':20}{'straightforward':>18}{'mmcl':>12}{'ratio':>8}")
    for name, step in (("training", "train"), ("evaluation", "answer"), ("first evaluation", "first_answer")):
        if options.only not in (None, name):
            continue
        steps = [getattr(side, step) for side in (work.straightforward, work.ours)]
        for warm_up in steps:
            warm_up(work.batch)
        times = [[seconds(side, work.batch) for side in steps] for _ in range(options.repeats)]
        theirs, mine = (BATCH / statistics.median(column) for column in zip(*times, strict=True))
        print(f"{name:20}{theirs:18,.0f}{mine:12,.0f}{mine / theirs:8.2f}")


if __name__ == "__main__":
    main()
