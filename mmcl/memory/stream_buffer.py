"""Samples of a stream that are kept to be seen again: a reservoir, random replacement, a greedy balance of classes."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

NOT_KEPT = -1
Integer = Callable[[int], int]

# ------------------------------------------------------------------ what is drawn


def draw_integers(below: int, count: int, numbers: torch.Generator) -> Tensor:
    """Draw integers in ``[0, below)``, int64 ``(count,)``."""
    return torch.randint(0, below, (count,), generator=numbers)


def draw_distinct(of: int, count: int, numbers: torch.Generator) -> Tensor:
    """Draw different integers in ``[0, of)``, each equally likely, int64 ``(min(count, of),)``."""
    return torch.multinomial(torch.ones(of), min(count, of), generator=numbers)


# ------------------------------------------------------------------ what is kept


def reservoir_slots(drawn: Tensor, capacity: int) -> Tensor:
    """Return the slot that each sample takes from a full reservoir, or ``NOT_KEPT``; int64 ``(k,)``.

    Args:
        drawn: an integer below the number of samples seen before, for each sample ``(k,)``. (Vitter's algorithm R would
            count the sample itself as seen; the published code does not, so that the first one is always kept.)
        capacity: number of slots.
    """
    return torch.where(drawn < capacity, drawn, NOT_KEPT)


def random_slots(kept: Tensor, slots: Tensor) -> Tensor:
    """Return the slot that each sample takes where some are kept by chance, or ``NOT_KEPT``; int64 ``(k,)``.

    Args:
        kept: which samples are kept, bool ``(k,)``.
        slots: different slots, one for each of those, in order.
    """
    return torch.full(kept.shape, NOT_KEPT).masked_scatter(kept, slots)


def is_accepted(counts: Mapping[int, int], label: int, capacity: int) -> bool:
    """Whether a greedily balanced memory takes a sample: its class is new, or has less than an equal share.

    Prabhu, Torr, Dokania, "GDumb", ECCV 2020, algorithm 1, with the share among classes in memory before the sample.

    Args:
        counts: samples in memory by class; no class without a sample.
        label: class of the sample.
        capacity: samples that fit in.
    """
    return label not in counts or counts[label] < capacity // max(1, len(counts))


def largest_class(counts: Mapping[int, int]) -> int:
    """Return the class with the most samples, the first of equals."""
    return max(counts, key=lambda label: counts[label])


# ------------------------------------------------------------------ buffers


def empty_rows(capacity: int, dimension: int) -> tuple[Tensor, Tensor]:
    """Return zeros for samples, float32 ``(capacity, dimension)``, and labels, int64 ``(capacity,)``."""
    return torch.zeros(capacity, dimension), torch.zeros(capacity, dtype=torch.int64)


def row_bytes(dimension: int) -> int:
    """Return the bytes of one sample of length ``dimension`` with its label."""
    samples, labels = empty_rows(1, dimension)
    return samples.nbytes + labels.nbytes


class StreamBuffer(nn.Module):
    """Room for some samples of a stream, filled from the first slot on.

    Args:
        capacity: number of slots.
        dimension: length D of a sample.

    Attributes:
        samples: float32 ``(capacity, D)``; zeros where nothing is kept.
        labels: int64 ``(capacity,)``; zeros likewise.
        filled: number of slots in use.
    """

    samples: Tensor
    labels: Tensor

    def __init__(self, capacity: int, dimension: int) -> None:
        super().__init__()
        samples, labels = empty_rows(capacity, dimension)
        self.register_buffer("samples", samples)
        self.register_buffer("labels", labels)
        self.filled = 0

    @property
    def capacity(self) -> int:
        """Number of slots."""
        return len(self.labels)

    def rows(self) -> dict[str, Tensor]:
        """Return what is kept: ``samples`` ``(filled, D)`` and ``labels`` ``(filled,)``."""
        return {"samples": self.samples[: self.filled], "labels": self.labels[: self.filled]}

    def draw(self, count: int, numbers: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw different kept samples: ``(n, D)`` and their labels ``(n,)``, n being ``count`` or what there is."""
        slots = draw_distinct(self.filled, count, numbers) if self.filled else torch.zeros(0, dtype=torch.int64)
        slots = slots.to(self.labels.device)
        return self.samples[slots], self.labels[slots]

    @abstractmethod
    def store(self, samples: Tensor, labels: Tensor, numbers: torch.Generator) -> None:
        """Keep some of the samples ``(k, D)`` with labels ``(k,)``, in their order."""

    def get_extra_state(self) -> dict[str, int]:
        """Return the counts, by name."""
        return {"filled": self.filled}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take the counts."""
        self.filled = state["filled"]


class ReplacingBuffer(StreamBuffer):
    """A buffer that fills its slots first, and then lets new samples take the slots of old ones."""

    def store(self, samples: Tensor, labels: Tensor, numbers: torch.Generator) -> None:
        """Keep the samples that get a slot; a later sample of a batch takes an equal slot from an earlier one."""
        free = range(self.filled, min(self.capacity, self.filled + len(labels)))
        self.filled += len(free)
        left = len(labels) - len(free)
        slots = [*free, *(self.replaced_slots(left, numbers).tolist() if left else ())]
        for row, slot in enumerate(slots):
            if slot != NOT_KEPT:
                self.samples[slot], self.labels[slot] = samples[row], labels[row]

    @abstractmethod
    def replaced_slots(self, count: int, numbers: torch.Generator) -> Tensor:
        """Return the slot that each of ``count`` samples takes from the full buffer, or ``NOT_KEPT``."""


class ReservoirBuffer(ReplacingBuffer):
    """A sample of all that was seen, each sample nearly equally likely.

    Attributes:
        passed: samples that came when all slots were in use.
    """

    def __init__(self, capacity: int, dimension: int) -> None:
        super().__init__(capacity, dimension)
        self.passed = 0

    @property
    def seen(self) -> int:
        """Number of samples that came."""
        return self.filled + self.passed

    def replaced_slots(self, count: int, numbers: torch.Generator) -> Tensor:
        """Draw among all samples seen before these: see :func:`reservoir_slots`."""
        drawn = draw_integers(self.seen, count, numbers)
        self.passed += count
        return reservoir_slots(drawn, self.capacity)

    def get_extra_state(self) -> dict[str, int]:
        """Return the counts, by name."""
        return {**super().get_extra_state(), "passed": self.passed}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take the counts."""
        super().set_extra_state(state)
        self.passed = state["passed"]


