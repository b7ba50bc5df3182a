"""The dynamic memory of DMN: written by every test image, strictly in the order of the stream, and read right after.

The class under which an image is stored and its entropy come from the text classifier alone, never from the memory. So
all writes of a block of images are known before any of them is read, and the reads of the block are done at once: each
slot, old or new, counts for the images between its writing and its overwriting.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from mmcl.methods.dmn_readout import Projection, Slots, make_slots, readout, slot_values

BLOCK = 64
NEVER = 2**30


class WritePlan(NamedTuple):
    """What a block of images writes.

    Attributes:
        slots: slot that each image is written to, or -1 where it is dropped; B of them.
        entropies: entropies of the filled slots of each class that occurs in the block, after the block.
    """

    slots: list[int]
    entropies: dict[int, list[float]]


def plan_writes(labels: list[int], entropies: list[float], filled: dict[int, list[float]], capacity: int) -> WritePlan:
    """Say where each image of a block goes.

    A class with a free slot takes the image into the next one. A full class takes it only if its entropy is strictly
    below the largest one kept, in whose place it goes; of equal largest ones the last slot is replaced.

    Args:
        labels: class of each image by its own prediction, B of them.
        entropies: of that prediction.
        filled: entropies of the filled slots of each class that occurs, before the block.
        capacity: slots of a class.
    """
    filled = {label: list(kept) for label, kept in filled.items()}
    slots = []
    for label, entropy in zip(labels, entropies, strict=True):
        kept = filled[label]
        if len(kept) < capacity:
            slots.append(len(kept))
            kept.append(entropy)
            continue
        largest = max(kept)
        slot = capacity - 1 - kept[::-1].index(largest) if entropy < largest else -1
        if slot >= 0:
            kept[slot] = entropy
        slots.append(slot)
    return WritePlan(slots, filled)


class Lifetimes(NamedTuple):
    """When the slots of the written classes count, over S old positions and W positions for what is new.

    Attributes:
        classes: T classes that are written.
        sources: image of the block at each new position, or -1: ``T x W``.
        begins: first image of the block that a position counts for: ``T x (S + W)``.
        ends: first image that it counts no more for.
        order: position of what each slot holds after the block: ``T x S``.
    """

    classes: list[int]
    sources: list[list[int]]
    begins: list[list[int]]
    ends: list[list[int]]
    order: list[list[int]]


def lifetimes(labels: list[int], slots: list[int], counts: dict[int, int], fixed: int, width: int) -> Lifetimes:
    """Turn the writes of a block into the time that each position counts.

    Args:
        labels: class of each image.
        slots: where each goes, as in :class:`WritePlan`.
        counts: filled slots of each class before the block.
        fixed: slots before the first writable one, which always count.
        width: S, the slots looked at: at least ``fixed`` and what is filled after the block.
    """
    writes: dict[int, list[tuple[int, int]]] = {}
    for image, (label, slot) in enumerate(zip(labels, slots, strict=True)):
        if slot >= 0:
            writes.setdefault(label, []).append((image, fixed + slot))
    most = max(map(len, writes.values()), default=0)
    result = Lifetimes(list(writes), [], [], [], [])
    for label, entries in writes.items():
        old = fixed + counts[label]
        begins, ends = [0] * old + [NEVER] * (width - old + most), [NEVER] * (width + most)
        order, sources = list(range(width)), [-1] * most
        for rank, (image, slot) in enumerate(entries):
            ends[order[slot]] = image
            begins[width + rank] = image
            order[slot], sources[rank] = width + rank, image
        for row, rows in zip((sources, begins, ends, order), result[1:], strict=True):
            rows.append(row)
    return result


def first_slots(slots: Slots, width: int) -> Slots:
    """Return the first ``width`` slots of each class, without copying."""
    narrow = slots._replace(gram=slots.gram[:, :, :width])
    return Slots(*(part[:, :width] for part in narrow))


def extend(slots: Slots, rows: Tensor, projection: Projection) -> Slots:
    """Append rows ``(T, W, D)`` to the slots of T classes, with all inner products."""
    new = make_slots(rows, projection)
    across = slot_values(rows, projection) @ slot_values(slots.features, projection).mT
    upper, lower = torch.cat([slots.gram, across.mT], dim=2), torch.cat([across, new.gram], dim=2)
    joined = slots._replace(gram=upper), new._replace(gram=lower)
    return Slots(*(torch.cat(parts, dim=1) for parts in zip(*joined, strict=True)))


def rearrange(slots: Slots, order: Tensor) -> Slots:
    """Return the slots at positions ``(T, S)`` of each of T classes."""
    rows = torch.arange(len(order), device=order.device)[:, None]
    parts = [part[rows, order] for part in slots]
    chosen = Slots(*parts)
    return chosen._replace(gram=chosen.gram.gather(2, order[:, None].expand(-1, order.shape[1], -1)))


class DynamicMemory(nn.Module):
    """Features of test images by class beside slots that never change, with what the readout asks for.

    All of it is state, so that a stream goes on from a ``state_dict`` bit for bit.

    Args:
        classes: C.
        fixed: slots F of each class that are not written.
        capacity: slots L of each class that are.
        dimension: D.
    """

    entropies: Tensor
    counts: Tensor

    def __init__(self, classes: int, fixed: int, capacity: int, dimension: int) -> None:
        super().__init__()
        self.fixed, self.capacity = fixed, capacity
        width = fixed + capacity
        shapes = {"features": (classes, width, dimension), "gram": (classes, width, width)}
        for name in Slots._fields:
            self.register_buffer(name, torch.zeros(shapes.get(name, (classes, width))))
        self.register_buffer("entropies", torch.zeros(classes, capacity))
        self.register_buffer("counts", torch.zeros(classes, dtype=torch.int64))

    @property
    def slots(self) -> Slots:
        """All slots, the fixed ones first."""
        return Slots(*(getattr(self, name) for name in Slots._fields))

    @property
    def written_features(self) -> Tensor:
        """The writable part ``(C, L, D)``; unit features in filled slots, zeros in others."""
        return self.slots.features[:, self.fixed :]

    @torch.no_grad()
    def restart(self, fixed_features: Tensor, projection: Projection) -> None:
        """Forget all images; take the fixed slots ``(C, F, D)`` and the biases as they are now."""
        features = torch.zeros_like(self.slots.features)
        features[:, : self.fixed] = fixed_features
        for name, part in make_slots(features, projection)._asdict().items():
            getattr(self, name).copy_(part)
        self.entropies.zero_()
        self.counts.zero_()

    @torch.no_grad()
    def write_and_read(
        self,
        features: Tensor,
        labels: Tensor,
        entropies: Tensor,
        projection: Projection,
        sharpness: float,
        scale: float,
    ) -> Tensor:
        """Write each image of a stream and read the memory for it, in order: an image may attend to itself.

        Args:
            features: unit features ``(N, D)``.
            labels: class under which each is stored, int64 ``(N,)``.
            entropies: of the prediction that it is stored for ``(N,)``; low ones stay.
            projection: as at :meth:`restart`.
            sharpness: beta.
            scale: factor s of the cosine.

        Returns:
            Logits ``(N, C)``.
        """
        blocks = zip(*(torch.split(part, BLOCK) for part in (features, labels, entropies)), strict=True)
        read = [
            self._block(block, its_labels, its_entropies, projection, sharpness, scale)
            for block, its_labels, its_entropies in blocks
        ]
        return torch.cat(read)

    def _block(
        self,
        features: Tensor,
        labels: Tensor,
        entropies: Tensor,
        projection: Projection,
        sharpness: float,
        scale: float,
    ) -> Tensor:
        filled = self._filled(labels)
        plan = plan_writes(labels.tolist(), entropies.tolist(), filled, self.capacity)
        most = max([int(self.counts.max()), *map(len, plan.entropies.values())])
        slots = first_slots(self.slots, self.fixed + most)
        counted = torch.arange(self.fixed + most, device=features.device) < self.fixed + self.counts[:, None]
        logits = readout(features, slots, counted, projection, sharpness, scale)
        counts = {label: len(kept) for label, kept in filled.items()}
        times = lifetimes(labels.tolist(), plan.slots, counts, self.fixed, self.fixed + most)
        if times.classes:
            classes, sources, begins, ends, order = (torch.tensor(part, device=features.device) for part in times)
            own = projection.of_classes(classes)
            rows = features[sources.clamp(min=0)] * (sources >= 0)[..., None]
            extended = extend(Slots(*(part[classes] for part in slots)), rows, own)
            image = torch.arange(len(features), device=features.device)
            valid = (begins[..., None] <= image) & (image < ends[..., None])
            logits[:, classes] = readout(features, extended, valid, own, sharpness, scale)
            self._keep(classes, rearrange(extended, order), plan)
        return logits

    def _filled(self, labels: Tensor) -> dict[int, list[float]]:
        """Return the entropies of the filled slots of the classes that occur."""
        classes = sorted(set(labels.tolist()))
        entropies, counts = self.entropies[classes].tolist(), self.counts[classes].tolist()
        return {label: row[:count] for label, row, count in zip(classes, entropies, counts, strict=True)}

    def _keep(self, classes: Tensor, slots: Slots, plan: WritePlan) -> None:
        """Store the slots of written classes as they are after a block."""
        width = slots.features.shape[1]
        for stored, part in zip(first_slots(self.slots, width), slots, strict=True):
            stored[classes] = part
        rows = [plan.entropies[label] for label in classes.tolist()]
        padded = [row + [0.0] * (self.capacity - len(row)) for row in rows]
        self.entropies[classes] = torch.tensor(padded, device=classes.device)
        self.counts[classes] = torch.tensor([len(row) for row in rows], device=classes.device)
