"""Which few images of each class a few-shot run may use: the published choice, the same for every seed."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor

from mmcl.errors import UserError


def few_shot_rows(labels: Tensor, shots: int, class_names: Sequence[str] = ()) -> Tensor:
    """Choose ``shots`` rows of each class as CoOp's and DMN's published few-shot sets do.

    CPython's ``random.sample`` picks from the rows of each class, in the order of the list, from a generator that is
    seeded with 0 anew for every class. The choice depends on nothing else: neither on the seed of the run nor on the
    other classes.

    Args:
        labels: class of each row, int64 ``(N,)``; the classes are ``range(C)`` with C the largest label plus 1, or
            as many as there are class names.
        shots: rows of each class; 0 chooses none.
        class_names: names for the error message.

    Returns:
        Rows grouped by class, in drawn order inside a class, int64 ``(C * shots,)``.

    Raises:
        UserError: a class has fewer rows.
    """
    count = len(class_names) or int(labels.max()) + 1 if len(labels) else len(class_names)
    by_class = torch.bincount(labels, minlength=count).tolist()
    groups = torch.split(labels.argsort(stable=True), by_class)
    for label, rows in enumerate(groups):
        if len(rows) < shots:
            name = f" ({class_names[label]!r})" if class_names else ""
            raise UserError(
                f"{shots} images of each class are asked for, but class {label}{name} has {len(rows)}. "
                f"Type a number of shots of at most {min(by_class)}."
            )
    chosen = [random.Random(0).sample(rows.tolist(), shots) for rows in groups]
    return torch.tensor(chosen, dtype=torch.int64).flatten()
