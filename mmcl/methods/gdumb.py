"""GDumb: keep a balanced memory, and learn from it alone when asked.

Prabhu, Torr, Dokania, "GDumb: A Simple Approach that Questions Our Progress in Continual Learning", ECCV 2020. A
baseline of Memory Head on streams. The one method here for which it matters where a window ends: its protocol learns
anew at the end of each distribution.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from mmcl.config.schema import setting
from mmcl.errors import DivergedError, UserError
from mmcl.memory.stream_buffer import BalancedBuffer, Integer, draw_integers
from mmcl.methods.online import OnlineConfig, OnlineIngredients
from mmcl.methods.online_replay import Buffered, BufferedConfig
from mmcl.protocol import FeatureBatch, StreamTask


@dataclass
class GdumbConfig(BufferedConfig):
    """Keys of GDumb."""

    epochs: int = setting("Passes over the memory at the end of each distribution; 0 leaves the network as drawn.")

    def __post_init__(self) -> None:
        """Refuse fewer passes than none, and another loss than the one that there is."""
        super().__post_init__()
        if self.loss != "cross_entropy":
            raise UserError(f"method.loss={self.loss}: method=gdumb learns by cross_entropy alone")
        if self.epochs < 0:
            raise UserError(f"method.epochs={self.epochs}: expected at least 0")


class Gdumb(Buffered):
    """Stores during a window; at its end draws the network anew and trains it on the memory.

    ``replay_size`` is the size of its mini-batches. ``randomness=published`` drops samples by numbers of Python's own
    generator, and orders the memory as a shuffling loader of torch does.
    """

    Config: ClassVar[type] = GdumbConfig
    config: GdumbConfig
    memory: BalancedBuffer

    def __init__(self, config: OnlineConfig, ingredients: OnlineIngredients) -> None:
        super().__init__(config, ingredients)
        self._python_numbers = random.Random(ingredients.seed)

    def make_buffer(self, capacity: int, dimension: int) -> BalancedBuffer:
        """Build a balanced buffer."""
        return BalancedBuffer(capacity, dimension)

    def training_step(self, block: Iterable[FeatureBatch], block_index: int) -> None:
        """Store the samples of a block."""
        for batch in block:
            self.memory.store_by(batch.features[:, 0], batch.labels, self._draw())
            self.after_step()
            self._account({}, len(batch.labels))

    def end_task(self, task: StreamTask) -> None:
        """Learn from the memory, from the start.

        Raises:
            DivergedError: a loss or a weight is not finite.
        """
        with self.drawing("learn"):
            self._draw_network_anew()
        orders = [self._order() for _ in range(self.config.epochs)]
        samples, labels = self.memory.rows().values()
        self.network.train()
        loss = self.fit(samples, labels, orders)
        self.network.eval()
        if not all(bool(values.isfinite().all()) for values in (loss, *self.network.parameters())):
            raise DivergedError(
                f"the loss on the memory or a weight is not finite after {task.name}. Try a smaller learning rate, "
                f"such as method.lr={self.config.lr / 10:g}"
            )

    def fit(self, samples: Tensor, labels: Tensor, orders: list[Tensor]) -> Tensor:
        """Train on samples ``(n, D)`` in mini-batches with a fresh optimiser; return the sum of all losses.

        Args:
            samples: the memory.
            labels: int64 ``(n,)``.
            orders: of each epoch, a permutation ``(n,)``.
        """
        optimizer = self.fresh_optimizer()
        total = torch.zeros((), device=samples.device)
        for rows in (rows for order in orders for rows in torch.split(order, self.config.replay_size)):
            loss = cross_entropy(self.network(samples[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += loss.detach()
        return total

    def get_extra_state(self) -> dict[str, Any]:
        """Return optimiser, step and both sorts of random numbers."""
        version, words, _ = self._python_numbers.getstate()
        return {**super().get_extra_state(), "python_generator": [version, list(words)]}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`get_extra_state`."""
        super().set_extra_state(state)
        version, words = state["python_generator"]
        self._python_numbers.setstate((version, tuple(words), None))

    # ------------------------------------------------------------------ what is drawn

    def _draw(self) -> Integer:
        """Return what draws an integer below a number, in this step."""
        if self.config.randomness == "published":
            return self._python_numbers.randrange
        numbers = self.numbers()
        return lambda below: int(draw_integers(below, 1, numbers))

    def _draw_network_anew(self) -> None:
        fresh = self.make_network().state_dict()
        self.network.load_state_dict(fresh)

    def _order(self) -> Tensor:
        """Return a permutation of the memory."""
        numbers = self.numbers("learn")
        if self.config.randomness == "published":
            # A loader draws a seed for workers, which it has none of here, and one for its order.
            _, seed = (int(torch.empty((), dtype=torch.int64).random_(generator=numbers)) for _ in range(2))
            numbers = torch.Generator().manual_seed(seed)
        return torch.randperm(self.memory.filled, generator=numbers).to(self.device)
