"""Old exemplars learned again: two halves of each class, each trained on to classify the other (Mnemonics, CVPR 2020).

No other images of old classes are left to judge by. Code for it was never released.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mmcl.memory.class_rows import class_rows
from mmcl.methods.mnemonics.bilevel import BilevelLoss
from mmcl.randomness import permutation


class Halves(NamedTuple):
    """Rows of exemplars, int64: the two halves of each class, by class and ascending inside one."""

    first: Tensor
    second: Tensor

    def swapped(self) -> Halves:
        """Return the second half as the first."""
        return Halves(self.second, self.first)


def halves(labels: Tensor, *draw: int | str) -> Halves:
    """Split the exemplars of each class at random; of an odd number, the second half has one more.

    Args:
        labels: int64 ``(R,)``. Exemplars of a class with only one are in neither half.
        *draw: what the draw is for, such as seed, task and epoch.

    Returns:
        The halves, on the device of the labels.
    """
    first, second = [torch.arange(0)], [torch.arange(0)]
    for rows in class_rows(labels.cpu()):
        if len(rows) < 2:
            continue
        shuffled = rows[permutation(len(rows), *draw, int(labels[rows[0]]))]
        middle = len(rows) // 2
        first.append(shuffled[:middle].sort().values)
        second.append(shuffled[middle:].sort().values)
    return Halves(torch.cat(first).to(labels.device), torch.cat(second).to(labels.device))


def half_step_loss(level: BilevelLoss, exemplars: Tensor, labels: Tensor, split: Halves) -> Tensor:
    """Return the loss of one half for a model that is trained on the other.

    A round is a step along this loss for a split and, with the exemplars that it has moved, one for
    ``split.swapped()``. A plain gradient step moves only the half that is learned: the gradient of the rest is zero.

    Args:
        level: the inner problem and its outer loss.
        exemplars: normalised, float32 ``(R, 3, H, W)``.
        labels: int64 ``(R,)``.
        split: ``first`` is learned, ``second`` judges.

    Returns:
        The loss ``()``, differentiable to the rows ``first`` of ``exemplars``.
    """
    learned, judging = split
    return level(exemplars[learned], labels[learned], exemplars[judging].detach(), labels[judging])
