"""Small memories drawn instead of encoded: a class has the same centre in whatever set its name turns up."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from mmcl.benchmarks.memory_benchmark import AskedDataset
from mmcl.benchmarks.memory_sets import EncodedSet
from mmcl.protocol import AskedMemory, ImageFeatures, MemoryItems, MemoryTask, TextFeatures
from tests.methods.encoded import DIMENSION

SEEN = ("red_circle", "blue square", "green star", "white ring")
HELD_OUT = ("black dot", "grey cross", "pink arc")
UNSEEN = ("brown arrow", "violet moon", "golden heart")
TEXTS = 4


def class_set(
    names: Sequence[str], training: int = 0, images: int = 8, shots: int = 3, noise: float = 0.25
) -> EncodedSet:
    """Draw a set of classes: 10 queries a class, and as many labelled images, images and shots as asked for."""
    return EncodedSet(
        class_names=tuple(names),
        training=_images(names, "training", training, noise),
        queries=_images(names, "queries", 10, noise),
        images=_images(names, "memory", images, noise),
        texts=_texts(names, "memory", TEXTS),
        shots=_images(names, "shots", 3, noise),
        prompts=lambda kind: _texts(names, kind, 1),
        items=MemoryItems(None, None, ("",) * TEXTS * len(names)),
    )


def memory_task(
    known: EncodedSet,
    index: int = 0,
    with_shots: bool = False,
    learned: EncodedSet | None = None,
    validation: EncodedSet | None = None,
) -> MemoryTask:
    """Ask about a set; learned and validation sets come with the first task."""
    return MemoryTask(
        index=index,
        known=0,
        seen=len(known.class_names),
        name="drawn",
        class_names=known.class_names,
        encoded=AskedDataset(known, "drawn"),
        memory=known.content(with_shots),
        encoder="drawn",
        training=None if learned is None else _asked(learned, learned.training),
        validation=None if validation is None else _asked(validation, validation.queries),
        items=known.items,
    )


def answers(method: Any, task: MemoryTask) -> dict[str, Tensor]:
    """Return the scores of every readout for the queries of a task that the method has begun."""
    method.begin_evaluation(task)
    with torch.no_grad():
        scores: dict[str, Tensor] = method.scores(task.encoded.test(1).features)
    return scores


def move_to(method: Any, task: MemoryTask) -> dict[str, Tensor]:
    """Replace the memory by a task's, without learning, and answer."""
    method.grow(task)
    method.begin_task(task)
    return answers(method, task)


def _asked(known: EncodedSet, queries: ImageFeatures) -> AskedMemory:
    return AskedMemory(queries, known.content(False), known.class_names, AskedDataset(known, "drawn"))


def _images(names: Sequence[str], role: str, per_class: int, noise: float) -> ImageFeatures:
    features = [7 * (_drawn(name, "centre") + noise * _drawn(name, role, per_class)) for name in names]
    labels = torch.arange(len(names)).repeat_interleave(per_class)
    return ImageFeatures(torch.cat(features)[:, None], labels, torch.arange(len(labels)))


def _texts(names: Sequence[str], role: str, per_class: int) -> TextFeatures:
    features = [5 * (_drawn(name, "centre") + 0.3 * _drawn(name, f"texts {role}", per_class)) for name in names]
    return TextFeatures(torch.cat(features), torch.arange(len(names)).repeat_interleave(per_class))


def _drawn(name: str, role: str, count: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(zlib.crc32(f"{name} {role}".encode()))
    values = torch.randn(count, DIMENSION, generator=generator)
    return normalize(values, dim=1) if role == "centre" else values
