"""Nearest-mean classification: the mean of each class's kept samples and distances to it (iCaRL, 2017).

Beside iCaRL's form there is that of LUCIR's released code (Hou et al., CVPR 2019), which Mnemonics took over: the means
are over two views of every sample, in float64 throughout.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmcl.memory.class_rows import class_rows
from mmcl.memory.herding import unit_rows


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
    return unit_rows_float64(_class_sums(unit_rows(features).double(), labels, classes))


def two_view_means(features: Tensor, features_second: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Average the unit rows of each class over two views of its samples, and scale the mean to norm 1.

    Args:
        features: ``(N, D)``, float32 or float64.
        features_second: the same samples under another view ``(N, D)``; the same tensor where there is none.
        labels: int64 ``(N,)``, each below ``classes``.
        classes: number of classes C.

    Returns:
        Means float64 ``(C, D)``, zero for a class without rows.
    """
    rows = unit_rows_float64(features) + unit_rows_float64(features_second)
    return unit_rows_float64(_class_sums(rows, labels, classes))


def unit_products(features: Tensor, means: Tensor) -> Tensor:
    """Score features ``(N, D)`` by their products with the unit rows of means ``(C, D)``: float64 ``(N, C)``.

    Whatever the norm of a feature, the largest product belongs to the unit mean at the least Euclidean distance from
    it, and to the largest cosine. Minus infinity for a class without mean.
    """
    return torch.where((means != 0).any(1), features.double() @ unit_rows_float64(means).T, -torch.inf)


def unit_rows_float64(rows: Tensor) -> Tensor:
    """Divide each row ``(N, D)`` by its Euclidean norm, in float64. A zero row stays zero."""
    rows = rows.double()
    norms: Tensor = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return torch.where(norms > 0, rows / norms, 0.0)


def _class_sums(rows: Tensor, labels: Tensor, classes: int) -> Tensor:
    sums = rows.new_zeros(classes, rows.shape[1])
    for group in class_rows(labels):  # index_add_ would sum in any order on a GPU
        sums[labels[group[0]]] = rows[group.to(rows.device)].sum(0)
    return sums


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


class ClassMeans(nn.Module):
    """A vector for each class: a view derived from a memory's rows, saved with the method.

    A run that is evaluated again from its saved state answers as it did, without a pass over the memory.

    Attributes:
        means: ``(C, D)``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.means = torch.zeros(0, 0, dtype=torch.float64)

    def get_extra_state(self) -> Tensor:
        """Return the means ``(C, D)``."""
        return self.means

    def set_extra_state(self, state: Tensor) -> None:
        """Take saved means."""
        self.means = state


class NearestMean(ClassMeans):
    """The class means of a memory; answers with distances of unit rows."""

    def renew(self, features: Tensor, labels: Tensor, classes: int) -> None:
        """Take the means of kept rows: features float32 ``(N, D)``, labels int64 ``(N,)``, C classes."""
        self.means = class_means(features, labels, classes)

    def forward(self, features: Tensor) -> Tensor:
        """Return scores float64 ``(N, C)`` by :func:`nearest_mean_scores`."""
        self.means = self.means.to(features.device)
        return nearest_mean_scores(features, self.means)


class TwoViewNearestMean(ClassMeans):
    """The class means of a memory over two views of its rows; answers with raw features."""

    def renew(self, features: Tensor, features_second: Tensor, labels: Tensor, classes: int) -> None:
        """Take the means of kept rows, as :func:`two_view_means` forms them."""
        self.means = two_view_means(features, features_second, labels, classes)

    def forward(self, features: Tensor) -> Tensor:
        """Return scores float64 ``(N, C)`` by :func:`unit_products`."""
        self.means = self.means.to(features.device)
        return unit_products(features, self.means)
