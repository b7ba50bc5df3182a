"""Classifiers by cosine: of LUCIR (Hou et al., CVPR 2019), used by Mnemonics and AANets."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SMALLEST_NORM = 1e-12


def cosine_scores(features: Tensor, weight: Tensor) -> Tensor:
    """Return the cosines ``(N, C)`` between features ``(N, D)`` and classifier rows ``(C, D)``.

    Norms are at least 1e-12, so that a row of zeros scores 0. Under autocast, it computes in float32: the layer is
    small, and its scores are multiplied by a large scale.
    """
    with torch.autocast(features.device.type, enabled=False):
        return unit_rows(_at_least_float32(features)) @ unit_rows(_at_least_float32(weight)).T


def unit_rows(rows: Tensor) -> Tensor:
    """Divide each row of ``(N, D)`` by its norm, which counts as 1e-12 at least."""
    return F.normalize(rows, dim=1, eps=SMALLEST_NORM)


def _at_least_float32(rows: Tensor) -> Tensor:
    return rows.float() if rows.dtype in (torch.float16, torch.bfloat16) else rows


class CosineHead(nn.Module):
    """A cosine classifier of old and new classes; logits are ``sigma`` times its scores.

    Attributes:
        weight_old: rows ``(C_old, D)`` of the classes before the last :meth:`expand`; asks for no gradient.
        weight_new: rows ``(n, D)`` of the classes of the last :meth:`expand`.
        sigma: scale of the logits ``(1,)``, 1 at first, kept when the classes grow.
    """

    def __init__(self, feature_dim: int) -> None:
        super().__init__()
        self.weight_old = nn.Parameter(torch.empty(0, feature_dim), requires_grad=False)
        self.weight_new = nn.Parameter(torch.empty(0, feature_dim))
        self.sigma = nn.Parameter(torch.ones(1))

    @property
    def weight(self) -> Tensor:
        """All rows ``(C, D)``, old before new."""
        return torch.cat([self.weight_old, self.weight_new])

    def expand(self, classes: int) -> None:
        """Grow to ``classes`` rows in all: those so far become old, new ones are uniform on ``+-1 / sqrt(D)``.

        Raises:
            ValueError: when there are that many classes already.
        """
        known, feature_dim = self.weight.shape
        if classes <= known:
            raise ValueError(f"a classifier of {known} classes cannot grow to {classes}")
        bound = feature_dim**-0.5
        fresh = torch.empty(classes - known, feature_dim).uniform_(-bound, bound)
        self.weight_old = nn.Parameter(self.weight.detach(), requires_grad=False)
        self.weight_new = nn.Parameter(fresh.to(self.weight_old))

    def forward(self, features: Tensor) -> Tensor:
        """Return the scores ``(N, C)`` of features ``(N, D)``, before ``sigma``."""
        return cosine_scores(features, self.weight)


def imprinted_rows(weight_old: Tensor, features: Tensor, labels: Tensor, classes: range) -> Tensor:
    """Return rows ``(n, D)`` for new classes: mean directions of their features, as long as old rows are on average.

    ``r norm(mean_j norm(f_j))`` with ``r`` the mean norm of the old rows (Qi et al., CVPR 2018, in LUCIR's form).

    Args:
        weight_old: rows of the old classes ``(C, D)``; the result has its dtype and device.
        features: of images of the new classes ``(N, D)``.
        labels: their classes, int64 ``(N,)``.
        classes: the n new classes, each with one image at least.

    Raises:
        ValueError: when a new class has no image.
    """
    counts = torch.bincount(labels - classes.start, minlength=len(classes))
    if not bool(counts.all()):
        missing = [classes[row] for row in (counts == 0).nonzero().flatten().tolist()]
        raise ValueError(f"no image to imprint the rows of classes {missing}")
    members = F.one_hot(labels - classes.start, len(classes)).to(features)
    sums = members.T @ unit_rows(features)  # index_add_ would sum in any order on a GPU
    directions = unit_rows(sums / counts[:, None])
    length: Tensor = weight_old.norm(dim=1).mean()
    return length * directions.to(weight_old)
