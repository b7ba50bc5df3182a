"""Exemplars learned through a nearest-mean classifier: the one-level form of Mnemonics' released code.

Liu, Su, Liu, Schiele, Sun, "Mnemonics Training: Multi-Class Incremental Learning without Forgetting", CVPR 2020. The
network stands still; the mean features of the exemplars classify a batch, and its loss moves their pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcl.backbones.cosine_head import cosine_scores


def mean_features(features: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Average the features of each class.

    Args:
        features: ``(R, D)``, not normalised.
        labels: int64 ``(R,)``, each in ``range(classes)``; classes may have different numbers of rows.
        classes: number of classes C.

    Returns:
        Means ``(C, D)``; zeros for a class without rows.
    """
    members = F.one_hot(labels, classes).to(features.dtype)
    # A product instead of index_add_, which sums in any order on a GPU.
    with torch.autocast(features.device.type, enabled=False):
        return members.T @ features / members.sum(dim=0).clamp(min=1)[:, None]


def nme_scores(
    query_features: Tensor, exemplar_features: Tensor, exemplar_labels: Tensor, old_means: Tensor | None, classes: int
) -> Tensor:
    """Return the cosines of queries and class prototypes, without scale.

    Args:
        query_features: ``(N, D)``.
        exemplar_features: of the new classes' exemplars ``(R, D)``, not normalised.
        exemplar_labels: int64 ``(R,)``.
        old_means: prototypes of the old classes ``(known, D)``, which come first; None in the first task.
        classes: number of classes seen.

    Returns:
        Scores ``(N, classes)``.
    """
    known = 0 if old_means is None else len(old_means)
    prototypes = mean_features(exemplar_features, exemplar_labels - known, classes - known)
    if old_means is not None:
        prototypes = torch.cat([old_means.to(prototypes), prototypes])
    return cosine_scores(query_features, prototypes)


def nme_loss(
    query_features: Tensor,
    labels: Tensor,
    exemplar_features: Tensor,
    exemplar_labels: Tensor,
    old_means: Tensor | None,
    classes: int,
) -> Tensor:
    """Return the cross-entropy ``()`` of :func:`nme_scores` for queries with labels, int64 ``(N,)``."""
    scores = nme_scores(query_features, exemplar_features, exemplar_labels, old_means, classes)
    return F.cross_entropy(scores, labels)


@dataclass(frozen=True)
class PrototypeLevel:
    """Judges exemplars by the class means that they make: the one-level counterpart of the bilevel forms.

    Attributes:
        network: frozen and in eval mode; gives ``features``.
        old_means: prototypes of the old classes ``(known, D)``; None in the first task.
        classes: number of classes seen.
    """

    network: nn.Module
    old_means: Tensor | None
    classes: int

    def __call__(self, exemplars: Tensor, labels: Tensor, query_images: Tensor, query_labels: Tensor) -> Tensor:
        """Return the loss ``()`` of ``(N, 3, H, W)`` with labels ``(N,)``, differentiable to ``(R, 3, H, W)``."""
        with torch.no_grad():
            query_features = self.network(query_images).features
        features = self.network(exemplars).features
        return nme_loss(query_features, query_labels, features, labels, self.old_means, self.classes)
