from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mmcl.errors import UserError
from mmcl.memory import search
from mmcl.memory.prototypes import inverse_norms
from mmcl.memory.ranking import pair_products
from mmcl.memory.search import ExactIndex, Neighbours, make_index, nearest_rows, recall


def case(seed: int, queries: int, rows: int, dimension: int) -> tuple[Tensor, Tensor]:
    """Queries, and rows of which many are equal and some zero."""
    generator = torch.Generator().manual_seed(seed)
    distinct = torch.randn(1 + rows // 3, dimension, generator=generator)
    distinct[0] = 0
    memory = distinct[torch.randint(0, len(distinct), (rows,), generator=generator)]
    return 5 * torch.randn(queries, dimension, generator=generator), memory


def by_full_sort(queries: Tensor, rows: Tensor, k: int) -> Neighbours:
    """Each careful cosine, sorted whole."""
    units = torch.nn.functional.normalize(queries.double(), dim=1).float()
    counts, partners = torch.full((len(queries),), len(rows)), torch.arange(len(rows)).repeat(len(queries))
    products = pair_products(units, counts, rows, partners).view(len(queries), -1)
    cosines = products * inverse_norms(rows.float())
    order = cosines.sort(dim=1, descending=True, stable=True).indices[:, :k]
    return Neighbours(cosines.gather(1, order), order)


def true_cosines(queries: Tensor, rows: Tensor) -> Tensor:
    return torch.nn.functional.cosine_similarity(queries.double()[:, None], rows.double(), dim=2)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(1, 4),
    st.integers(1, 150),
    st.integers(1, 12),
    st.sampled_from([1, 20_000, 2**28]),
    st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_equals_a_full_sort_even_with_equal_and_zero_rows(
    seed: int, queries: int, rows: int, k: int, chunk_bytes: int, coarse: torch.dtype
) -> None:
    k = min(k, rows)
    asked, memory = case(seed, queries, rows, 7)
    found = ExactIndex(memory, chunk_bytes, coarse).search(asked, k)
    expected = by_full_sort(asked, memory, k)
    assert found.rows.tolist() == expected.rows.tolist()
    assert torch.equal(found.scores, expected.scores)
    assert torch.allclose(found.scores.double(), true_cosines(asked, memory).gather(1, found.rows), atol=1e-6)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([20_000, 300_000]), st.sampled_from([1, 3]))
def test_chunks_batches_threads_and_coarse_types_change_no_bit(seed: int, chunk_bytes: int, threads: int) -> None:
    asked, memory = case(seed, 9, 900, 48)
    memory = memory.half()
    whole = ExactIndex(memory, coarse=torch.float32).search(asked, 20)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        index = ExactIndex(memory, chunk_bytes, torch.bfloat16)
        parts = [index.search(part, 20) for part in (asked[:1], asked[1:])]
    finally:
        torch.set_num_threads(before)
    assert torch.equal(torch.cat([part.rows for part in parts]), whole.rows)
    assert torch.equal(torch.cat([part.scores for part in parts]), whole.scores)


@pytest.mark.parametrize("coarse", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("chunk_bytes", [200_000, 2**28])
def test_what_lies_behind_a_query_is_ranked_as_well(coarse: torch.dtype, chunk_bytes: int) -> None:
    """No row, or fewer than k, have a cosine above 0."""
    generator = torch.Generator().manual_seed(1)
    memory = torch.randn(1500, 16, generator=generator).abs()
    asked = -torch.randn(6, 16, generator=generator).abs()
    memory[700:703] *= -1
    found = ExactIndex(memory, chunk_bytes, coarse).search(asked, 8)
    assert torch.equal(found.rows, by_full_sort(asked, memory, 8).rows)
    assert (found.scores[:, 3:] < 0).all()
    assert found.rows[:, :3].sort(dim=1).values.tolist() == [[700, 701, 702]] * 6


@pytest.mark.parametrize("coarse", [torch.float32, torch.bfloat16])
def test_more_neighbours_than_a_chunk_has_rows(coarse: torch.dtype) -> None:
    asked, memory = case(5, 40, 300, 16)
    index = ExactIndex(memory, 20_000, coarse)  # chunks of 32 rows, whose pairs come in several parts
    assert torch.equal(index.search(asked, 100).rows, by_full_sort(asked, memory, 100).rows)


def test_near_rows_are_told_apart_by_less_than_the_coarse_type_can() -> None:
    generator = torch.Generator().manual_seed(3)
    direction = torch.randn(1, 64, generator=generator)
    memory = direction + 0.02 * torch.randn(300, 64, generator=generator)
    expected = by_full_sort(direction, memory, 10)
    assert nearest_rows(direction, memory, 10).rows.tolist() == expected.rows.tolist()


def test_products_of_lower_precision_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, memory = case(5, 4, 300, 32)
    index = ExactIndex(memory, coarse=torch.float32)
    whole = index.search(asked, 7)
    rounded = torch.Tensor.__matmul__
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "medium")
    lossy = lambda left, right: rounded(left.bfloat16().float(), right.bfloat16().float())  # noqa: E731
    monkeypatch.setattr(torch.Tensor, "__matmul__", lossy)
    found = index.search(asked, 7)
    assert torch.equal(found.rows, whole.rows)
    assert torch.equal(found.scores, whole.scores)


