"""DMN's readout and stream as the paper writes them: one image after the other, whole vectors."""

from __future__ import annotations

import torch
from torch import Tensor

from mmcl.methods.dmn_readout import Projection


def unit(vector: Tensor) -> Tensor:
    """Scale to length 1, however short: sharp attention makes short sums."""
    return vector / vector.norm()


def defined_readout(
    feature: Tensor,
    slots: Tensor,
    valid: Tensor,
    projection: Projection,
    sharpness: float,
    scale: float,
    channels: Tensor | None = None,
) -> Tensor:
    """Classify one image ``(D,)`` by slots ``(C, S, D)`` of which some are valid ``(C, S)``: logits ``(C,)``."""

    def through(vectors: Tensor, matrix: Tensor | None) -> Tensor:
        return vectors if matrix is None else vectors + vectors @ matrix

    query = unit(through(feature, projection.query_matrix) + projection.query_bias)
    logits = []
    for label, its_slots in enumerate(slots):
        total = torch.zeros_like(feature)
        for slot, filled in zip(its_slots, valid[label].tolist(), strict=True):
            if filled:
                key = unit(through(slot, projection.key_matrix) + projection.key_bias[label])
                value = unit(through(slot, projection.value_matrix) + projection.value_bias[label])
                total = total + (-sharpness * (1 - query @ key)).exp() * value
        classifier = unit(unit(total) + projection.output_bias[label])
        chosen = classifier * feature if channels is None else classifier * feature * channels
        logits.append(scale * chosen.sum())
    return torch.stack(logits)


class DefinedMemory:
    """A dynamic memory that is written and read image by image."""

    def __init__(self, fixed: Tensor, capacity: int) -> None:
        self.fixed, self.capacity = fixed, capacity
        self.features: list[list[Tensor]] = [[] for _ in fixed]
        self.entropies: list[list[float]] = [[] for _ in fixed]

    def write(self, feature: Tensor, label: int, entropy: float) -> None:
        features, entropies = self.features[label], self.entropies[label]
        if len(features) < self.capacity:
            features.append(feature)
            entropies.append(entropy)
            return
        worst = max(range(self.capacity), key=lambda slot: (entropies[slot], slot))
        if entropy < entropies[worst]:
            features[worst], entropies[worst] = feature, entropy

    def read(self, feature: Tensor, projection: Projection, sharpness: float, scale: float) -> Tensor:
        empty = torch.zeros_like(feature)
        kept = [torch.stack(rows + [empty] * (self.capacity - len(rows))) for rows in self.features]
        counted = torch.tensor([[slot < len(rows) for slot in range(self.capacity)] for rows in self.features])
        slots = torch.cat([self.fixed, torch.stack(kept)], dim=1)
        valid = torch.cat([torch.ones(self.fixed.shape[:2], dtype=torch.bool), counted], dim=1)
        return defined_readout(feature, slots, valid, projection, sharpness, scale)
