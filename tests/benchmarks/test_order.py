from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmcl.benchmarks.order import Step, StepOrder

DRAW = (1993, 0, "main")


def steps_of(count: int, batch_size: int, world: int, epoch: int = 0) -> list[tuple[Step, ...]]:
    """Return, for each step, what every process gets."""
    orders = [StepOrder(count, batch_size, DRAW, rank, world) for rank in range(world)]
    for order in orders:
        order.set_epoch(epoch)
    assert {len(list(order)) for order in orders} == {len(orders[0])}
    return list(zip(*orders, strict=True))


def real_rows(part: tuple[Step, ...]) -> list[int]:
    return [row for step in part if step.share for row in step.rows.tolist()]


@given(count=st.integers(1, 70), batch_size=st.integers(1, 16), epoch=st.integers(0, 3))
def test_processes_see_the_same_global_batches(count: int, batch_size: int, epoch: int) -> None:
    single = [set(step.rows.tolist()) for (step,) in steps_of(count, batch_size, 1, epoch)]
    for world in (2, 3):
        parts = steps_of(count, batch_size, world, epoch)
        assert single == [set(real_rows(part)) for part in parts]


@given(count=st.integers(1, 70), batch_size=st.integers(1, 16), world=st.integers(1, 3))
def test_every_sample_once_an_epoch(count: int, batch_size: int, world: int) -> None:
    parts = steps_of(count, batch_size, world)
    rows = [row for part in parts for row in real_rows(part)]
    assert sorted(rows) == list(range(count))
    assert len(parts) == -(-count // batch_size)


@given(count=st.integers(1, 70), batch_size=st.integers(1, 16), world=st.integers(1, 3))
def test_shares_turn_the_mean_of_means_into_the_global_mean(count: int, batch_size: int, world: int) -> None:
    for part in steps_of(count, batch_size, world):
        assert sum(step.share for step in part) / world == pytest.approx(1)
        rows = real_rows(part)
        mean_of_means = sum(step.share * step.rows.double().mean().item() for step in part) / world
        assert mean_of_means == pytest.approx(sum(rows) / len(rows))


def test_a_process_without_a_row_repeats_one_with_share_zero() -> None:
    first, second = steps_of(5, 4, 2)[-1]
    assert (first.share, second.share) == (2.0, 0.0)
    assert second.rows.tolist() == first.rows.tolist()


def test_epochs_and_draws_differ_and_repeat() -> None:
    orders = [rows_of(task, epoch) for task in (0, 1) for epoch in (0, 1)]
    assert len({str(rows) for rows in orders}) == 4
    assert orders == [rows_of(task, epoch) for task in (0, 1) for epoch in (0, 1)]


def rows_of(task: int, epoch: int) -> list[list[int]]:
    order = StepOrder(40, 8, (1993, task, "main"))
    order.set_epoch(epoch)
    return [step.rows.tolist() for step in order]
