"""Ensemble: plain networks that begin differently and learn together online, their logits averaged.

A baseline of Memory Head on streams (Tiezzi, Becattini, Marullo, Melacci, CoLLAs 2024): as many weights, none chosen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from mmcl.config.schema import setting
from mmcl.errors import UserError
from mmcl.methods.vanilla import Vanilla, VanillaConfig, plain_network


@dataclass
class EnsembleConfig(VanillaConfig):
    """Keys of an ensemble."""

    members: int = setting("Networks of the ensemble; 1 is a plain network.")

    def __post_init__(self) -> None:
        """Refuse an ensemble of nobody."""
        super().__post_init__()
        if self.members < 1:
            raise UserError(f"method.members={self.members}: expected at least 1")


class Average(nn.Module):
    """The mean of several networks' logits ``(B, C)``."""

    def __init__(self, members: list[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, samples: Tensor) -> Tensor:
        """Return the mean logits of samples ``(B, D)``."""
        return torch.stack([member(samples) for member in self.members]).mean(dim=0)


class Ensemble(Vanilla):
    """One loss of the mean logits, one optimiser."""

    Config: ClassVar[type] = EnsembleConfig
    config: EnsembleConfig

    def make_network(self) -> nn.Module:
        """Build the members; the authors copy a network, and draw each copy anew: the numbers of the first are lost."""
        _, *members = (self._member() for _ in range(self.config.members + 1))
        return Average(members)

    def _member(self) -> nn.Module:
        return plain_network(self.ingredients.dimension, self.config.hidden, self.ingredients.classes)
