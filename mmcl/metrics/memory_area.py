"""Accuracy against memory: the area under a method's curve over budgets, and accuracy per megabyte.

Plain numbers only, so that tables can be made without torch.
Paper: Zhou et al., "A Model or 603 Exemplars", ICLR 2023, arXiv 2205.13218 (AUC-A, AUC-L, APM-S, APM-E).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from mmcl.errors import UserError


class AccuracyPerMegabyte(NamedTuple):
    """Accuracy in percent per megabyte at the smallest budget (APM-S) and at the largest (APM-E)."""

    smallest: float
    largest: float


def memory_area(memory_mb: Sequence[float], accuracy: Sequence[float]) -> float:
    """Return the area under the accuracy over memory, by trapezoids.

    AUC-A when the accuracies are average incremental ones, AUC-L when they are last ones.

    Args:
        memory_mb: budgets of model and memory together, in MB, in any order.
        accuracy: accuracy at each budget, as a fraction.

    Raises:
        UserError: fewer than two budgets, or not one accuracy per budget.
    """
    points = _by_memory(memory_mb, accuracy, at_least=2)
    pairs = zip(points[:-1], points[1:], strict=True)
    return sum((right - left) * (low + high) / 2 for (left, low), (right, high) in pairs)


def accuracy_per_megabyte(memory_mb: Sequence[float], accuracy: Sequence[float]) -> AccuracyPerMegabyte:
    """Return the accuracy in percent per megabyte at both ends of the curve.

    Args:
        memory_mb: budgets of model and memory together, in MB, in any order.
        accuracy: average incremental accuracy at each budget, as a fraction.

    Raises:
        UserError: no budget, a budget of 0 MB, or not one accuracy per budget.
    """
    points = _by_memory(memory_mb, accuracy, at_least=1)
    return AccuracyPerMegabyte(*(100 * share / memory for memory, share in (points[0], points[-1])))


def _by_memory(memory_mb: Sequence[float], accuracy: Sequence[float], at_least: int) -> list[tuple[float, float]]:
    if len(memory_mb) != len(accuracy):
        raise UserError(
            f"accuracy over memory: {len(memory_mb)} budgets but {len(accuracy)} accuracies; "
            "give one accuracy per budget"
        )
    if len(memory_mb) < at_least or not all(memory > 0 for memory in memory_mb):
        raise UserError(
            f"accuracy over memory: needs {at_least} or more budgets above 0 MB, got {list(memory_mb)}; "
            "run the method with more memory sizes, such as -m memory.size=500,1000,2000"
        )
    return sorted(zip(map(float, memory_mb), map(float, accuracy), strict=True))
