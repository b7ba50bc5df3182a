"""Linear classifiers that grow with the classes, and weight aligning."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class GrowingLinear(nn.Linear):
    """A linear layer with bias that grows in both directions and keeps what it has learnt.

    Fresh weights are uniform on ``[-a, a]`` with ``a = sqrt(3 / in_features)``; fresh biases are 0.
    """

    def __init__(self, in_features: int = 0, out_features: int = 0) -> None:
        nn.Module.__init__(self)
        self.in_features = in_features
        self.out_features = out_features
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.bias = nn.Parameter(torch.empty(out_features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights afresh from torch's global generator."""
        if self.weight.numel():
            nn.init.kaiming_uniform_(self.weight, nonlinearity="linear")
        nn.init.zeros_(self.bias)

    def grow(self, out_features: int, in_features: int | None = None) -> None:
        """Enlarge to ``(out_features, in_features)``: the old corner stays, the rest is fresh.

        Raises:
            ValueError: when a size shrinks.
        """
        in_features = self.in_features if in_features is None else in_features
        if out_features < self.out_features or in_features < self.in_features:
            old, new = (self.out_features, self.in_features), (out_features, in_features)
            raise ValueError(f"a classifier of shape {old} cannot grow to {new}")
        fresh = GrowingLinear(in_features, out_features).to(self.weight)
        with torch.no_grad():
            fresh.weight[: self.out_features, : self.in_features] = self.weight
            fresh.bias[: self.out_features] = self.bias
        self.weight, self.bias = fresh.weight, fresh.bias
        self.out_features, self.in_features = out_features, in_features


def align_weights(weight: Tensor, new_classes: int) -> tuple[Tensor, Tensor]:
    """Scale the rows of new classes to the mean norm of the old: weight aligning (Zhao et al., CVPR 2020).

    Args:
        weight: classifier weight ``(C, D)``; the last ``new_classes`` rows are new.
        new_classes: number of new classes, at least 1 and less than ``C``.

    Returns:
        The aligned weight ``(C, D)`` and the factor of the new rows, gamma, ``()``. Biases stay as they are.

    Raises:
        ValueError: when there are no old or no new rows.
    """
    known = len(weight) - new_classes
    if known <= 0 or new_classes <= 0:
        raise ValueError(f"aligning needs old and new classes, not {known} old and {new_classes} new")
    norms = weight.norm(dim=1)
    gamma = norms[:known].mean() / norms[known:].mean()
    return torch.cat([weight[:known], weight[known:] * gamma]), gamma
