"""Rows of labelled samples by class: which they are, and runs of classes that fit into a given room."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor


def class_rows(labels: Tensor) -> list[Tensor]:
    """Return the rows of each class that occurs in labels ``(N,)``: class ascending, in order inside one."""
    ordered, order = torch.sort(labels, stable=True)
    sizes = torch.unique_consecutive(ordered, return_counts=True)[1]
    return list(torch.split(order, sizes.tolist())) if len(labels) else []


def runs_of_classes(groups: list[Tensor], row_size: Callable[[int], int], room: int) -> Iterator[list[Tensor]]:
    """Cut the classes into runs that, padded to their longest class, stay within the room.

    A class that is too large for it is a run by itself.

    Args:
        groups: the rows of each class.
        row_size: from the rows of the longest class to what a row takes.
        room: what all rows of a run may take together, padding included.
    """
    run: list[Tensor] = []
    longest = 0
    for group in groups:
        longest = max(longest, len(group))
        if run and (len(run) + 1) * longest * row_size(longest) > room:
            yield run
            run, longest = [], len(group)
        run.append(group)
    if run:
        yield run
