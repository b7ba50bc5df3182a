"""Nearest-mean classification: the mean of each class's kept samples and distances to it (iCaRL, 2017)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmcl.memory.herding import class_rows, unit_rows


def class_means(features: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Average the unit rows of each class and scale the mean to norm 1.

    Args:
        features: float32 ``(N, D)``.
        labels: int64 ``(N,)``, each below ``classes``.
        classes: number of classes C.

    Returns:
        Means float64 ``(C, D)``. A class without rows, or whose rows cancel out, has no direction: its mean
        is zero.
    """
    rows = unit_rows(features).double()
    sums = rows.new_zeros(classes, rows.shape[1])
    for group in class_rows(labels):  # index_add_ would sum in any order on a GPU
        sums[labels[group[0]]] = rows[group.to(rows.device)].sum(0)
    norms = torch.linalg.vector_norm(sums, dim=1, keepdim=True)
    return torch.where(norms > 0, sums / norms, 0.0)


def nearest_mean_scores(features: Tensor, means: Tensor) -> Tensor:
    """Score features ``(N, D)`` against class means ``(C, D)``: float64 ``(N, C)``, larger is nearer.

    The score is the negative squared Euclidean distance between the unit row and the mean, and minus infinity
    for a class without mean.
    """
    rows = unit_rows(features).double()
    means = means.double()
    # A mean has norm 1 exactly by definition; summing its squares would break ties by their rounding.
    distances = rows.square().sum(1, keepdim=True) - 2 * rows @ means.T + 1
    return torch.where((means != 0).any(1), -distances, -torch.inf)


class NearestMean(nn.Module):
    """The class means of a memory: a view derived from its rows, saved with the method.

    A run that is evaluated again from its saved state answers as it did, without a pass over the memory.
    """

    def __init__(self) -> None:
        super().__init__()
        self.means = torch.zeros(0, 0, dtype=torch.float64)

    def renew(self, features: Tensor, labels: Tensor, classes: int) -> None:
        """Take the means of kept rows: features float32 ``(N, D)``, labels int64 ``(N,)``, C classes."""
        self.means = class_means(features, labels, classes)

    def forward(self, features: Tensor) -> Tensor:
        """Return scores float64 ``(N, C)`` by :func:`nearest_mean_scores`."""
        self.means = self.means.to(features.device)
        return nearest_mean_scores(features, self.means)

    def get_extra_state(self) -> Tensor:
        """Return the means ``(C, D)``."""
        return self.means

    def set_extra_state(self, state: Tensor) -> None:
        """Take saved means."""
        self.means = state
