"""How DMN adds the probabilities of its classifiers, and what weights would have been best on given labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

GRID = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
CELLS = 2**18


def fuse(probabilities: Mapping[str, Tensor], weights: Tensor) -> Tensor:
    """Add probabilities ``(B, C)`` of text, dynamic and, where it is there, static under weights ``(3,)``."""
    fused = weights[0] * probabilities["text"] + weights[1] * probabilities["dynamic"]
    static = probabilities.get("static")
    return fused if static is None else fused + weights[2] * static


def grid_correct(text: Tensor, dynamic: Tensor, static: Tensor | None, labels: Tensor, grid: Tensor) -> Tensor:
    """Count right answers for every pair of weights; the text has weight 1.

    Args:
        text: probabilities ``(N, C)``; so are ``dynamic`` and ``static``.
        dynamic: weighed by the rows of the result.
        static: weighed by its columns; None for the one column of weight 0.
        labels: int64 ``(N,)``.
        grid: weights ``(G,)``.

    Returns:
        int64 ``(G, G)``, or ``(G, 1)`` without ``static``. Of equal largest sums the lowest class is the answer.
    """
    weights = [0.0] if static is None else grid.tolist()
    counts = torch.zeros(len(grid), len(weights), dtype=torch.int64, device=labels.device)
    classes = torch.arange(text.shape[1], device=labels.device)
    rows = max(1, CELLS // (text.shape[1] * len(grid)))
    for start in range(0, len(labels), rows):
        part = slice(start, start + rows)
        sums = text[part, None] + grid[:, None] * dynamic[part, None]  # (n, G, C)
        own = labels[part, None, None]
        lower = (classes < own).int()
        for column, weight in enumerate(weights):
            fused = sums if static is None else sums + weight * static[part, None]
            counts[:, column] += _wins(fused, own.expand(-1, len(grid), 1), lower).sum(dim=0)
    return counts


def _wins(sums: Tensor, own: Tensor, lower: Tensor) -> Tensor:
    """Say where the label's sum is the largest and no lower class has the same: ``(n, G, C)`` to bool ``(n, G)``.

    The bits of floats that are not negative, read as integers, are in the order of the floats, and the next integer is
    the next float. So one more for lower classes lets them win where they tie, at the price of a maximum; an argmax
    would cost several times that.
    """
    bits = sums.float().view(torch.int32) + lower
    return bits.gather(2, own)[..., 0] >= bits.amax(dim=2)


class FusionGrid(Metric):
    """The best weights of a grid for the labels it is given: on test labels an oracle, on validation labels a choice.

    Takes the probabilities of the readouts by name, as :func:`fuse`. Of equally good weights it names the first in
    the published order: dynamic outside, static inside.

    Args:
        static: whether there is a static memory.
    """

    full_state_update = False
    correct: Tensor
    total: Tensor
    grid: Tensor

    def __init__(self, static: bool, **settings: Any) -> None:
        super().__init__(**settings)
        self.static = static
        self.register_buffer("grid", torch.tensor(GRID), persistent=False)
        shape = (len(GRID), len(GRID) if static else 1)
        self.add_state("correct", torch.zeros(shape, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, probabilities: Mapping[str, Tensor], labels: Tensor) -> None:
        """Count a batch: probabilities ``(B, C)`` of ``text``, ``dynamic`` and ``static``; labels int64 ``(B,)``."""
        static = probabilities["static"] if self.static else None
        self.correct += grid_correct(probabilities["text"], probabilities["dynamic"], static, labels, self.grid)
        self.total += len(labels)

    def best_weights(self) -> Tensor:
        """Return the weights ``(3,)`` of text, dynamic and static."""
        row, column = (self.correct == self.correct.max()).nonzero()[0]
        static = self.grid[column] if self.static else self.grid.new_zeros(())
        return torch.stack([self.grid.new_ones(()), self.grid[row], static])

    def compute(self) -> dict[str, Tensor]:
        """Return ``accuracy`` (a fraction) and ``weight_dynamic`` and ``weight_static`` that give it."""
        _, dynamic, static = self.best_weights()
        accuracy = self.correct.max().double() / self.total
        return {"accuracy": accuracy, "weight_dynamic": dynamic, "weight_static": static}
