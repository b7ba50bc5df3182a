"""Sets of classes with the memory that is kept about them, and how they are put together for an evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from mmcl.memory.class_memory import MemoryContent
from mmcl.memory.prototypes import ClassRows
from mmcl.protocol import ImageFeatures, MemoryItems, Samples, Sentences, TextFeatures

Prompts = Callable[[str], Sentences]
EncodedPrompts = Callable[[str], TextFeatures]


@dataclass(frozen=True)
class ClassSet:
    """Classes as files or a generator give them; labels are positions in ``class_names``.

    Attributes:
        class_names: C names.
        training: labelled images that a method may learn from; empty but for the classes of training.
        queries: labelled images that are asked.
        images: image memory, such as images of the web; a class may have none.
        sentences: text memory; every class has some.
        shots: a few labelled images of each class that are neither asked nor learned from; may be empty.
        prompts: returns the sentences of a kind of prompts, for CLIP's zero-shot classifier.
    """

    class_names: tuple[str, ...]
    training: Samples
    queries: Samples
    images: Samples
    sentences: Sentences
    shots: Samples
    prompts: Prompts = field(repr=False)


@dataclass(frozen=True)
class ClassSets:
    """The classes of a benchmark, no class in two of them unless the protocol is about the same classes.

    Attributes:
        seen: classes of training.
        validation: classes that may choose something.
        unseen: classes that only a memory knows.
    """

    seen: ClassSet
    validation: ClassSet
    unseen: ClassSet

    def items(self) -> dict[str, ClassSet]:
        """Return the sets by name."""
        return {"seen": self.seen, "validation": self.validation, "unseen": self.unseen}


@dataclass(frozen=True)
class EncodedSet:
    """A :class:`ClassSet` behind frozen encoders; features ``(N, 1, D)``, texts ``(P, D)``."""

    class_names: tuple[str, ...]
    training: ImageFeatures
    queries: ImageFeatures
    images: ImageFeatures
    texts: TextFeatures
    shots: ImageFeatures
    prompts: EncodedPrompts = field(repr=False)
    items: MemoryItems = field(repr=False)

    def content(self, with_shots: bool) -> MemoryContent:
        """Return the memory; its prototypes are to be made of the shots, or of the images."""
        shots = image_rows(self.shots) if with_shots else None
        return MemoryContent(
            image_rows(self.images), ClassRows(self.texts.features, self.texts.classes), shots, len(self.class_names)
        )


def image_rows(images: ImageFeatures) -> ClassRows:
    """Return the plain views ``(N, D)`` with their classes."""
    return ClassRows(images.features[:, 0], images.labels)


def first_classes(known: EncodedSet, count: int) -> EncodedSet:
    """Keep the classes ``range(count)`` of a set."""

    def images(part: ImageFeatures) -> ImageFeatures:
        return part.select((part.labels < count).nonzero().flatten())

    def samples(part: Samples | None) -> Samples | None:
        return None if part is None else part.select(part.labels < count)

    kept = known.texts.classes < count
    items = known.items
    sentences = tuple(text for text, stays in zip(items.sentences, kept.tolist(), strict=True) if stays)
    return EncodedSet(
        class_names=known.class_names[:count],
        training=images(known.training),
        queries=images(known.queries),
        images=images(known.images),
        texts=TextFeatures(known.texts.features[kept], known.texts.classes[kept]),
        shots=images(known.shots),
        prompts=lambda kind: _first_texts(known.prompts(kind), count),
        items=MemoryItems(samples(items.queries), samples(items.images), sentences),
    )


def joined(sets: Sequence[EncodedSet]) -> EncodedSet:
    """Put sets behind each other: class c of a later set becomes class C + c."""
    offsets = torch.tensor([0, *(len(part.class_names) for part in sets)]).cumsum(0).tolist()

    def images(name: str) -> ImageFeatures:
        parts = [getattr(part, name) for part in sets]
        features = torch.cat([part.features for part in parts])
        labels = torch.cat([part.labels + offset for part, offset in zip(parts, offsets, strict=False)])
        return ImageFeatures(features, labels, torch.arange(len(labels)))

    def texts(parts: Sequence[TextFeatures]) -> TextFeatures:
        classes = [part.classes + offset for part, offset in zip(parts, offsets, strict=False)]
        return TextFeatures(torch.cat([part.features for part in parts]), torch.cat(classes))

    return EncodedSet(
        class_names=tuple(name for part in sets for name in part.class_names),
        training=images("training"),
        queries=images("queries"),
        images=images("images"),
        texts=texts([part.texts for part in sets]),
        shots=images("shots"),
        prompts=lambda kind: texts([part.prompts(kind) for part in sets]),
        items=MemoryItems(
            _joined_samples([part.items.queries for part in sets], offsets),
            _joined_samples([part.items.images for part in sets], offsets),
            tuple(text for part in sets for text in part.items.sentences),
        ),
    )


def without_images(known: EncodedSet) -> EncodedSet:
    """Leave the texts alone in the memory."""
    nothing = known.images.select(torch.empty(0, dtype=torch.int64))
    images = known.items.images
    shown = None if images is None else images.select(torch.empty(0, dtype=torch.int64))
    return replace(known, images=nothing, items=replace(known.items, images=shown))


def without_texts(known: EncodedSet) -> EncodedSet:
    """Leave the images alone in the memory; the prompts of the zero-shot classifier stay."""
    texts = TextFeatures(known.texts.features[:0], known.texts.classes[:0])
    return replace(known, texts=texts, items=replace(known.items, sentences=()))


def with_memory_of(asked: EncodedSet, other: EncodedSet, chosen: Tensor) -> EncodedSet:
    """Ask about one set with the memory of another: class c is said to be class ``chosen[c]`` of the other.

    Args:
        asked: C classes.
        other: classes whose memory is taken.
        chosen: different classes of the other set, int64 ``(C,)``.
    """
    number = torch.full((len(other.class_names),), -1, dtype=torch.int64)
    number[chosen] = torch.arange(len(chosen))

    def images(part: ImageFeatures) -> tuple[ImageFeatures, Tensor]:
        rows = _by_new_class(number[part.labels])
        return ImageFeatures(part.features[rows], number[part.labels[rows]], torch.arange(len(rows))), rows

    kept_images, image_order = images(other.images)
    text_order = _by_new_class(number[other.texts.classes])
    texts = TextFeatures(other.texts.features[text_order], number[other.texts.classes[text_order]])
    shown = other.items.images
    sentences = tuple(other.items.sentences[row] for row in text_order.tolist())
    return replace(
        asked,
        images=kept_images,
        texts=texts,
        shots=images(other.shots)[0],
        items=MemoryItems(asked.items.queries, None if shown is None else shown.select(image_order), sentences),
    )


def relabelled_images(known: EncodedSet, labels: Tensor) -> EncodedSet:
    """Give the images of the memory other classes, int64 ``(N,)``, and put them in the order of these."""
    order = labels.argsort(stable=True)
    images = ImageFeatures(known.images.features[order], labels[order], torch.arange(len(order)))
    shown = known.items.images
    return replace(
        known,
        images=images,
        items=replace(known.items, images=None if shown is None else shown.select(order)),
    )


def _by_new_class(numbers: Tensor) -> Tensor:
    """Return the rows that have a class, by class."""
    order = numbers.argsort(stable=True)
    return order[numbers[order] >= 0]


def _first_texts(texts: TextFeatures, count: int) -> TextFeatures:
    kept = texts.classes < count
    return TextFeatures(texts.features[kept], texts.classes[kept])


def _joined_samples(parts: Sequence[Samples | None], offsets: Sequence[int]) -> Samples | None:
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    moved = [
        Samples(part.images, part.labels + offset, part.sources) for part, offset in zip(known, offsets, strict=False)
    ]
    return Samples.concatenate(moved)
