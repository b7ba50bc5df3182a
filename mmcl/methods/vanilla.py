"""Vanilla: a linear classifier, or one with a hidden layer, that sees each sample of a stream once. Keeps nothing.

The lower bound of Memory Head on streams (Tiezzi, Becattini, Marullo, Melacci, CoLLAs 2024).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from mmcl.config.schema import setting
from mmcl.errors import UserError
from mmcl.methods.online import OnlineConfig, OnlineMethod


@dataclass
class VanillaConfig(OnlineConfig):
    """Keys of a plain network."""

    hidden: int | None = setting("Units of the hidden layer, which ends in tanh; null is a linear classifier.")

    def __post_init__(self) -> None:
        """Refuse a layer of nothing."""
        super().__post_init__()
        if self.hidden is not None and self.hidden < 1:
            raise UserError(f"method.hidden={self.hidden}: expected at least 1, or null for a linear classifier")


def plain_network(dimension: int, hidden: int | None, classes: int) -> nn.Sequential:
    """Build a network from samples ``(B, dimension)`` to logits ``(B, classes)``: linear, or linear, tanh, linear."""
    if hidden is None:
        return nn.Sequential(nn.Linear(dimension, classes))
    return nn.Sequential(nn.Linear(dimension, hidden), nn.Tanh(), nn.Linear(hidden, classes))


class Vanilla(OnlineMethod):
    """A plain network; base of all methods that change how it learns."""

    Config: ClassVar[type] = VanillaConfig
    config: VanillaConfig

    def make_network(self) -> nn.Module:
        """Build the network."""
        return plain_network(self.ingredients.dimension, self.config.hidden, self.ingredients.classes)
