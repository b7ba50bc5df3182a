"""The rows of a memory nearest to queries by cosine: exact among millions in bounded memory, or through faiss.

The exact search looks twice. A coarse pass, in bfloat16 where the processor multiplies it, finds every row that could
be among the nearest, by a bound on its own rounding; only these are scored carefully, each pair by a sum of its own in
float32 or better. What comes out is what a full sort of careful cosines gives: the same for every chunk size, batch of
queries and number of threads, and with equal cosines in the order of the rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.functional import normalize

from mmcl.errors import UserError, nearest
from mmcl.memory.prototypes import NORM_FLOOR, inverse_norms
from mmcl.memory.ranking import (
    LOWEST_KEY,
    kth_largest,
    largest,
    monotone,
    pair_products,
    places_of_true,
    rank_keys,
    ranked_places,
    ranked_scores,
    stable_order,
)

CHUNK_BYTES = 2**28
INDEXES = ("exact", "faiss")
LARGEST_NORM = 1e18  # of a row, so that no product of two numbers is infinite in float32
_QUERIES = 1024  # searched side by side
_CHUNK_ROWS = 2**16  # at most, so that their numbers are sorted fast
_GROUP = 8  # rows of which the coarse pass looks at the best first
_GROUPS = 4  # of them together, where the k-th best is sought
_ALIGNED = _GROUP * _GROUPS
_SCORE_BYTES = 24  # at most needed for one row and query of a chunk
_PAIR_BYTES = 96  # at most needed for one of them that is scored carefully
_BITS = {torch.bfloat16: torch.int16, torch.float32: torch.int32}
_FLOATS = {bits: floats for floats, bits in _BITS.items()}
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
        self._copy = None
        if self.coarse == torch.bfloat16:
            self._copy = torch.zeros(_aligned(len(rows)), rows.shape[1], dtype=torch.bfloat16, device=rows.device)
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
            found = [self._search(_unit_queries(part), k) for part in torch.split(queries, _QUERIES) if len(part)]
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
        at_once = self.chunk_bytes // 2 // (_SCORE_BYTES * len(units) + 4 * units.shape[1])
        step = min(_CHUNK_ROWS, max(_ALIGNED, at_once // _ALIGNED * _ALIGNED))
        for first in range(0, len(self.rows), step):
            last = min(first + step, len(self.rows))
            bits = self._coarse_bits(rough, first, last)
            for query, row in _near_enough(bits, last - first, best, bound, k, self.chunk_bytes // 2 // _PAIR_BYTES):
                keys = rank_keys(self._careful_scores(units, query, row, first, last), row + first)
                best = _merged(best, query, keys, k)
        return Neighbours(ranked_scores(best), ranked_places(best))

    def _bound(self, units: Tensor, rough: Tensor) -> float:
        """Return how far a coarse product of two unit vectors can be from the careful one, before it is rounded."""
        bound = (2 * units.shape[1] + 16) * 2.0**-24  # sums of float32, in any order
        if self.coarse == torch.float32:
            return bound + _OPERAND_ROUNDING[torch.get_float32_matmul_precision()]
        moved = float(torch.linalg.vector_norm(units - rough.float(), dim=1).max())
        return bound + moved + self._rounding * (1 + moved)

    def _coarse_bits(self, rough: Tensor, first: int, last: int) -> Tensor:
        """Return the bit patterns ``(B, L)`` of a chunk's cosines; L is a multiple of ``_ALIGNED``.

        Those behind the last row are the lowest number.
        """
        size, width = last - first, _aligned(last - first)
        if self._copy is None:
            scores = rough.new_empty(len(rough), width)
            products = rough @ self.rows[first:last].float().T
            torch.mul(products, self._inverse_norms[first:last], out=scores[:, :size])
        else:
            scores = rough @ self._copy[first : first + width].T
        bits = scores.view(_BITS[self.coarse])
        bits[:, size:] = torch.iinfo(bits.dtype).min
        return bits

    def _careful_scores(self, units: Tensor, query: Tensor, row: Tensor, first: int, last: int) -> Tensor:
        """Return the cosines float32 ``(P,)`` of pairs with rows of a chunk, each by itself: equal rows are equal.

        The pairs are taken by row: the queries stay in the processor's cache, the rows do not, and each comes once.
        """
        order = stable_order(row)
        counts = torch.bincount(row, minlength=last - first)
        products = pair_products(self.rows[first:last], counts, units, query[order])
        scores = torch.empty_like(products)
        scores[order] = products
        return scores.mul_(self._inverse_norms[first:last][row])


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
        scores, rows = (torch.from_numpy(part) for part in self._graph.search(_unit_queries(queries).cpu().numpy(), k))
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


def _unit_queries(queries: Tensor) -> Tensor:
    units = _unit(queries)
    if not torch.isfinite(units.sum()):
        raise UserError("a query has a number that is not finite: encode it again, or leave it out")
    return units


def _unit(vectors: Tensor) -> Tensor:
    """Return vectors ``(B, D)`` of length 1 in float32; each by itself, so that no other changes its rounding."""
    return normalize(vectors.double(), dim=1, eps=NORM_FLOOR).float()


def _aligned(size: int) -> int:
    return -(-size // _ALIGNED) * _ALIGNED


def _near_enough(
    bits: Tensor, size: int, best: Tensor, bound: float, k: int, pairs_at_once: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the pairs of query and row of a chunk that may be among the k nearest: int64 ``(P,)``, by query.

    Cosines are compared as bit patterns, which is faster. These have the order of the cosines above 0; where a query
    must look below, all of them are put in order first. ``size`` is the number of rows, ``best`` the keys found so far.
    More than ``pairs_at_once`` come only where many rows are equally near.
    """
    coarse = _FLOATS[bits.dtype]
    maxima = _group_maxima(bits, _GROUP)
    cut = _cut(_least(bits, maxima, best, k), bound).to(coarse)
    if not bool((cut > 0).all()):
        bits = monotone(bits)
        bits[:, size:] = torch.iinfo(bits.dtype).min  # reaches no cut, not even minus infinity
        maxima = _group_maxima(bits, _GROUP)
        cut = _cut(_least(bits, maxima, best, k), bound).to(coarse)
    reach = monotone(cut.view(bits.dtype))
    members = bits.view(len(bits), _GROUP, -1)
    groups_at_once = max(1, pairs_at_once // _GROUP)
    found = (torch.split(places, groups_at_once) for places in places_of_true(maxima >= reach))
    for query, group in zip(*found, strict=True):
        pair, member = places_of_true(members[query, :, group] >= reach[query])
        yield query[pair], member * members.shape[2] + group[pair]


def _least(bits: Tensor, maxima: Tensor, best: Tensor, k: int) -> Tensor:
    """Return a coarse cosine float32 ``(B, 1)`` that k rows reach; minus infinity where fewer rows were seen."""
    least = torch.full((len(bits), 1), -torch.inf, device=bits.device)
    if best.shape[1] == k:
        last = best[:, -1:]
        least = torch.where(last > LOWEST_KEY, ranked_scores(last), least)
    for table in (_group_maxima(maxima, _GROUPS), maxima, bits):
        if table.shape[1] >= k:
            reached = kth_largest(table, k)
            if bool((reached > torch.iinfo(bits.dtype).min).all()):
                return torch.maximum(least, monotone(reached).view(_FLOATS[bits.dtype]).float())
    return least


def _cut(least: Tensor, bound: float) -> Tensor:
    """Return what a coarse cosine must reach for its careful one to be among k that reach ``least`` coarsely.

    Both may be off by the bound and, as the coarse one may be stored in bfloat16, by 2^-8 of itself.
    """
    return torch.where(least.isinf(), least, least - 2 * bound - 1.1 * 2.0**-7 * (least.abs() + bound))


def _group_maxima(bits: Tensor, size: int) -> Tensor:
    """Return the largest of each group of ``size`` columns that lie equally far apart: ``(B, G)``."""
    return bits.view(len(bits), size, -1).amax(dim=1)


def _merged(best: Tensor, query: Tensor, keys: Tensor, k: int) -> Tensor:
    """Return the k largest keys of each query, largest first, of those so far ``(B, <= k)`` and new ones ``(P,)``."""
    counts = torch.bincount(query, minlength=len(best))
    place = torch.arange(len(query), device=query.device) - (counts.cumsum(0) - counts)[query]
    fresh = best.new_full((len(best), int(counts.max())), LOWEST_KEY)
    fresh[query, place] = keys
    both = torch.cat([best, fresh], dim=1)
    return largest(both, min(k, both.shape[1]))


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise UserError(
            "index=faiss needs faiss, which is not installed. Type pip install faiss-cpu, or index=exact"
        ) from error
    return faiss
