"""Class prototypes out of noisy images and texts: what the two modalities of a class agree on.

Kang et al., "Memory-Modular Classification: Learning to Generalize with Memory Replacement", TMLR 2025: cross-modal
consensus. An image of a class is worth the sum of its cosines with the texts of the class, and the other way round. The
best of each modality are averaged as the encoder gave them; that mean, scaled to length 1, is the prototype.

The sum of cosines with many rows is one product with the sum of their unit vectors, so no table of all pairs is made.
What a class gets depends on the rows of this class and their order alone, to the bit: memories can grow, shrink and
come back class by class.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from mmcl.errors import UserError

NORM_FLOOR = 1e-12
_ALIGNED_BYTES = 64
_NAMED_CLASSES = 8
_NEEDED = {
    "text": "every class of a memory needs at least one. Bring its sentences, or leave the class out",
    "image": "every class of a memory without texts needs at least one. Bring its images or shots, or leave the class out",
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
    pairs = zip(rows_by_class(image_rows, class_count), rows_by_class(text_rows, class_count), strict=True)
    kept_images = top if shots is None else None
    means = [class_means(*pair, kept_images, top) for pair in pairs]
    if not means:
        return Prototypes(*(rows.new_empty(0, rows.shape[1], dtype=torch.float32) for rows in (images, texts)))
    return Prototypes(*(normalize(torch.stack(side), dim=1, eps=NORM_FLOOR) for side in zip(*means, strict=True)))


def class_means(images: Tensor, texts: Tensor, kept_images: int | None, kept_texts: int) -> tuple[Tensor, Tensor]:
    """Return the means float32 ``(D,)`` of the best images ``(n, D)`` and the best texts ``(t, D)`` of one class.

    ``kept_images`` is how many images are averaged, None is all. Without one modality the mean of the other stands for
    both.
    """
    if not len(texts):
        image_mean = images[:kept_images].mean(dim=0)
        return image_mean, image_mean
    worth = consensus(images, texts)
    text_mean = texts.index_select(0, best(worth.texts, kept_texts)).mean(dim=0)
    if not len(images):
        return text_mean, text_mean
    kept = images if kept_images is None else images.index_select(0, best(worth.images, kept_images))
    return kept.mean(dim=0), text_mean


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
    to_unit, text_to_unit = inverse_norms(images), inverse_norms(texts)
    image_sum, text_sum = torch.mv(images.T, to_unit), torch.mv(texts.T, text_to_unit)
    return Consensus(
        torch.mv(images, text_sum).mul_(to_unit),
        torch.mv(texts, image_sum).mul_(text_to_unit),
    )


def best(worth: Tensor, top: int) -> Tensor:
    """Return where the ``top`` largest of ``(n,)`` are, best first, of equal ones the first: ``(min(n, top),)``."""
    return worth.sort(descending=True, stable=True).indices[:top]


def inverse_norms(features: Tensor) -> Tensor:
    """Return the factor that scales each row ``(N, D)`` to length 1: float32 ``(N,)``; zeros stay zeros."""
    norms: Tensor = torch.linalg.vector_norm(features, dim=1)
    return norms.clamp_min_(NORM_FLOOR).reciprocal_()


def rows_by_class(rows: ClassRows, class_count: int) -> list[Tensor]:
    """Return the features of each class in float32, in the order of the rows: C tensors ``(n, D)``."""
    counts = torch.bincount(rows.classes, minlength=class_count).tolist()
    if bool((rows.classes[1:] >= rows.classes[:-1]).all()):
        return [_aligned(part.float()) for part in torch.split(rows.features, counts)]
    order = torch.argsort(rows.classes, stable=True)
    return [rows.features[part].float() for part in torch.split(order, counts)]


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


def _aligned(features: Tensor) -> Tensor:
    """Copy rows that begin in the middle of a cache line, where products may round in another way."""
    return features if features.data_ptr() % _ALIGNED_BYTES == 0 and features.is_contiguous() else features.clone()


def _named(classes: list[int]) -> str:
    shown = ", ".join(map(str, classes[:_NAMED_CLASSES]))
    more = f" and {len(classes) - _NAMED_CLASSES} more" if len(classes) > _NAMED_CLASSES else ""
    return f"{'class' if len(classes) == 1 else 'classes'} {shown}{more}"
