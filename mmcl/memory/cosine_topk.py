"""The nearest rows by cosine, and top-k with an order that no kernel or chunk size can change."""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK_SCORES = 2**22
_LOW_32 = (1 << 32) - 1


def stable_topk(scores: Tensor, k: int) -> Tensor:
    """Return the columns of the k largest scores ``(B, C)``, best first: int64 ``(B, min(k, C))``.

    Of equal scores the lowest column comes first, which ``torch.topk`` does not promise.
    """
    return scores.sort(dim=1, descending=True, stable=True).indices[:, :k]


def cosine_topk(queries: Tensor, rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Find for each query the k rows with the largest cosine.

    Args:
        queries: ``(B, D)``.
        rows: ``(N, D)`` on the same device.
        k: how many; fewer rows than that give all of them.

    Returns:
        Cosines float32 ``(B, min(k, N))``, largest first, and int64 indices of the rows. Equal cosines come
        lowest index first. A zero vector has cosine 0 with everything.

    The products are formed in float64 and rounded to float32, so that equal rows tie wherever they lie.
    Memory beside inputs and result stays within some ``8 * CHUNK_SCORES`` bytes a buffer, whatever N is.
    """
    unit_queries = _unit(queries)
    best = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
    chunk = max(k, CHUNK_SCORES // max(1, len(queries)), 1)
    for first in range(0, len(rows), chunk):
        cosines = (unit_queries @ _unit(rows[first : first + chunk]).T).float()
        best = torch.cat([best, _sort_keys(cosines, first)], dim=1)
        best = best.topk(min(k, best.shape[1]), dim=1).values
    return _cosines(best), _LOW_32 - (best & _LOW_32)


def _unit(vectors: Tensor) -> Tensor:
    return torch.nn.functional.normalize(vectors.double(), dim=1)


def _sort_keys(cosines: Tensor, first_index: int) -> Tensor:
    """Pack (cosine, index) into int64 keys that are all different and sort by cosine, then by lowest index.

    The high half is the float's bit pattern, made monotone; the low half counts the index downwards.
    """
    bits = (cosines + 0.0).view(torch.int32)  # adding 0 turns -0 into +0
    monotone = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(torch.int64)
    index = torch.arange(first_index, first_index + cosines.shape[1], device=cosines.device)
    return (monotone << 32) | (_LOW_32 - index)


def _cosines(keys: Tensor) -> Tensor:
    monotone = (keys >> 32).to(torch.int32)
    return (monotone ^ ((monotone >> 31) & 0x7FFFFFFF)).view(torch.float32)
