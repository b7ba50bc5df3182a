from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmcl.benchmarks.class_order import check_class_order, class_order, positions, task_sizes
from mmcl.errors import UserError


@given(count=st.integers(1, 60), seed=st.integers(0, 5000))
def test_the_order_is_numpys_and_leaves_its_state_alone(count: int, seed: int) -> None:
    np.random.seed(seed)
    expected = np.random.permutation(count).tolist()
    before = np.random.get_state()[1].tolist()
    assert class_order(count, seed) == expected
    assert np.random.get_state()[1].tolist() == before


@given(data=st.data(), count=st.integers(1, 100))
def test_task_sizes_cover_all_classes(data: st.DataObject, count: int) -> None:
    base, increment = data.draw(st.integers(0, count)), data.draw(st.integers(1, count))
    sizes = task_sizes(count, base, increment)
    assert sum(sizes) == count
    assert sizes[0] == (base or increment)
    assert all(size == increment for size in sizes[1:-1])
    assert all(0 < size <= increment for size in sizes[1:])


@pytest.mark.parametrize(
    ("base", "increment", "key"),
    [(0, 0, "increment"), (-1, 2, "base"), (11, 2, "base"), (0, 11, "increment")],
)
def test_impossible_sizes_name_the_key(base: int, increment: int, key: str) -> None:
    with pytest.raises(UserError, match=f"benchmark.{key}="):
        task_sizes(10, base, increment)


@given(order=st.permutations(range(7)), labels=st.lists(st.integers(0, 6)))
def test_positions_invert_the_order(order: list[int], labels: list[int]) -> None:
    mapped = positions(torch.tensor(labels, dtype=torch.int64), order)
    assert [order[position] for position in mapped.tolist()] == labels


@pytest.mark.parametrize("order", [[0, 1], [0, 1, 1], [0, 1, 3], [0, 1, 2, 2]])
def test_a_list_that_is_no_permutation_is_refused(order: list[int]) -> None:
    with pytest.raises(UserError, match="benchmark.class_order"):
        check_class_order(order, 3)
    assert check_class_order([2, 0, 1], 3) == [2, 0, 1]
