"""Which classes are seen, chosen by and unseen, and which of a class's images are learned from, kept or set aside.

The rules of benchmarks that have one pool of classes, or one pool of labelled images, and no published split of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mmcl.benchmarks.memory_splits import first_rows, keyed_orders
from mmcl.errors import UserError
from mmcl.protocol import Samples
from mmcl.randomness import permutation


class ClassRoles(NamedTuple):
    """Sorted positions of classes: those of training, those that may choose something, those that are unseen."""

    seen: tuple[int, ...]
    validation: tuple[int, ...]
    unseen: tuple[int, ...]

    def of(self, which: str) -> tuple[int, ...]:
        """Return the positions of ``seen``, ``validation`` or ``unseen``."""
        positions: tuple[int, ...] = getattr(self, which)
        return positions


class Dealt(NamedTuple):
    """Rows of images by what they are for, int64, each grouped by class.

    ``training`` are labelled queries to learn from, ``images`` stay in the memory, ``shots`` are set aside.
    """

    training: Tensor
    images: Tensor
    shots: Tensor


def class_roles(count: int, validation: int, unseen: int, seed: int) -> ClassRoles:
    """Draw roles for classes; which are unseen does not depend on how many are for validation.

    Args:
        count: number of classes.
        validation: how many may choose something.
        unseen: how many only a memory knows.
        seed: keys the draw.

    Raises:
        UserError: a role without a class.
    """
    drawn = permutation(count, seed, "class roles").tolist()
    return roles_beside(count, sorted(drawn[:unseen]), validation, seed)


def roles_beside(count: int, unseen: Sequence[int], validation: int, seed: int) -> ClassRoles:
    """Draw the classes of validation out of those that are not unseen; the others are seen.

    Args:
        count: number of classes.
        unseen: positions of the unseen ones, ascending.
        validation: how many may choose something.
        seed: keys the draw.

    Raises:
        UserError: a role without a class.
    """
    rest = sorted(set(range(count)) - set(unseen))
    if min(validation, len(unseen), len(rest) - validation) < 1:
        raise UserError(
            f"{count} classes are too few: {len(unseen)} are unseen, {validation} or more are for validation, and each "
            "role needs one at least, training too. Lower benchmark.unseen_classes and benchmark.validation_classes "
            "(or their shares), or bring more classes"
        )
    drawn = [rest[place] for place in permutation(len(rest), seed, "validation classes").tolist()]
    return ClassRoles(tuple(sorted(drawn[validation:])), tuple(sorted(drawn[:validation])), tuple(unseen))


def deal(
    labels: Tensor, class_ids: Sequence[str], training: Sequence[int], shots: Sequence[int], *parts: int | str
) -> Dealt:
    """Deal the images of each class out, in an order that its id and the key decide, whatever other classes there are.

    The first are for training, the last are shots, those between them are the memory's.

    Args:
        labels: int64 ``(N,)``, images of a class in an order that stays, such as that of their file names.
        class_ids: C ids in the order of the labels.
        training: most training queries of each class.
        shots: most shots of each class; they come first where a class has too few images for both.
        parts: what keys the orders, such as the seed.
    """
    rows = torch.split(labels.argsort(stable=True), torch.bincount(labels, minlength=len(class_ids)).tolist())
    dealt: list[list[Tensor]] = [[], [], []]
    orders = keyed_orders(labels, class_ids, *parts)
    for own, order, learned, aside in zip(rows, orders, training, shots, strict=True):
        last = len(own) - min(aside, len(own))
        first = min(learned, last)
        for part, places in zip(dealt, (order[:first], order[first:last], order[last:]), strict=True):
            part.append(own[places])
    return Dealt(*(torch.cat([labels.new_empty(0), *part]) for part in dealt))


def rows_of_classes(labels: Tensor, positions: Sequence[int], count: int) -> tuple[Tensor, Tensor]:
    """Choose the rows of some classes.

    Args:
        labels: int64 ``(N,)`` in ``range(count)``.
        positions: K classes, each once.
        count: number of classes.

    Returns:
        Rows grouped by class in the order of ``positions``, in their own order inside a class, int64 ``(M,)``; and
        their new labels in ``range(K)``.
    """
    number = torch.full((count,), -1, dtype=torch.int64)
    number[list(positions)] = torch.arange(len(positions))
    rows = number[labels].argsort(stable=True)
    rows = rows[number[labels[rows]] >= 0]
    return rows, number[labels[rows]]


class Counts(NamedTuple):
    """How many images of each class are for what; None takes all that are left.

    ``training`` queries to learn from, ``queries`` that are asked, ``images`` of the memory, ``shots`` set aside.
    """

    training: int
    queries: int | None
    images: int | None
    shots: int


@dataclass(frozen=True)
class Pool:
    """The images of C classes.

    Attributes:
        class_ids: C ids; labels are positions here.
        labelled: images with labels.
        asked: test images of these classes; None where some of the labelled ones are asked.
        web: images for the memory; None where the memory is made of labelled ones.
    """

    class_ids: tuple[str, ...]
    labelled: Samples
    asked: Samples | None
    web: Samples | None


class PoolParts(NamedTuple):
    """Images by what they are for."""

    training: Samples
    queries: Samples
    images: Samples
    shots: Samples


def deal_pool(pool: Pool, counts: Counts, seed: int) -> PoolParts:
    """Say what each image of a pool is for; what a class gets depends on its id and the seed alone.

    Of the labelled images of a class, in drawn order, the first are for training and the last are shots. Queries and
    memory share the rest where they have no images of their own, the memory first.

    Raises:
        UserError: a class without a query, or a memory that would take every image.
    """
    ids, labels = pool.class_ids, pool.labelled.labels
    every = [counts.training] * len(ids), [counts.shots] * len(ids)
    dealt = deal(labels, ids, *every, seed, "images")
    rest = pool.labelled.select(dealt.images)
    if pool.web is None and pool.asked is None:
        if counts.images is None:
            raise UserError(
                "benchmark.memory_images=null: the memory would take the queries, as there are no web images. Type "
                "for example benchmark.memory_images=100"
            )
        rows = deal(rest.labels, ids, [0] * len(ids), [counts.images] * len(ids), seed, "memory")
        images, rest = rest.select(rows.shots), rest.select(rows.images)
    else:
        images = first_of_classes(rest if pool.web is None else pool.web, counts.images)
    if pool.asked is not None:
        rest = pool.asked.select(deal(pool.asked.labels, ids, *_nothing(ids), seed, "queries").images)
    queries = first_of_classes(rest, counts.queries)
    _refuse_unasked(queries.labels, ids)
    return PoolParts(pool.labelled.select(dealt.training), queries, images, pool.labelled.select(dealt.shots))


def first_of_classes(samples: Samples, most: int | None) -> Samples:
    """Return the first images of each class, grouped by class; all of them for None."""
    return samples.select(first_rows(samples.labels, len(samples) if most is None else most))


def _nothing(class_ids: Sequence[str]) -> tuple[list[int], list[int]]:
    return [0] * len(class_ids), [0] * len(class_ids)


def _refuse_unasked(labels: Tensor, class_ids: Sequence[str]) -> None:
    counts = torch.bincount(labels, minlength=len(class_ids)).tolist()
    if 0 in counts:
        raise UserError(
            f"no image of class {class_ids[counts.index(0)]!r} is left to ask about ({counts.count(0)} of "
            f"{len(counts)} classes). Ask for fewer training queries, shots or images of the memory, or add images"
        )
