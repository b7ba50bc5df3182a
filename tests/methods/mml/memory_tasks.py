"""Memory tasks out of drawn features: classes are directions, images and texts lie around them."""

from __future__ import annotations

import torch

from mmcl.benchmarks.memory_benchmark import AskedDataset
from mmcl.benchmarks.memory_sets import EncodedSet
from mmcl.protocol import AskedMemory, ImageFeatures, MemoryItems, MemoryTask, TextFeatures

DIMENSION = 16


def drawn_set(seed: int, classes: int, per_class: int = 6, noise: float = 0.5) -> EncodedSet:
    """Draw classes whose texts lie off their images."""
    draws = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=draws)

    centres, text_centres = normal(classes, DIMENSION), 0.5 * normal(classes, DIMENSION)
    labels = torch.arange(classes).repeat_interleave(per_class)

    def images() -> ImageFeatures:
        features = centres[labels] + noise * normal(len(labels), DIMENSION)
        return ImageFeatures(features[:, None], labels, torch.arange(len(labels)))

    texts = TextFeatures((centres + text_centres)[labels] + 0.3 * normal(len(labels), DIMENSION), labels)
    prompts = TextFeatures(centres + text_centres, torch.arange(classes))
    return EncodedSet(
        class_names=tuple(f"class {seed}-{number}" for number in range(classes)),
        training=images(),
        queries=images(),
        images=images(),
        texts=texts,
        shots=images(),
        prompts=lambda kind: prompts,
        items=MemoryItems(None, None, ("",) * len(labels)),
    )


def drawn_task(known: EncodedSet, index: int = 0, validation: EncodedSet | None = None) -> MemoryTask:
    """Ask about a set; with validation classes there is something to learn."""
    count = len(known.class_names)
    learns = validation is not None
    return MemoryTask(
        index,
        0,
        count,
        f"drawn {index}",
        known.class_names,
        AskedDataset(known, f"drawn {index}"),
        known.content(with_shots=False),
        "drawn encoder",
        _asked(known, known.training) if learns else None,
        _asked(validation, validation.queries) if validation is not None else None,
        known.items,
    )


def _asked(known: EncodedSet, queries: ImageFeatures) -> AskedMemory:
    return AskedMemory(queries, known.content(False), known.class_names, AskedDataset(known, "drawn"))