class RandomBuffer(ReplacingBuffer):
    """A buffer whose full slots are taken by every second sample on average, however many were seen."""

    def replaced_slots(self, count: int, numbers: torch.Generator) -> Tensor:
        """Toss a coin for each sample, then draw slots for those that are kept, as many as there are."""
        kept = draw_integers(2, count, numbers) == 1
        wanted = int(kept.sum())
        if not wanted:
            return random_slots(kept, kept.nonzero().flatten())
        # More samples than slots in one batch: the first ones get the slots.
        kept &= kept.cumsum(dim=0) <= self.capacity
        return random_slots(kept, draw_distinct(self.capacity, wanted, numbers))


class BalancedBuffer(StreamBuffer):
    """As many samples of each class as of any other, as far as the stream allows: GDumb's memory.

    Samples lie class by class, classes in the order in which they came.
    """

    def counts(self) -> dict[int, int]:
        """Return the number of kept samples of each class, in the order in which the classes came."""
        return dict(Counter(self.labels[: self.filled].tolist()))

    def store(self, samples: Tensor, labels: Tensor, numbers: torch.Generator) -> None:
        """Keep the samples that are accepted, each in the place of one of the largest class if all slots are in use."""
        self.store_by(samples, labels, lambda below: int(draw_integers(below, 1, numbers)))

    def store_by(self, samples: Tensor, labels: Tensor, draw: Integer) -> None:
        """Do as :meth:`store`; ``draw(n)`` is an integer below n, asked once for each sample that is dropped."""
        for sample, label in zip(samples, labels.tolist(), strict=True):
            counts = self.counts()
            if not is_accepted(counts, label, self.capacity):
                continue
            if self.filled == self.capacity:
                largest = largest_class(counts)
                self._drop(self._begin(largest) + draw(counts[largest]))
            self._insert(sample, label)

    def _begin(self, label: int) -> int:
        return self.labels[: self.filled].tolist().index(label)

    def _drop(self, row: int) -> None:
        for rows in (self.samples, self.labels):
            rows[row:-1] = rows[row + 1 :].clone()
            rows[-1] = 0
        self.filled -= 1

    def _insert(self, sample: Tensor, label: int) -> None:
        """Put a sample behind those of its class, or behind all if the class is new."""
        counts = self.counts()
        row = self._begin(label) + counts[label] if label in counts else self.filled
        for rows, value in ((self.samples, sample), (self.labels, torch.tensor(label))):
            rows[row + 1 :] = rows[row:-1].clone()
            rows[row] = value
        self.filled += 1
