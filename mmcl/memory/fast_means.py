"""Class means that a few epochs over the memory's features train further: the readout ``nme_ft`` of Mnemonics.

Liu, Su, Liu, Schiele, Sun, "Mnemonics Training", CVPR 2020, in the released code. The features are encoded once and
stay as they are, so that a step is two small matrix products.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from mmcl.memory.nearest_mean import ClassMeans, unit_products
from mmcl.randomness import permutation


def keyed_orders(count: int, epochs: int, *key_parts: int | str) -> list[Tensor]:
    """Return a permutation of ``range(count)`` for each epoch, keyed by the parts and the epoch."""
    return [permutation(count, *key_parts, "fast", epoch) for epoch in range(epochs)]


@torch.no_grad()
def fast_classifier(
    features: Tensor, labels: Tensor, means: Tensor, orders: Iterable[Tensor], lr: float, batch_size: int
) -> Tensor:
    """Train class means by the cross entropy of cosines, with plain stochastic gradient descent.

    Starting from V = means, every batch of features f with labels y takes the step
    ``V - lr * gradient of the mean over the batch of CE(norm(f) norm(V)^T, y)``, norm being the scaling of rows to
    norm 1.

    Args:
        features: ``(N, D)``.
        labels: int64 ``(N,)``.
        means: of all classes ``(C, D)``. A row of zeros is a class without mean, and stays as it is.
        orders: rows in the order in which an epoch meets them, int64 ``(N,)``; as many as there are epochs.
        lr: learning rate.
        batch_size: rows of a step; the last one of an epoch may have fewer.

    Returns:
        V float32 ``(C, D)``, rows of any norm.
    """
    rows = F.normalize(features.float(), eps=1e-12)
    targets = F.one_hot(labels.to(rows.device), len(means)).to(rows)
    trained = means.to(rows, copy=True)
    present = (means != 0).any(1, keepdim=True).to(rows)
    for order in orders:
        chosen = order.to(rows.device)
        batches = zip(*(torch.split(part[chosen], batch_size) for part in (rows, targets)), strict=True)
        for batch, wanted in batches:
            trained.add_(_gradient(batch, wanted, trained, present), alpha=-lr / len(batch))
    return trained


def _gradient(batch: Tensor, wanted: Tensor, means: Tensor, present: Tensor) -> Tensor:
    """Return the gradient of the summed cross entropy: unit rows ``(B, D)``, one-hot labels ``(B, C)`` -> ``(C, D)``.

    Along a mean the cosines do not change: of what pulls at the unit mean, only the part across it counts, the more
    the shorter the mean is. ``present`` is 1 for a class with mean and 0 for others, ``(C, 1)``.
    """
    inverse = present / torch.linalg.vector_norm(means, dim=1, keepdim=True).clamp_(min=1e-12)
    unit = means * inverse
    pull = torch.softmax(batch @ unit.T, dim=1).sub_(wanted).T @ batch
    along = (pull * unit).sum(1, keepdim=True)
    return pull.addcmul_(unit, along, value=-1).mul_(inverse)


class FastMeans(ClassMeans):
    """Class means trained further on a memory's features; answers with cosines."""

    def train_on(
        self, features: Tensor, labels: Tensor, means: Tensor, orders: Iterable[Tensor], lr: float, batch_size: int
    ) -> None:
        """Take what :func:`fast_classifier` makes of the arguments."""
        self.means = fast_classifier(features, labels, means, orders, lr, batch_size)

    def forward(self, features: Tensor) -> Tensor:
        """Return the cosines of features ``(N, D)`` with the trained means up to the features' norm, ``(N, C)``."""
        self.means = self.means.to(features.device)
        return unit_products(features, self.means)
