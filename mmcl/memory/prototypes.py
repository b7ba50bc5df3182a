"""Class prototypes out of noisy images and texts: what the two modalities of a class agree on.

Kang et al., "Memory-Modular Classification: Learning to Generalize with Memory Replacement", TMLR 2025: cross-modal
consensus. An image of a class is worth the sum of its cosines with the texts of the class, and the other way round. The
best of each modality are averaged as the encoder gave them; that mean, scaled to length 1, is the prototype.

The sum of cosines with many rows is one product with the sum of their unit vectors, so no table of all pairs is made.
Many classes are worked on together; still each number is formed by sums over its own rows in their order. What a class
gets depends on the rows of this class and their order alone, to the bit: memories can grow, shrink and come back class
by class.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, normalize

from mmcl.errors import UserError
from mmcl.memory.ranking import LOWEST_KEY, pair_products, rank_keys, ranked_places

NORM_FLOOR = 1e-12
_BLOCK_BYTES = 2**28  # of the rows of classes that are worked on together, each padded to the largest
_CACHE_BYTES = 2**23  # of rows that are read three times while the processor's cache holds them
_NAMED_CLASSES = 8
_NEEDED = {
    "text": "every class of a memory needs at least one. Bring its sentences, or leave the class out",
    "image": "in a memory without texts every class needs some. Bring its images or shots, or leave the class out",
}


class ClassRows(NamedTuple):
    """Encoded images or texts: ``features`` float16 or float32 ``(N, D)``, ``classes`` int64 ``(N,)``."""

    features: Tensor
    classes: Tensor


class Prototypes(NamedTuple):
    """Unit rows float32 ``(C, D)`` of each modality; row c is class c."""

    images: Tensor
    texts: Tensor


class Consensus(NamedTuple):
    """What each image ``(n,)`` and each text ``(t,)`` of a class is worth: the sum of its cosines with the others."""

    images: Tensor
    texts: Tensor


class ClassBlock(NamedTuple):
    """Rows of some classes, class by class: ``features`` float32 ``(n, D)``, ``counts`` of rows int64 ``(c,)``."""

    features: Tensor
    counts: Tensor


def prototypes(
    images: Tensor,
    image_classes: Tensor,
    texts: Tensor,
    text_classes: Tensor,
    class_count: int,
    top: int,
    shots: tuple[Tensor, Tensor] | None = None,
) -> Prototypes:
    """Return the prototypes of all classes.

    Args:
        images: float16 or float32 ``(N_i, D)``, as the encoder gives them.
        image_classes: int64 ``(N_i,)``.
        texts: float16 or float32 ``(N_t, D)``, as the encoder gives them.
        text_classes: int64 ``(N_t,)``.
        class_count: C; classes are ``range(C)``.
        top: how many rows of a class and modality are averaged; of equal ones the first.
        shots: features ``(S, D)`` and classes ``(S,)`` of labelled images. They stand for the images, and all of them
            are averaged.

    Returns:
        float32, computed in float32. A class without images (or shots) has no consensus: its first ``top`` texts are
        averaged, and both prototypes are that mean. Nor is there any where no class has texts: then the first ``top``
        images of each are averaged (all shots), for both.

    Raises:
        UserError: a class has no text while others have some, nothing at all, or a row is of a class beyond C.
    """
    text_rows = ClassRows(texts, text_classes)
    image_rows = ClassRows(images, image_classes) if shots is None else ClassRows(*shots)
    require_classes(image_rows, text_rows, class_count)
    made = Prototypes(*(rows.new_empty(class_count, rows.shape[1], dtype=torch.float32) for rows in (images, texts)))
    kept_images = top if shots is None else None
    of_images, of_texts = _side(image_rows, class_count), _side(text_rows, class_count)
    rows_at_once = _BLOCK_BYTES // (4 * max(1, texts.shape[1]))
    for first, last in _spans((of_images.counts + of_texts.counts).tolist(), rows_at_once):
        means = class_means(of_images.block(first, last), of_texts.block(first, last), kept_images, top)
        for made_side, mean_side in zip(made, means, strict=True):
            made_side[first:last] = normalize(mean_side, dim=1, eps=NORM_FLOOR)
    return made


def class_means(images: ClassBlock, texts: ClassBlock, kept_images: int | None, kept_texts: int) -> Prototypes:
    """Return the means float32 ``(c, D)`` of the best images and the best texts of each class.

    ``kept_images`` is how many images are averaged, None is all. In a class without one modality the mean of the other
    stands for both.
    """
    worth = class_consensus(images, texts)
    image_means = _mean_of_best(images, worth.images, kept_images)
    text_means = _mean_of_best(texts, worth.texts, kept_texts)
    return Prototypes(
        torch.where(images.counts[:, None] > 0, image_means, text_means),
        torch.where(texts.counts[:, None] > 0, text_means, image_means),
    )


def class_directions(rows: ClassRows, kept: Tensor, class_count: int) -> Tensor:
    """Average the rows of each class that are kept, whatever they are worth, and scale the mean to length 1.

    Args:
        rows: as the encoder gives them.
        kept: int64 ``(K,)``, which of them.
        class_count: C. A class of which nothing is kept gets zeros.

    Returns:
        float32 ``(C, D)``.
    """
    zeros = rows.features.new_zeros(rows.features.shape[1], dtype=torch.float32)
    parts = rows_by_class(ClassRows(rows.features[kept], rows.classes[kept]), class_count)
    means = [part.mean(dim=0) if len(part) else zeros for part in parts]
    return normalize(torch.stack([zeros, *means]), dim=1, eps=NORM_FLOOR)[1:]


def consensus(images: Tensor, texts: Tensor) -> Consensus:
    """Return for each row of one class the sum of its cosines with the rows of the other modality.

    Args:
        images: float32 ``(n, D)``, as the encoder gives them.
        texts: float32 ``(t, D)``, as the encoder gives them.

    Returns:
        float32; 0 where the other modality has no rows, and for a row of zeros.
    """
    blocks = [ClassBlock(rows, torch.tensor([len(rows)], device=rows.device)) for rows in (images, texts)]
    return class_consensus(*blocks)


def class_consensus(images: ClassBlock, texts: ClassBlock) -> Consensus:
    """Return :func:`consensus` of each class, one behind the other."""
    if images.features.device.type != "cpu":
        return _consensus_of_span(images, texts)
    of_images, of_texts = _side_of(images), _side_of(texts)
    rows_at_once = _CACHE_BYTES // (4 * max(1, images.features.shape[1]))
    spans = _spans((images.counts + texts.counts).tolist(), rows_at_once)
    parts = [_consensus_of_span(of_images.block(*span), of_texts.block(*span)) for span in spans]
    return Consensus(*(torch.cat(side) for side in zip(*parts, strict=True)))


def best(worth: Tensor, top: int) -> Tensor:
    """Return where the ``top`` largest of ``(n,)`` are, best first, of equal ones the first: ``(min(n, top),)``."""
    return best_of_each(worth, torch.tensor([len(worth)], device=worth.device), top)


def best_of_each(worth: Tensor, counts: Tensor, top: int) -> Tensor:
    """Return where the ``top`` largest of each class are, as :func:`best` does, one class behind the other.

    Args:
        worth: float32 ``(n,)``, class by class.
        counts: int64 ``(c,)``, how many are of each class.
        top: how many of each class.
    """
    size = len(worth)
    keys = torch.full((size + 1,), LOWEST_KEY, device=worth.device)
    keys[:size] = rank_keys(worth, torch.arange(size, device=worth.device))
    member = torch.arange(int(counts.max()), device=worth.device)
    place = (counts.cumsum(0) - counts)[:, None] + member
    table = keys.take(place.masked_fill_(member >= counts[:, None], size))
    keys = table.topk(min(top, table.shape[1]), dim=1).values.flatten()
    return ranked_places(keys[keys > LOWEST_KEY])


def inverse_norms(features: Tensor) -> Tensor:
    """Return the factor that scales each row ``(N, D)`` to length 1: float32 ``(N,)``; zeros stay zeros."""
    norms: Tensor = torch.linalg.vector_norm(features, dim=1)
    return norms.clamp_min_(NORM_FLOOR).reciprocal_()


def rows_by_class(rows: ClassRows, class_count: int) -> list[Tensor]:
    """Return the features of each class in float32, in the order of the rows: C tensors ``(n, D)``."""
    counts = torch.bincount(rows.classes, minlength=class_count).tolist()
    order = _order(rows.classes)
    features = rows.features if order is None else rows.features[order]
    return [part.float() for part in torch.split(features, counts)]


def require_classes(images: ClassRows, texts: ClassRows, class_count: int) -> None:
    """Check that every class has a text, or an image where there are no texts, and that no row is of another class.

    Raises:
        UserError: it is not so.
    """
    for kind, rows in (("image", images), ("text", texts)):
        if len(rows.classes) and not 0 <= int(rows.classes.min()) <= int(rows.classes.max()) < class_count:
            raise UserError(
                f"a memory of {class_count} classes has {kind}s of classes {int(rows.classes.min())} to "
                f"{int(rows.classes.max())}: expected 0 to {class_count - 1}"
            )
    kind, needed = ("text", texts) if len(texts.classes) else ("image", images)
    without = (torch.bincount(needed.classes, minlength=class_count) == 0).nonzero().flatten().tolist()
    if without:
        raise UserError(f"no {kind} for {_named(without)} of {class_count}: {_NEEDED[kind]}")


class _Side(NamedTuple):
    """Rows of one modality, to be taken class by class: row ``order[i]`` is the i-th; None is the order they have."""

    features: Tensor
    order: Tensor | None
    counts: Tensor
    starts: list[int]

    def block(self, first: int, last: int) -> ClassBlock:
        span = slice(self.starts[first], self.starts[last])
        rows = self.features[span if self.order is None else self.order[span]]
        return ClassBlock(rows.float().contiguous(), self.counts[first:last])


def _side(rows: ClassRows, class_count: int) -> _Side:
    counts = torch.bincount(rows.classes, minlength=class_count)
    return _Side(rows.features, _order(rows.classes), counts, _starts(counts))


def _side_of(block: ClassBlock) -> _Side:
    return _Side(block.features, None, block.counts, _starts(block.counts))


def _starts(counts: Tensor) -> list[int]:
    return [0, *counts.cumsum(0).tolist()]


def _order(classes: Tensor) -> Tensor | None:
    """Return the order that puts rows class by class; None if they lie so."""
    return None if bool((classes[1:] >= classes[:-1]).all()) else torch.argsort(classes, stable=True)


def _spans(sizes: list[int], rows_at_once: int) -> Iterator[tuple[int, int]]:
    """Cut classes of these sizes into spans that have so many rows at most, all padded to the largest; or one class."""
    first, widest = 0, 0
    for number, size in enumerate(sizes):
        widest = max(widest, size)
        if number > first and widest * (number + 1 - first) > rows_at_once:
            yield first, number
            first, widest = number, size
    if sizes:
        yield first, len(sizes)


def _consensus_of_span(images: ClassBlock, texts: ClassBlock) -> Consensus:
    image_sums, to_unit = _unit_sums(images)
    text_sums, text_to_unit = _unit_sums(texts)
    return Consensus(
        _products_with_own(images, text_sums).mul_(to_unit),
        _products_with_own(texts, image_sums).mul_(text_to_unit),
    )


def _unit_sums(block: ClassBlock) -> tuple[Tensor, Tensor]:
    """Return the sum float32 ``(c, D)`` of the unit rows of each class, and what makes each row a unit ``(n,)``."""
    to_unit = inverse_norms(block.features)
    return _sums(block.features, torch.arange(len(to_unit), device=to_unit.device), block.counts, to_unit), to_unit


def _sums(features: Tensor, rows: Tensor, counts: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the sums ``(c, D)`` of ``counts`` rows each of ``(n, D)``, listed one class behind the other."""
    return embedding_bag(rows, features, counts.cumsum(0) - counts, mode="sum", per_sample_weights=weights)


def _products_with_own(block: ClassBlock, of_classes: Tensor) -> Tensor:
    """Return the product ``(n,)`` of each row with that of its class in ``(c, D)``."""
    members = torch.arange(len(block.features), device=of_classes.device)
    return pair_products(of_classes, block.counts, block.features, members)


def _mean_of_best(block: ClassBlock, worth: Tensor, top: int | None) -> Tensor:
    """Return the mean ``(c, D)`` of the rows of each class that are worth most, of all without ``top``."""
    if top is None:
        kept, counts = torch.arange(len(worth), device=worth.device), block.counts
    else:
        kept, counts = best_of_each(worth, block.counts, top), block.counts.clamp(max=top)
    return _sums(block.features, kept, counts) / counts[:, None].clamp(min=1)


def _named(classes: list[int]) -> str:
    shown = ", ".join(map(str, classes[:_NAMED_CLASSES]))
    more = f" and {len(classes) - _NAMED_CLASSES} more" if len(classes) > _NAMED_CLASSES else ""
    return f"{'class' if len(classes) == 1 else 'classes'} {shown}{more}"
