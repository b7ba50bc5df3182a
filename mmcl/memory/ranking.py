"""Scores of pairs of rows, each formed by itself, and keys that rank scores, of equal ones the first."""

from __future__ import annotations

import warnings
from functools import cache

import numpy as np
import torch
from torch import Tensor

LOWEST_KEY = torch.iinfo(torch.int64).min
_LOW_32 = (1 << 32) - 1
_PAIRS = 512  # multiplied together, so that they stay in the processor's cache
_PAIRS_ON_GPU = 2**15


def pair_products(left: Tensor, counts: Tensor, right: Tensor, partners: Tensor) -> Tensor:
    """Return the inner products of pairs; what a pair gets depends on its two rows alone, to the bit.

    Args:
        left: float32 ``(L, D)``.
        counts: int64 ``(L,)``, how many pairs each left row is in; they come in the order of the left rows.
        right: float16 or float32 ``(R, D)`` on the same device.
        partners: int64 ``(P,)``, the right row of each pair.

    Returns:
        float32 ``(P,)``, summed in float32 or better.
    """
    if left.device.type == "cpu" and left.dtype == right.dtype == torch.float32:
        return _sampled_products(left, counts, right, partners)
    owners = torch.repeat_interleave(torch.arange(len(left), device=left.device), counts)
    at_once = _PAIRS if left.device.type == "cpu" else _PAIRS_ON_GPU
    products = torch.empty(len(partners), device=left.device)
    for first in range(0, len(partners), at_once):
        pairs = slice(first, first + at_once)
        terms = right.index_select(0, partners[pairs]) * left.index_select(0, owners[pairs])
        products[pairs] = terms.sum(dim=1, dtype=torch.float64)
    return products


def rank_keys(scores: Tensor, places: Tensor) -> Tensor:
    """Pack scores float32 ``(P,)`` and places int64 ``(P,)`` into int64 keys: larger score, then lower place is larger.

    Places are below 2^32. The high half is the float's bit pattern, made monotone; the low half counts the place
    downwards. No key of a number is ``LOWEST_KEY``.
    """
    bits = (scores + 0.0).view(torch.int32)  # adding 0 turns -0 into +0
    return (monotone(bits).to(torch.int64) << 32) | (_LOW_32 - places)


def ranked_scores(keys: Tensor) -> Tensor:
    """Return the scores float32 that are packed in keys."""
    return monotone((keys >> 32).to(torch.int32)).view(torch.float32)


def ranked_places(keys: Tensor) -> Tensor:
    """Return the places int64 that are packed in keys."""
    return _LOW_32 - (keys & _LOW_32)


def monotone(bits: Tensor) -> Tensor:
    """Turn bit patterns of floats, read as whole numbers of 16 or 32 bits, into numbers of the floats' order, and back.

    What has the sign bit is turned around; it comes out as a new tensor.
    """
    largest = torch.iinfo(bits.dtype).max
    return (bits >> (torch.iinfo(bits.dtype).bits - 1)).bitwise_and_(largest).bitwise_xor_(bits)


def kth_largest(table: Tensor, k: int) -> Tensor:
    """Return the k-th largest whole number of each row of ``(B, L)``: ``(B, 1)``."""
    if table.device.type != "cpu":
        return table.topk(k, dim=1, sorted=False).values.amin(dim=1, keepdim=True)
    place = table.shape[1] - k  # numpy's selection uses vector units
    return torch.from_numpy(np.partition(table.numpy(), place, axis=1)[:, place, None])


def largest(table: Tensor, k: int) -> Tensor:
    """Return the k largest whole numbers of each row of ``(B, L)``, largest first: ``(B, k)``."""
    if table.device.type != "cpu":
        return table.topk(k, dim=1).values
    ascending = torch.from_numpy(np.sort(table.numpy(), axis=1))
    return ascending[:, table.shape[1] - k :].flip(1)


def stable_order(places: Tensor) -> Tensor:
    """Return the order int64 ``(P,)`` that sorts places from 0 to 2^16 - 1, equal ones as they come."""
    if places.device.type != "cpu":
        return torch.argsort(places, stable=True)
    return torch.from_numpy(np.argsort(places.numpy().astype(np.uint16), kind="stable"))  # numpy sorts these by digits


def places_of_true(table: Tensor) -> tuple[Tensor, Tensor]:
    """Return row and column int64 ``(P,)`` of what is true in ``(B, L)``, row by row."""
    if table.device.type != "cpu":
        rows, columns = table.nonzero(as_tuple=True)
        return rows, columns
    places = torch.from_numpy(np.flatnonzero(table.numpy()))
    rows = places.div(max(1, table.shape[1]), rounding_mode="floor")
    return rows, places - rows * table.shape[1]


def _sampled_products(left: Tensor, counts: Tensor, right: Tensor, partners: Tensor) -> Tensor:
    """Form the products as entries of a sparse matrix: each is one sum along two rows, and nothing is gathered."""
    _warn_of_sparse_tensors()
    starts = counts.new_zeros(len(counts) + 1)
    torch.cumsum(counts, 0, out=starts[1:])
    shape, zeros = (len(left), len(right)), torch.zeros(len(partners))
    wanted = torch.sparse_csr_tensor(starts, partners, zeros, shape, check_invariants=False)
    products: Tensor = torch.sparse.sampled_addmm(wanted, left, right.T, beta=0).values()
    return products


@cache
def _warn_of_sparse_tensors() -> None:
    """Let torch say once, unheard, that they are in beta; to hold warnings back takes longer than a small product."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        none = torch.zeros(0, dtype=torch.int64)
        torch.sparse_csr_tensor(torch.zeros(1, dtype=torch.int64), none, torch.zeros(0), (0, 0), check_invariants=False)
