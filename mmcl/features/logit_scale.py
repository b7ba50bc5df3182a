"""The factor of the cosine for encoders that come without one, fitted on training images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

CANDIDATES = torch.logspace(0, 3, 121)


def scale_losses(features: Tensor, labels: Tensor, classifier: Tensor) -> Tensor:
    """Return the mean cross-entropy of the text classifier at each of :data:`CANDIDATES`, ``(121,)``.

    Args:
        features: of training images as the encoder gives them ``(N, D)``.
        labels: their classes, int64 ``(N,)``.
        classifier: unit rows ``(C, D)``.
    """
    cosines = F.normalize(features, dim=1) @ classifier.T
    return torch.stack([F.cross_entropy(scale * cosines, labels) for scale in CANDIDATES])


def best_scale(losses: Tensor) -> float:
    """Return the candidate of the smallest loss ``(121,)``, the smallest such candidate of equal ones."""
    return round(float(CANDIDATES[losses.argmin()]), 2)
