"""The rows of a memory nearest to queries by cosine: exact among millions in bounded memory, or through faiss.

The exact search looks twice. A coarse pass, in bfloat16 where the processor multiplies it, finds every row that could
be among the nearest, by a bound on its own rounding; only these are scored carefully. What comes out is what a full
sort of careful cosines gives: the same for every chunk size, batch of queries and number of threads, and with equal
cosines in the order of the rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.functional import normalize, pad

from mmcl.errors import UserError, nearest
from mmcl.memory.prototypes import NORM_FLOOR, inverse_norms

CHUNK_BYTES = 2**28
INDEXES = ("exact", "faiss")
LARGEST_NORM = 1e18  # of a row, so that no product of two numbers is infinite in float32
_LOW_32 = (1 << 32) - 1
_QUERIES = 1024  # searched side by side
_GROUP = 16  # rows of which the coarse pass looks at the best first
_SCORE_BYTES = 64  # at most needed for one row and query of a chunk, if every row is as near as every other
_PAIRS = 512  # scored together, so that they stay in the processor's cache
_PAIRS_ON_GPU = 2**15
# How far matrix products of float32 unit vectors may be off by what torch rounds their operands to.
_OPERAND_ROUNDING = {"highest": 0.0, "high": 2.0**-9, "medium": 2.0**-6}


class Neighbours(NamedTuple):
    """Nearest rows of each query, nearest first: ``scores`` float32 ``(B, k)`` cosines, ``rows`` int64 ``(B, k)``."""

    scores: Tensor
    rows: Tensor


class RowIndex(Protocol):
    """Rows prepared for search."""

    def __len__(self) -> int:
        """Return the number of rows."""
        ...

    def search(self, queries: Tensor, k: int) -> Neighbours:
        """Return the k nearest rows of queries ``(B, D)``."""
        ...


def nearest_rows(
    queries: Tensor, rows: Tensor, k: int, index: str = "exact", chunk_bytes: int = CHUNK_BYTES
) -> Neighbours:
    """Find the k rows with the largest cosine to each query, once. :func:`make_index` prepares rows for many searches.

    Args:
        queries: float ``(B, D)``, as the encoder gives them.
        rows: float16 or float32 ``(N, D)`` on the same device, as the encoder gives them.
        k: how many.
        index: ``exact`` or ``faiss``.
        chunk_bytes: of memory that the exact search may use beside rows, queries and result.

    Returns:
        Cosines formed in float32 or better, also from float16 rows. Of equal cosines the lowest row comes first. A
        vector of zeros has cosine 0 with everything.

    Raises:
        UserError: fewer rows than k, a k below 1, an unknown index, another D than the rows', numbers that are not
            finite, or faiss is asked for and not installed.
    """
    return make_index(index, rows, chunk_bytes).search(queries, k)


def make_index(index: str, rows: Tensor, chunk_bytes: int = CHUNK_BYTES) -> RowIndex:
    """Prepare rows ``(N, D)`` for search, as :func:`nearest_rows` describes.

    Raises:
        UserError: an unknown index, numbers that are not finite, or faiss is asked for and not installed.
    """
    if index == "exact":
        return ExactIndex(rows, chunk_bytes)
    if index == "faiss":
        return FaissIndex(rows)
    raise UserError(f"index={index}: expected one of {', '.join(INDEXES)}.{nearest(index, INDEXES)}")


def recall(index: RowIndex, exact: RowIndex, queries: Tensor, k: int) -> float:
    """Return the share of the k truly nearest rows that an index finds, over all queries ``(B, D)``; 1 is all."""
    found, true = (side.search(queries, k).rows for side in (index, exact))
    hits = (true[:, :, None] == found[:, None, :]).any(dim=2)
    return float(hits.double().mean())


class ExactIndex:
    """Exact search in bounded memory.

    Keeps a reference to the rows, 4 bytes for each, and a copy in bfloat16 where the processor multiplies that.

    Args:
        rows: float16 or float32 ``(N, D)``; perhaps mapped from a file.
        chunk_bytes: of memory that a search may use beside rows, queries and result.
        coarse: type of the first pass; None is the fastest that the device has. It does not change the result.

    Raises:
        UserError: a number is not finite.
    """

    def __init__(self, rows: Tensor, chunk_bytes: int = CHUNK_BYTES, coarse: torch.dtype | None = None) -> None:
        self.rows, self.chunk_bytes = rows, chunk_bytes
        self.coarse = coarse_dtype(rows.device) if coarse is None else coarse
        self._inverse_norms = torch.empty(len(rows), device=rows.device)
        self._copy = torch.empty_like(rows, dtype=torch.bfloat16) if self.coarse == torch.bfloat16 else None
        self._rounding = 0.0
        for first, last in self._pieces():
            self._prepare(first, last)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def nbytes(self) -> int:
        """Bytes kept beside the rows."""
        return self._inverse_norms.nbytes + (0 if self._copy is None else self._copy.nbytes)

    def search(self, queries: Tensor, k: int) -> Neighbours:
        """Return the k nearest rows of queries ``(B, D)``; see :func:`nearest_rows`.

        Raises:
            UserError: as there.
        """
        _require(queries, k, len(self.rows), self.rows.shape[1])
        with torch.no_grad(), torch.autocast(queries.device.type, enabled=False):
            found = [self._search(_unit(part), k) for part in torch.split(queries, _QUERIES) if len(part)]
        if not found:
            return Neighbours(queries.new_empty(0, k, dtype=torch.float32), queries.new_empty(0, k, dtype=torch.int64))
        return Neighbours(*(torch.cat(parts) for parts in zip(*found, strict=True)))

    def _pieces(self) -> Iterator[tuple[int, int]]:
        step = max(1, self.chunk_bytes // (16 * self.rows.shape[1]))
        for first in range(0, len(self.rows), step):
            yield first, min(first + step, len(self.rows))

    def _prepare(self, first: int, last: int) -> None:
        """Take down the norms of some rows and, for a coarse copy, by how much its roundings move a unit row."""
        rows = self.rows[first:last].float()
        factors = inverse_norms(rows)
        sound = factors >= 1 / LARGEST_NORM
        if not sound.all():
            row = first + int((~sound).nonzero()[0])
            raise UserError(f"row {row} of the memory is not finite, or huge: encode it again, or leave it out")
        self._inverse_norms[first:last] = factors
        if self._copy is not None:
            units = rows * factors[:, None]
            self._copy[first:last] = units
            moved = torch.linalg.vector_norm(units.sub_(self._copy[first:last]), dim=1).max()
            self._rounding = max(self._rounding, float(moved))

    # ------------------------------------------------------------------ one block of queries

    def _search(self, units: Tensor, k: int) -> Neighbours:
        rough = units.to(self.coarse)
        bound = self._bound(units, rough)
        best = units.new_empty(len(units), 0, dtype=torch.int64)
        step = max(_GROUP, self.chunk_bytes // (_SCORE_BYTES * len(units) + 4 * units.shape[1]) // _GROUP * _GROUP)
        for first in range(0, len(self.rows), step):
            scores = self._coarse_scores(rough, first, min(first + step, len(self.rows)))
            maxima = _group_maxima(scores)
            cut = _cut(_least(scores, maxima, best, k), bound)
            query, row = _near_enough(scores, maxima, cut, len(self.rows) - first)
            keys = _sort_keys(self._careful_scores(units, query, row + first), row + first)
            best = _merged(best, query, keys, k)
        return Neighbours(_cosines(best), _LOW_32 - (best & _LOW_32))

    def _bound(self, units: Tensor, rough: Tensor) -> float:
        """Return how far a coarse product of two unit vectors can be from the careful one, before it is rounded."""
        bound = (2 * units.shape[1] + 16) * 2.0**-24  # sums of float32, in any order
        if self.coarse == torch.float32:
            return bound + _OPERAND_ROUNDING[torch.get_float32_matmul_precision()]
        moved = float(torch.linalg.vector_norm(units - rough.float(), dim=1).max())
        return bound + moved + self._rounding * (1 + moved)

    def _coarse_scores(self, rough: Tensor, first: int, last: int) -> Tensor:
        """Return coarse cosines ``(B, G * 16)`` of a chunk, at its end minus infinity for rows that are not there."""
        if self._copy is None:
            scores = (rough @ self.rows[first:last].float().T).mul_(self._inverse_norms[first:last])
        else:
            scores = rough @ self._copy[first:last].T
        lacking = -scores.shape[1] % _GROUP
        return pad(scores, (0, lacking), value=-torch.inf) if lacking else scores

    def _careful_scores(self, units: Tensor, query: Tensor, row: Tensor) -> Tensor:
        """Return the cosines float32 ``(P,)`` of pairs, each summed in float64 by itself: equal rows are equal."""
        at_once = _PAIRS if units.device.type == "cpu" else _PAIRS_ON_GPU
        scores = torch.empty(len(row), device=units.device)
        for first in range(0, len(row), at_once):
            pairs = slice(first, first + at_once)
            products = self.rows.index_select(0, row[pairs]) * units.index_select(0, query[pairs])
            scores[pairs] = products.sum(dim=1, dtype=torch.float64) * self._inverse_norms[row[pairs]]
        return scores


class FaissIndex:
    """Approximate search in a graph of faiss (``HNSW32``), on the CPU: fast among millions of rows, and may miss some.

    :func:`recall` says how many. The graph holds the rows as unit vectors in float32.

    Args:
        rows: float16 or float32 ``(N, D)``, as the encoder gives them.

    Raises:
        UserError: faiss is not installed.
    """

    def __init__(self, rows: Tensor) -> None:
        faiss = _faiss()
        self._size, dimension = rows.shape
        self._graph = faiss.index_factory(dimension, "HNSW32", faiss.METRIC_INNER_PRODUCT)
        for part in torch.split(rows, max(1, CHUNK_BYTES // (16 * dimension))):
            self._graph.add(_unit(part).cpu().numpy())

    def __len__(self) -> int:
        return self._size

    def search(self, queries: Tensor, k: int) -> Neighbours:
        """Return k near rows of queries ``(B, D)``; see :func:`nearest_rows`.

        Raises:
            UserError: as there, or the graph finds fewer than k.
        """
        _require(queries, k, self._size, self._graph.d)
        scores, rows = (torch.from_numpy(part) for part in self._graph.search(_unit(queries).cpu().numpy(), k))
        if (rows < 0).any():
            raise UserError(f"faiss finds fewer than k={k} rows of {self._size} for a query. Take index=exact")
        return Neighbours(scores.to(queries.device), rows.to(queries.device))


def coarse_dtype(device: torch.device) -> torch.dtype:
    """Return the type in which a device multiplies fastest: bfloat16 on processors with instructions for it."""
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return torch.bfloat16 if device.type == "cpu" and supported() else torch.float32


def _require(queries: Tensor, k: int, size: int, dimension: int) -> None:
    if not 1 <= k <= size:
        advice = f"ask for {size} or fewer" if size else "give it rows"
        raise UserError(f"k={k} nearest rows of a memory with {size} rows: expected 1 to {size}; {advice}")
    if queries.shape[1] != dimension:
        raise UserError(
            f"queries of length {queries.shape[1]} for a memory of length {dimension}: they come from different "
            "encoders. Encode both with the same"
        )
    if not torch.isfinite(queries).all():
        raise UserError("a query has a number that is not finite: encode it again, or leave it out")


def _unit(vectors: Tensor) -> Tensor:
    """Return vectors ``(B, D)`` of length 1 in float32; each by itself, so that no other changes its rounding."""
    return normalize(vectors.double(), dim=1, eps=NORM_FLOOR).float()


def _least(scores: Tensor, maxima: Tensor, best: Tensor, k: int) -> Tensor:
    """Return a coarse cosine ``(B, 1)`` that at least k rows reach; minus infinity where fewer rows were seen."""
    least = scores.new_full((len(scores), 1), -torch.inf, dtype=torch.float32)
    if best.shape[1] == k:
        least = torch.maximum(least, _cosines(best[:, -1:]))
    if maxima.shape[1] >= k:
        least = torch.maximum(least, maxima.topk(k, dim=1, sorted=False).values.amin(dim=1, keepdim=True))
    elif scores.shape[1] >= k:
        least = torch.maximum(least, scores.float().topk(k, dim=1).values[:, -1:])
    return least


def _cut(least: Tensor, bound: float) -> Tensor:
    """Return what a coarse cosine must reach for its careful one to be among k that reach ``least`` coarsely.

    Both may be off by the bound and, as the coarse one may be stored in bfloat16, by 2^-8 of itself.
    """
    return torch.where(least.isinf(), least, least - 2 * bound - 1.1 * 2.0**-7 * (least.abs() + bound))


def _near_enough(scores: Tensor, maxima: Tensor, cut: Tensor, rows_left: int) -> tuple[Tensor, Tensor]:
    """Return the pairs of query and row of a chunk whose coarse cosine reaches the cut: int64 ``(P,)``, by query."""
    members = scores.view(len(scores), _GROUP, -1)
    query, group = (maxima >= cut).nonzero(as_tuple=True)
    pair, member = (members[query, :, group].float() >= cut[query]).nonzero(as_tuple=True)
    row = member * members.shape[2] + group[pair]
    there = row < rows_left  # the padding reaches a cut of minus infinity
    return query[pair][there], row[there]


def _group_maxima(scores: Tensor) -> Tensor:
    """Return the largest of each group of 16 columns that lie equally far apart: float32 ``(B, G)``."""
    return scores.view(len(scores), _GROUP, -1).amax(dim=1).float()


def _merged(best: Tensor, query: Tensor, keys: Tensor, k: int) -> Tensor:
    """Return the k largest keys of each query, largest first, of those so far ``(B, <= k)`` and new ones ``(P,)``."""
    counts = torch.bincount(query, minlength=len(best))
    place = torch.arange(len(query), device=query.device) - (counts.cumsum(0) - counts)[query]
    fresh = best.new_full((len(best), int(counts.max())), torch.iinfo(torch.int64).min)
    fresh[query, place] = keys
    both = torch.cat([best, fresh], dim=1)
    return both.topk(min(k, both.shape[1]), dim=1).values


def _sort_keys(cosines: Tensor, rows: Tensor) -> Tensor:
    """Pack cosines and rows ``(P,)`` into int64 keys that sort by cosine, then by lowest row.

    The high half is the float's bit pattern, made monotone; the low half counts the row downwards.
    """
    bits = (cosines + 0.0).view(torch.int32)  # adding 0 turns -0 into +0
    monotone = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(torch.int64)
    return (monotone << 32) | (_LOW_32 - rows)


def _cosines(keys: Tensor) -> Tensor:
    monotone = (keys >> 32).to(torch.int32)
    return (monotone ^ ((monotone >> 31) & 0x7FFFFFFF)).view(torch.float32)


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise UserError(
            "index=faiss needs faiss, which is not installed. Type pip install faiss-cpu, or index=exact"
        ) from error
    return faiss
