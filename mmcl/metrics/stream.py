"""Accuracy over the distributions of an online stream, as pure functions of the accuracy matrix.

Row t of the matrix is what was measured after distribution t of the stream, column j the samples of distribution j;
T is the number of distributions. NaN stands for "not evaluated". The definitions are those of the Memory Head paper's
code (Tiezzi et al., CoLLAs 2024): every distribution counts alike, whatever its size, and the two transfers are means
over all pairs, not over neighbours, as in :mod:`mmcl.metrics.sequence`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmcl.metrics.sequence import until_last_evaluated


def accuracy_over_distributions(matrix: Tensor) -> Tensor:
    """Return the mean accuracy over the distributions met so far, after each: ``(T, T)`` to float64 ``(T,)``."""
    met = torch.ones_like(matrix).tril()
    return (matrix.where(met.bool(), 0).sum(dim=1)) / met.sum(dim=1)


def stream_forgetting(matrix: Tensor) -> Tensor:
    """Return how far distributions fell from the best accuracy before the last row.

    Mean over j < T - 1 of ``max_{i < T - 1} A[i][j] - A[T - 1][j]``, T - 1 being the last evaluated row. The maximum
    includes rows before distribution j was met, and the value may be negative.

    Returns:
        A float64 scalar: 0 for one distribution, NaN where nothing was evaluated.
    """
    matrix = until_last_evaluated(matrix)
    if len(matrix) < 2:
        return _without_pairs(matrix)
    return (matrix[:-1, :-1].amax(dim=0) - matrix[-1, :-1]).mean()


def stream_backward_transfer(matrix: Tensor) -> Tensor:
    """Return the mean gain after a distribution was met, ``A[i][j] - A[j][j]`` over all i > j; losses count as 0.

    Returns:
        A float64 scalar, at least 0; NaN where nothing was evaluated.
    """
    matrix = until_last_evaluated(matrix)
    if len(matrix) < 2:
        return _without_pairs(matrix)
    later = torch.ones_like(matrix, dtype=torch.bool).tril(-1)
    return (matrix - matrix.diagonal())[later].mean().clamp(min=0)


def stream_forward_transfer(matrix: Tensor) -> Tensor:
    """Return the mean accuracy on distributions that are still to come, ``A[i][j]`` over all i < j.

    Returns:
        A float64 scalar: 0 for one distribution, NaN where nothing was evaluated.
    """
    matrix = until_last_evaluated(matrix)
    if len(matrix) < 2:
        return _without_pairs(matrix)
    to_come = torch.ones_like(matrix, dtype=torch.bool).triu(1)
    return matrix[to_come].mean()


def _without_pairs(matrix: Tensor) -> Tensor:
    return matrix.new_tensor(0.0 if len(matrix) else torch.nan)
