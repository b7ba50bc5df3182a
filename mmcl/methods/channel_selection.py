"""Which channels of the features tell classes apart (APE, Zhu et al., ICCV 2023, as DMN uses it)."""

from __future__ import annotations

import torch
from torch import Tensor


def channel_scores(text_features: Tensor, similarity_weight: float) -> Tensor:
    """Score each channel: large where classes vary and their mutual similarity is small.

    ``-lambda * sim_d + (1 - lambda) * var_d`` with ``sim_d`` the mean of ``t_id t_jd`` over ordered pairs of different
    classes, in closed form ``((sum_i t_id)^2 - sum_i t_id^2) / (C (C - 1))``, and ``var_d`` the unbiased variance.

    Args:
        text_features: unit text classifier ``(C, D)``, C at least 2.
        similarity_weight: lambda; 0 looks at the variance alone, 1 at the similarity alone.

    Returns:
        Scores ``(D,)``.
    """
    classes = len(text_features)
    squares = text_features.square().sum(dim=0)
    similarity = (text_features.sum(dim=0).square() - squares) / (classes * (classes - 1))
    return (1 - similarity_weight) * text_features.var(dim=0) - similarity_weight * similarity


def important_channels(text_features: Tensor, count: int, similarity_weight: float) -> Tensor:
    """Return the ``count`` channels of largest score, best first, int64 ``(count,)``."""
    scores = channel_scores(text_features, similarity_weight)
    return scores.sort(descending=True, stable=True).indices[:count]


def channel_mask(text_features: Tensor, count: int, similarity_weight: float) -> Tensor:
    """Return 1 for the ``count`` most important channels and 0 for the others, float ``(D,)``; 0 means all."""
    mask = torch.ones_like(text_features[0])
    if count:
        mask.zero_()[important_channels(text_features, count, similarity_weight)] = 1.0
    return mask
