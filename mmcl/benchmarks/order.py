"""The order in which training samples are served: the same global batches on any number of processes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from mmcl import randomness


class Step(NamedTuple):
    """One process's part of one global batch.

    Attributes:
        epoch: epoch that the step belongs to, from 0.
        rows: rows of the training samples, int64 ``(B,)`` on the CPU, at least one.
        share: factor that turns this process's mean loss into its part of the global mean.
    """

    epoch: int
    rows: Tensor
    share: float


class Order(Protocol):
    """Steps of an epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration serves."""
        ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Step]: ...


class StepOrder:
    """Shuffled steps of an epoch; the shuffle is a function of what it is for, the epoch included.

    The global batches are consecutive parts of the permutation, the last partial one included. Process
    ``rank`` of ``world`` takes every ``world``-th row of each. Where a batch leaves a process without a row,
    that process computes the batch's first row with share 0, so that all processes take equally many steps.

    Args:
        count: number of training samples.
        batch_size: size of the global batch.
        draw: what the order is for, such as ``(seed, task, stage)``.
        rank: number of this process.
        world: number of processes.
    """

    def __init__(self, count: int, batch_size: int, draw: tuple[int | str, ...], rank: int = 0, world: int = 1) -> None:
        self.count = count
        self.batch_size = batch_size
        self.draw = draw
        self.rank = rank
        self.world = world
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration serves. Lightning calls it at the start of every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.count // self.batch_size)

    def __iter__(self) -> Iterator[Step]:
        epoch = self.epoch
        permutation = randomness.permutation(self.count, *self.draw, "order", epoch)
        for batch in torch.split(permutation, self.batch_size) if self.count else ():
            rows = batch[self.rank :: self.world]
            share = len(rows) * self.world / len(batch)
            yield Step(epoch, rows if len(rows) else batch[:1], share)


class InOrder:
    """Steps over samples in their order, all of them on every process."""

    def __init__(self, count: int, batch_size: int) -> None:
        self.count, self.batch_size = count, batch_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration serves."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.count // self.batch_size)

    def __iter__(self) -> Iterator[Step]:
        for rows in torch.split(torch.arange(self.count), self.batch_size) if self.count else ():
            yield Step(self.epoch, rows, 1.0)
