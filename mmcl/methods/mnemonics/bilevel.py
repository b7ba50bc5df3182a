"""The two bilevel forms of the exemplar level, on images: a classifier or a whole network is trained on the exemplars.

Liu, Su, Liu, Schiele, Sun, "Mnemonics Training: Multi-Class Incremental Learning without Forgetting", CVPR 2020.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from mmcl.methods.mnemonics.unrolling import (
    UNROLLINGS,
    InnerProblem,
    exemplar_sets,
    inner_parameter_names,
    unrolled_fc_loss,
)


class BilevelLoss(Protocol):
    """The loss ``()`` for queries of a model trained on exemplars, differentiable to the exemplars."""

    def __call__(self, exemplars: Tensor, labels: Tensor, query_images: Tensor, query_labels: Tensor) -> Tensor:
        """Train on ``(R, 3, H, W)`` with labels ``(R,)``, judge by ``(N, 3, H, W)`` with labels ``(N,)``."""


@dataclass(frozen=True)
class UnrolledClassifier:
    """Trains the classifier alone, by :func:`~mmcl.methods.mnemonics.unrolling.unrolled_fc_loss`.

    Attributes:
        network: frozen and in eval mode; gives ``features`` and has a ``head`` with ``weight``.
        inner_lr: learning rate of every step.
        inner_epochs: how often all sets have their turn.
        sets: into how many sets the exemplars are dealt; 1 is a step on all of them.
    """

    network: nn.Module
    inner_lr: float
    inner_epochs: int
    sets: int

    def __call__(self, exemplars: Tensor, labels: Tensor, query_images: Tensor, query_labels: Tensor) -> Tensor:
        """Return the loss ``()``; one pass over the exemplars and one, without graph, over the queries."""
        weight: Tensor = self.network.get_submodule("head").weight  # type: ignore[assignment]
        sets = exemplar_sets(labels, self.sets)
        with torch.no_grad():
            query_features = self.network(query_images).features
        return unrolled_fc_loss(
            weight.detach(),
            self.network(exemplars).features,
            labels,
            sets,
            [self.inner_lr] * len(sets),
            self.inner_epochs,
            query_features,
            query_labels,
        )


@dataclass(frozen=True)
class UnrolledNetwork:
    """Trains all that trains of the network, on all exemplars in each step.

    Attributes:
        network: in eval mode; gives ``logits``.
        inner_lr: learning rate of every step.
        inner_steps: number of steps.
        unrolling: a name of ``UNROLLINGS``, which differ in memory and time only.
    """

    network: nn.Module
    inner_lr: float
    inner_steps: int
    unrolling: str

    def __call__(self, exemplars: Tensor, labels: Tensor, query_images: Tensor, query_labels: Tensor) -> Tensor:
        """Return the loss ``()``."""
        names = inner_parameter_names(self.network)
        problem = InnerProblem(self.network, names, labels, self.inner_lr, self.inner_steps)
        return UNROLLINGS[self.unrolling](problem, exemplars, query_images, query_labels)
