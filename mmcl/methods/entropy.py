"""Entropy of class probabilities, and which views of an image a classifier is sure of."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mmcl.errors import UserError


def view_entropy(probabilities: Tensor, epsilon: float = 1e-6) -> Tensor:
    """Return ``-sum p log(p + epsilon)`` over the last axis: ``(..., C)`` to ``(...)``, in nats."""
    return -(probabilities * (probabilities + epsilon).log()).sum(dim=-1)


def confident_count(views: int, share: float) -> int:
    """Return how many of ``views`` views a share keeps: the product cut in binary floating point (100 * 0.29 is 28).

    Raises:
        UserError: no view would be left, or more than all.
    """
    count = int(views * share)
    if not 1 <= count <= views:
        raise UserError(
            f"a share of {share} keeps {count} of {views} views: expected at least 1 and at most all; "
            f"type for example method.selection_share={1 / max(views, 1):.3g} or more views"
        )
    return count


def confident_views(entropies: Tensor, count: int) -> Tensor:
    """Return the ``count`` views of lowest entropy, lowest first: ``(..., V)`` to int64 ``(..., count)``.

    Of equal entropies the first view comes first.
    """
    return entropies.sort(dim=-1, stable=True).indices[..., :count]


def confident_mean(probabilities: Tensor, count: int) -> Tensor:
    """Average the rows of the ``count`` views of lowest entropy: ``(..., V, C)`` to ``(..., C)``."""
    chosen = confident_views(view_entropy(probabilities), count)
    rows = chosen[..., None].expand(*chosen.shape, probabilities.shape[-1])
    return probabilities.gather(-2, rows).mean(dim=-2)


def average_entropy(logits: Tensor) -> Tensor:
    """Return the entropy of the mean prediction over views, a scalar in nats (TPT's loss).

    Computed in log space, because its gradient is small: log of the mean of ``softmax(logits)``, ``(..., N, C)`` over
    N; leading axes are kept.
    """
    log_mean = logits.log_softmax(dim=-1).logsumexp(dim=-2) - math.log(logits.shape[-2])
    log_mean = log_mean.clamp(min=torch.finfo(logits.dtype).min)
    return -(log_mean * log_mean.exp()).sum(dim=-1)
