"""Buffers of a stream: what they keep, in which slot, with what chance, and that their state is all there is."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mmcl.memory import stream_buffer
from mmcl.memory.stream_buffer import (
    NOT_KEPT,
    BalancedBuffer,
    RandomBuffer,
    ReservoirBuffer,
    StreamBuffer,
    is_accepted,
    largest_class,
    random_slots,
    reservoir_slots,
    row_bytes,
)

KINDS = (ReservoirBuffer, RandomBuffer, BalancedBuffer)
sizes = st.lists(st.integers(1, 7), min_size=1, max_size=8)


def numbers(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered(count: int, first: int = 0) -> tuple[Tensor, Tensor]:
    """Return samples that are their own numbers, and labels that follow from them."""
    values = torch.arange(first, first + count)
    return values[:, None].float().expand(-1, 2).clone(), values % 3


def fill(buffer: StreamBuffer, batches: list[int], seed: int = 0) -> int:
    drawn, count = numbers(seed), 0
    for size in batches:
        buffer.store(*numbered(size, count), drawn)
        count += size
    return count


@pytest.mark.parametrize("kind", KINDS)
@given(batches=sizes, capacity=st.integers(1, 9), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=30)
def test_rows_are_different_samples_with_their_labels(
    kind: type[StreamBuffer], batches: list[int], capacity: int, seed: int
) -> None:
    buffer = kind(capacity, 2)
    count = fill(buffer, batches, seed)
    samples, labels = buffer.rows().values()
    kept = samples[:, 0].long()
    assert len(set(kept.tolist())) == buffer.filled <= min(capacity, count)
    assert kept.max() < count
    assert torch.equal(labels, kept % 3)
    assert not buffer.samples[buffer.filled :].any()
    if kind is not BalancedBuffer:
        assert buffer.filled == min(capacity, count)


@given(batches=sizes, capacity=st.integers(1, 9))
@settings(deadline=None, max_examples=30)
def test_a_reservoir_counts_what_came(batches: list[int], capacity: int) -> None:
    buffer = ReservoirBuffer(capacity, 2)
    assert fill(buffer, batches) == buffer.seen


def test_reservoir_slots_are_those_below_the_capacity() -> None:
    assert reservoir_slots(torch.tensor([0, 3, 2, 9]), 3).tolist() == [0, NOT_KEPT, 2, NOT_KEPT]


def test_random_slots_go_to_the_kept_in_order() -> None:
    slots = random_slots(torch.tensor([False, True, True, False]), torch.tensor([5, 1]))
    assert slots.tolist() == [NOT_KEPT, 5, 1, NOT_KEPT]


def test_the_first_sample_after_filling_is_always_kept_by_a_reservoir() -> None:
    for seed in range(20):
        buffer = ReservoirBuffer(3, 2)
        fill(buffer, [1] * 4, seed)
        assert 3 in buffer.samples[:, 0]


def test_a_later_sample_of_a_batch_takes_an_equal_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_buffer, "draw_integers", lambda below, count, numbers: torch.tensor([1, 1, 7]))
    buffer = ReservoirBuffer(3, 2)
    fill(buffer, [3, 3])
    assert buffer.samples[:, 0].tolist() == [0, 4, 2]


def test_a_reservoir_keeps_early_and_late_samples_alike() -> None:
    found: Counter[bool] = Counter()
    for seed in range(60):
        buffer = ReservoirBuffer(10, 2)
        fill(buffer, [1] * 100, seed)
        found.update((buffer.samples[:, 0] < 50).tolist())
    assert 0.42 < found[True] / found.total() < 0.58


def test_random_replacement_forgets_early_samples() -> None:
    buffer = RandomBuffer(10, 2)
    fill(buffer, [1] * 400)
    assert buffer.samples[:, 0].min() > 100


def test_a_batch_with_more_samples_than_slots_is_kept_as_far_as_it_fits() -> None:
    buffer = RandomBuffer(2, 2)
    fill(buffer, [2, 40])
    assert buffer.samples[:, 0].min() >= 2


# ------------------------------------------------------------------ balance


@given(labels=st.lists(st.integers(0, 4), min_size=1, max_size=60), capacity=st.integers(1, 12))
@settings(deadline=None, max_examples=60)
def test_balanced_classes_lie_together_and_none_that_came_is_crowded_out(labels: list[int], capacity: int) -> None:
    buffer = BalancedBuffer(capacity, 2)
    buffer.store(numbered(len(labels))[0], torch.tensor(labels), numbers())
    kept = buffer.rows()["labels"].tolist()
    assert [label for label, following in zip(kept, [*kept[1:], None], strict=True) if label != following] == list(
        buffer.counts()
    )
    if capacity >= len(set(labels)):
        assert set(kept) == set(labels)


def test_balance_after_a_flood_of_one_class() -> None:
    buffer = BalancedBuffer(8, 2)
    labels = torch.tensor([0] * 50 + [1] * 50 + [2] * 50 + [3] * 50)
    buffer.store(numbered(200)[0], labels, numbers())
    assert sum(buffer.counts().values()) == 8
    assert buffer.counts() == {0: 2, 1: 2, 2: 2, 3: 2}


def test_acceptance_looks_at_the_classes_before_the_sample() -> None:
    assert is_accepted({}, 0, 1)
    assert is_accepted({0: 3}, 0, 4)
    assert not is_accepted({0: 2, 1: 1}, 0, 4)
    assert is_accepted({0: 2, 1: 2}, 5, 4)
    assert largest_class({3: 2, 1: 2, 0: 1}) == 3


# ------------------------------------------------------------------ draws and state


def test_draws_are_different_rows_or_all_there_are() -> None:
    buffer = ReservoirBuffer(6, 2)
    assert buffer.draw(3, numbers())[0].shape == (0, 2)
    fill(buffer, [4])
    samples, labels = buffer.draw(3, numbers())
    assert len(set(samples[:, 0].tolist())) == 3
    assert torch.equal(labels, samples[:, 0].long() % 3)
    assert sorted(buffer.draw(9, numbers())[0][:, 0].tolist()) == [0, 1, 2, 3]


@pytest.mark.parametrize("kind", KINDS)
def test_a_loaded_buffer_goes_on_alike(kind: type[StreamBuffer], tmp_path: Path) -> None:
    buffer, other = kind(5, 2), kind(5, 2)
    fill(buffer, [3, 4])
    torch.save(buffer.state_dict(), tmp_path / "state.pt")
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for each in (buffer, other):
        each.store(*numbered(30, 50), numbers(1))
    assert torch.equal(buffer.samples, other.samples)
    assert torch.equal(buffer.labels, other.labels)
    assert buffer.get_extra_state() == other.get_extra_state()


@pytest.mark.parametrize("dimension", [1, 2, 512])
def test_a_row_has_the_bytes_of_its_tensors(dimension: int) -> None:
    buffer = ReservoirBuffer(3, dimension)
    assert sum(tensor.nbytes for tensor in buffer.buffers()) == 3 * row_bytes(dimension)
