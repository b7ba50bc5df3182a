from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from mmcl.errors import UserError
from mmcl.memory.quota import MemoryConfig, Quota

DEFAULT = Path(__file__).parents[2] / "conf" / "memory" / "default.yaml"


def config(**changes: Any) -> MemoryConfig:
    node = OmegaConf.merge(OmegaConf.structured(MemoryConfig), OmegaConf.load(DEFAULT), changes)
    return OmegaConf.to_object(node)  # type: ignore[return-value]


def test_the_default_file_gives_every_key_and_2000_samples() -> None:
    assert Quota(config(), 3072, own_parameters=0).total == 2000


@given(st.integers(1, 10**5), st.integers(1, 1000))
def test_a_total_is_never_exceeded_nor_left_unused_by_a_class_more(size: int, seen: int) -> None:
    quota = Quota(config(size=size), 3072, own_parameters=10**6)
    if size < seen:
        with pytest.raises(UserError, match="leave none for each of"):
            quota.per_class(seen)
    else:
        assert quota.per_class(seen) * seen <= size < (quota.per_class(seen) + 1) * seen


@given(st.integers(1, 10**5), st.integers(1, 1000))
def test_rounded_up_a_total_is_used_up_by_less_than_one_more_for_each_class(size: int, seen: int) -> None:
    quota = Quota(config(size=size), 3072, own_parameters=10**6)
    if size < seen:
        with pytest.raises(UserError, match="leave none for each of"):
            quota.per_class(seen, round_up=True)
    else:
        assert size <= quota.per_class(seen, round_up=True) * seen < size + seen


@given(st.integers(1, 10**9), st.integers(0, 10**7), st.integers(1, 10**6), st.booleans())
def test_bytes_are_never_exceeded(budget: int, parameters: int, image_bytes: int, count_model: bool) -> None:
    memory = config(size=None, bytes=budget, count_model=count_model)
    model_bytes = 4 * parameters if count_model else 0
    if budget < model_bytes + image_bytes:
        with pytest.raises(UserError, match=f"memory.bytes={model_bytes + image_bytes} or more"):
            Quota(memory, image_bytes, parameters)
    else:
        total = Quota(memory, image_bytes, parameters).total
        assert total is not None
        assert model_bytes + total * image_bytes <= budget < model_bytes + (total + 1) * image_bytes


def test_a_number_per_class_does_not_shrink() -> None:
    quota = Quota(config(size=None, per_class=20), 3072, own_parameters=0)
    assert [quota.per_class(seen) for seen in (1, 10, 10_000)] == [20, 20, 20]
    assert quota.per_class(10_000, round_up=True) == 20
    assert quota.total is None


def test_aligned_to_der_memo_keeps_3312_on_cifar() -> None:
    quota = Quota(config(align_to="der"), 3072, own_parameters=3_626_896, budget_parameters=4_635_040)
    assert quota.total == 3312
    assert quota.per_class(100) == 33


def test_a_budget_without_align_to_is_left_aside() -> None:
    assert Quota(config(), 3072, own_parameters=1, budget_parameters=10**9).total == 2000


def test_aligning_to_a_smaller_method_may_leave_nothing() -> None:
    with pytest.raises(UserError, match=r"memory.size=2000 plus \(0 - 9,000,000\) parameters .* make -9,719"):
        Quota(config(align_to="replay"), 3072, own_parameters=9_000_000, budget_parameters=0)


def test_align_to_needs_the_other_methods_parameters() -> None:
    with pytest.raises(ValueError, match="budget_parameters"):
        Quota(config(align_to="der"), 3072, own_parameters=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": None}, "found none of them"),
        ({"per_class": 20}, "found memory.size=2000 and memory.per_class=20"),
        ({"size": 0}, "memory.size=0: expected a positive number"),
        ({"size": None, "per_class": -1}, "memory.per_class=-1: expected a positive number"),
        ({"size": None, "bytes": 10**6, "align_to": "der"}, "memory.align_to=der starts from memory.size"),
    ],
)
def test_contradictory_budgets_name_their_keys(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Quota(config(**changes), 3072, own_parameters=0)
