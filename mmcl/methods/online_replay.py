"""What online learners with a buffer of samples share, and the step of those that replay from it."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from mmcl.config.schema import setting
from mmcl.errors import UserError
from mmcl.memory.stream_buffer import ReservoirBuffer, StreamBuffer, row_bytes
from mmcl.methods.online import OnlineConfig, OnlineIngredients
from mmcl.methods.vanilla import Vanilla, VanillaConfig
from mmcl.protocol import FeatureBatch


@dataclass
class BufferedConfig(VanillaConfig):
    """Keys of a plain network with a buffer."""

    buffer_size: int = setting("Samples that are kept; total_bytes, if given, decides instead.")
    replay_size: int = setting("Kept samples that are learned from at once; fewer while fewer are kept.")

    def __post_init__(self) -> None:
        """Refuse a buffer that keeps nothing or gives nothing back."""
        super().__post_init__()
        for name in ("buffer_size", "replay_size"):
            if getattr(self, name) < 1:
                raise UserError(f"method.{name}={getattr(self, name)}: expected at least 1")


class Buffered(Vanilla):
    """A plain network with a buffer of samples.

    Attributes:
        memory: the buffer.
    """

    Config: ClassVar[type] = BufferedConfig
    config: BufferedConfig
    memory: StreamBuffer

    def __init__(self, config: OnlineConfig, ingredients: OnlineIngredients) -> None:
        super().__init__(config, ingredients)
        self.memory = self.make_buffer(self._capacity(), ingredients.dimension)

    @abstractmethod
    def make_buffer(self, capacity: int, dimension: int) -> StreamBuffer:
        """Build an empty buffer."""

    def memory_rows(self) -> dict[str, Tensor]:
        """Return the kept samples ``(n, D)`` and their labels ``(n,)``."""
        return self.memory.rows()

    def _capacity(self) -> int:
        """Return the number of samples that the budget in bytes pays for, or the configured number."""
        if self.bytes_left is None:
            return self.config.buffer_size
        of_row = row_bytes(self.ingredients.dimension)
        if self.bytes_left < of_row:
            assert self.config.total_bytes is not None
            least = self.config.total_bytes - self.bytes_left + of_row
            raise UserError(
                f"method.total_bytes={self.config.total_bytes}: the network leaves {self.bytes_left} bytes, but one "
                f"sample takes {of_row}. Type method.total_bytes={least} or more, or a smaller method.hidden"
            )
        return self.bytes_left // of_row


class OnlineReplay(Buffered):
    """Learns from kept samples at every step, by cross-entropy whatever the stream's loss; then keeps the new ones.

    Attributes:
        replay_loss: mean cross-entropy of the kept samples that the step minimises too; 0 without any.
    """

    def make_buffer(self, capacity: int, dimension: int) -> StreamBuffer:
        """Build a reservoir."""
        return ReservoirBuffer(capacity, dimension)

    def drawn_size(self) -> int:
        """Return how many kept samples a step draws."""
        return self.config.replay_size

    @abstractmethod
    def replay(self, samples: Tensor, labels: Tensor) -> None:
        """Change the gradients of the step by drawn samples ``(n, D)`` with labels ``(n,)``, n at least 1."""

    def after_backward(self, batch: FeatureBatch) -> None:
        """Replay, then store: no sample is replayed in its own step."""
        numbers = self.numbers()
        self.replay_loss = torch.zeros((), device=self.device)
        samples, labels = self.memory.draw(self.drawn_size(), numbers)
        if len(labels):
            self.replay(samples, labels)
        self.memory.store(batch.features[:, 0], batch.labels, numbers)

    def add_gradient_of(self, samples: Tensor, labels: Tensor) -> None:
        """Add the gradient of the samples' mean cross-entropy to that of the step; the two are not averaged."""
        loss = cross_entropy(self.network(samples), labels)
        self.manual_backward(loss)
        self.replay_loss = loss.detach()

    def _account(self, terms: dict[str, Tensor], count: int) -> None:
        super()._account({**terms, "replay": self.replay_loss}, count)
