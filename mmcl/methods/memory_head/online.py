"""Memory Head: keys choose which weights learn an online stream, whose classes and domains shift while nobody says so.

Tiezzi, Becattini, Marullo, Melacci, "Memory Head for Pre-Trained Backbones in Continual Learning", CoLLAs 2024, section
4.2. One pass, a step for each sample, nothing stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from mmcl.config.schema import setting
from mmcl.errors import UserError
from mmcl.methods.memory_head.layer import MHLinear
from mmcl.methods.memory_head.options import MemoryHeadKeys, memory_head
from mmcl.methods.online import OnlineConfig, OnlineMethod
from mmcl.protocol import FeatureBatch

DRAWN_DIMENSION = 3
COUNTERS = ("mu", "eta", "key_counter", "scrambling_count")


@dataclass
class MemoryHeadConfig(OnlineConfig):
    """Keys of a Memory Head on a stream."""

    head: MemoryHeadKeys = setting("Options of the head.")
    up: int | None = setting("Units of a tanh layer below the head; null puts the head on the samples.")
    zero_scrambled_moments: bool = setting(
        "Units that are given away lose the optimiser's averages of what they were; false keeps them, as published."
    )

    def __post_init__(self) -> None:
        """Refuse a layer of nothing."""
        super().__post_init__()
        if self.up is not None and self.up < 1:
            raise UserError(f"method.up={self.up}: expected at least 1, or null for no layer")


def zero_moments(moments: dict[str, Tensor], changed: Tensor) -> None:
    """Forget Adam's averages of some units, in place; its count of steps stays.

    Args:
        moments: the optimiser's state of M: ``exp_avg`` and ``exp_avg_sq`` ``(q, m, u)``; empty before the first step.
        changed: which units, bool ``(q, m)``.
    """
    for name in ("exp_avg", "exp_avg_sq"):
        if name in moments:
            moments[name][changed] = 0


class MemoryHead(OnlineMethod):
    """A Memory Head as the classifier of a stream, alone or on one layer."""

    Config: ClassVar[type] = MemoryHeadConfig
    config: MemoryHeadConfig
    network: nn.Sequential

    def make_network(self) -> nn.Sequential:
        """Build the network: the layer below is drawn first, then keys, then units."""
        dimension, below = self.ingredients.dimension, self.config.up
        layers: list[nn.Module] = []
        if below is not None:
            layers = [nn.Linear(dimension, below), nn.Tanh()]
        head = memory_head(self.config.head, below or dimension, self.ingredients.classes)
        head.sparse_gradients = self.config.optimizer == "row_adam"
        return nn.Sequential(*layers, head)

    @property
    def head(self) -> MHLinear:
        """The Memory Head."""
        head = self.network[-1]
        assert isinstance(head, MHLinear)
        return head

    def after_backward(self, batch: FeatureBatch) -> None:
        """Scramble, move the keys and count their use; every process sees every sample, so nothing is gathered."""
        if self.config.zero_scrambled_moments:
            # An update changes units by giving them away alone.
            units = self.head.M.detach().clone()
            self._update()
            zero_moments(self.optimizer.state.get(self.head.M, {}), (units != self.head.M).any(dim=2))
        else:
            self._update()

    def trace(self) -> dict[str, Tensor]:
        """Return the counters of units, and ``keys`` ``(q, m, d)`` where they can be drawn among the samples."""
        head = self.head
        drawn = self.config.up is None and head.key_size == head.in_features <= DRAWN_DIMENSION
        keys = {"keys": head.K} if drawn else {}
        return keys | {name: getattr(head, name) for name in COUNTERS if hasattr(head, name)}

    def _update(self) -> None:
        if self.config.head.random_memories:
            with self.drawing():
                self.head.update()
        else:
            self.head.update()
