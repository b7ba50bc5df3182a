from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcl.memory import cosine_topk as module
from mmcl.memory.cosine_topk import cosine_topk, stable_topk


def by_full_sort(queries: torch.Tensor, rows: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Each cosine by its own sum, sorted whole."""
    unit = [torch.nn.functional.normalize(part.double(), dim=1) for part in (queries, rows)]
    cosines = (unit[0][:, None, :] * unit[1]).sum(2).float()
    order = cosines.sort(dim=1, descending=True, stable=True).indices[:, :k]
    return cosines.gather(1, order), order


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(1, 4),
    st.integers(1, 40),
    st.integers(1, 12),
    st.sampled_from([4, 16, 2**22]),
)
def test_equals_a_full_sort_even_with_equal_and_zero_rows(
    seed: int, queries: int, rows: int, k: int, chunk_scores: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    distinct = torch.randn(1 + rows // 3, 7, generator=generator)
    distinct[0] = 0
    memory = distinct[torch.randint(0, len(distinct), (rows,), generator=generator)]
    asked = torch.randn(queries, 7, generator=generator)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK_SCORES", chunk_scores)
        scores, indices = cosine_topk(asked, memory, k)
    expected_scores, expected_indices = by_full_sort(asked, memory, k)
    assert indices.tolist() == expected_indices.tolist()
    assert torch.allclose(scores, expected_scores, atol=1e-7)


def test_scores_are_cosines() -> None:
    scores, indices = cosine_topk(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 5.0], [-1.0, 0.0], [3.0, 0.0]]), 9)
    assert indices.tolist() == [[2, 0, 1]]
    assert scores.tolist() == [[1.0, 0.0, -1.0]]


def test_no_rows_give_no_neighbours() -> None:
    scores, indices = cosine_topk(torch.ones(2, 3), torch.ones(0, 3), 4)
    assert scores.shape == indices.shape == (2, 0)


def test_stable_topk_puts_the_lowest_column_first() -> None:
    scores = torch.tensor([[1.0, 3.0, 3.0, 2.0, 3.0]])
    assert stable_topk(scores, 4).tolist() == [[1, 2, 4, 3]]
    assert stable_topk(scores, 9).shape == (1, 5)
