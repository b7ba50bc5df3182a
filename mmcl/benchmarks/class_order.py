"""Which class comes when: the order of the classes and how many each task adds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mmcl.errors import UserError


def class_order(count: int, seed: int) -> list[int]:
    """Return the class order of the published protocols.

    It equals ``np.random.seed(seed); np.random.permutation(count)`` and leaves NumPy's global state alone.
    """
    return [int(label) for label in np.random.RandomState(seed).permutation(count)]


def check_class_order(order: Sequence[int], count: int) -> list[int]:
    """Return a given class order as a list.

    Raises:
        UserError: it does not name each of the ``count`` classes exactly once.
    """
    if sorted(order) == list(range(count)):
        return list(order)
    missing = sorted(set(range(count)) - set(order))
    foreign = sorted(set(order) - set(range(count)))
    repeated = sorted({label for label in order if order.count(label) > 1})
    faults = {"missing": missing, "not a class": foreign, "repeated": repeated}
    found = "; ".join(f"{fault}: {labels[:5]}" for fault, labels in faults.items() if labels)
    raise UserError(
        f"benchmark.class_order must name each class of 0 to {count - 1} exactly once; it has {len(order)} "
        f"entries ({found}). Mend the list, or type benchmark.class_order=null."
    )


def task_sizes(count: int, base: int, increment: int) -> list[int]:
    """Return how many classes each task adds.

    Args:
        count: number of classes.
        base: classes of the first task; 0 means as many as ``increment``.
        increment: classes of every later task. A remainder becomes a smaller last task.

    Raises:
        UserError: a value that gives no sequence of tasks.
    """
    if increment <= 0:
        raise UserError(f"benchmark.increment={increment}: it must be 1 or more, such as 10.")
    if base < 0:
        raise UserError(f"benchmark.base={base}: it must be 0 (as large as the other tasks) or more.")
    first = base or increment
    if first > count:
        key = "benchmark.base" if base else "benchmark.increment"
        raise UserError(f"{key}={first}: the benchmark has {count} classes; type {key}={count} or less.")
    full, rest = divmod(count - first, increment)
    return [first] + [increment] * full + ([rest] if rest else [])


def positions(labels: Tensor, order: Sequence[int]) -> Tensor:
    """Map a data set's labels, int64 ``(N,)``, to their positions in the class order."""
    position = torch.empty(len(order), dtype=torch.int64)
    position[torch.tensor(order)] = torch.arange(len(order))
    return position[labels]