def test_scores_are_cosines() -> None:
    found = nearest_rows(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 5.0], [-1.0, 0.0], [3.0, 0.0]]), 3)
    assert found.rows.tolist() == [[2, 0, 1]]
    assert found.scores.tolist() == [[1.0, 0.0, -1.0]]


def test_no_queries_have_no_neighbours() -> None:
    assert nearest_rows(torch.ones(0, 3), torch.ones(4, 3), 2).rows.shape == (0, 2)


@pytest.mark.parametrize("k", [0, 5])
def test_more_neighbours_than_rows_are_refused(k: int) -> None:
    with pytest.raises(UserError, match=f"k={k} nearest rows of a memory with 4 rows: expected 1 to 4"):
        nearest_rows(torch.ones(1, 3), torch.ones(4, 3), k)


def test_bad_rows_and_queries_are_refused() -> None:
    with pytest.raises(UserError, match="row 1 of the memory is not finite"):
        ExactIndex(torch.tensor([[1.0], [torch.inf]]))
    with pytest.raises(UserError, match="a query has a number"):
        nearest_rows(torch.tensor([[torch.nan]]), torch.ones(2, 1), 1)
    with pytest.raises(UserError, match="different encoders"):
        nearest_rows(torch.ones(1, 3), torch.ones(4, 2), 1)


def test_an_unknown_index_is_refused_and_so_is_faiss_without_faiss(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="expected one of exact, faiss. Did you mean 'exact'"):
        make_index("exakt", torch.ones(2, 2))
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(UserError, match="pip install faiss-cpu, or index=exact"):
        nearest_rows(torch.ones(1, 2), torch.ones(2, 2), 1, "faiss")


class FakeGraph:
    """Stands in for faiss: knows the rows added to it, finds the odd ones."""

    def __init__(self, dimension: int) -> None:
        self.d, self.rows = dimension, np.empty((0, dimension), np.float32)

    def add(self, rows: np.ndarray[Any, Any]) -> None:
        assert np.allclose(np.linalg.norm(rows, axis=1), 1)
        self.rows = np.concatenate([self.rows, rows])

    def search(self, queries: np.ndarray[Any, Any], k: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        scores = queries @ self.rows.T
        scores[:, ::2] = -2
        order = np.argsort(-scores, axis=1)[:, :k]
        found = np.take_along_axis(scores, order, axis=1)
        return found, np.where(found < -1.5, -1, order)


def test_recall_of_a_graph_that_misses_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = SimpleNamespace(METRIC_INNER_PRODUCT=0, index_factory=lambda dimension, *_: FakeGraph(dimension))
    monkeypatch.setattr(search, "_faiss", lambda: fake)
    memory = torch.eye(6) + 0.1
    exact, graph = make_index("exact", memory), make_index("faiss", 3 * memory)
    assert len(graph) == len(exact) == 6
    assert recall(exact, exact, memory, 1) == 1.0
    assert recall(graph, exact, memory, 1) == 0.5
    assert torch.allclose(graph.search(memory[1:2], 1).scores, torch.ones(1, 1))
    with pytest.raises(UserError, match="fewer than k=4 rows of 6"):
        graph.search(memory, 4)
