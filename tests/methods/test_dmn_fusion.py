"""The grid of fusion weights against one pair after the other, ties included."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mmcl.methods.dmn_fusion import GRID, FusionGrid, fuse, grid_correct


def coarse(seed: int, images: int, classes: int) -> tuple[dict[str, Tensor], Tensor]:
    """Draw probabilities of few values, so that sums tie."""
    generator = torch.Generator().manual_seed(seed)
    names = ("text", "dynamic", "static")
    drawn = {name: torch.randint(3, (images, classes), generator=generator) / 4 for name in names}
    return drawn, torch.randint(classes, (images,), generator=generator)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 40), st.integers(2, 6), st.booleans())
def test_counts_are_those_of_argmax(seed: int, images: int, classes: int, few_shot: bool) -> None:
    drawn, labels = coarse(seed, images, classes)
    static = drawn["static"] if few_shot else None
    counts = grid_correct(drawn["text"], drawn["dynamic"], static, labels, torch.tensor(GRID))
    for row, dynamic in enumerate(GRID):
        for column, weight in enumerate(GRID if few_shot else (0.0,)):
            fused = fuse(drawn, torch.tensor([1.0, dynamic, weight]))
            ranking = fused.sort(dim=1, descending=True, stable=True).indices
            assert counts[row, column] == (ranking[:, 0] == labels).sum()


def test_the_first_of_equally_good_weights_is_named() -> None:
    text = torch.tensor([[0.9, 0.1]])
    grid = FusionGrid(static=True)
    grid.update({"text": text, "dynamic": text, "static": text}, torch.tensor([0]))
    assert grid.best_weights().tolist() == pytest.approx([1.0, 0.001, 0.001])
    assert grid.compute()["accuracy"] == 1.0


def test_without_shots_the_static_weight_is_zero() -> None:
    drawn, labels = coarse(0, 30, 4)
    del drawn["static"]
    grid = FusionGrid(static=False)
    for rows in torch.arange(30).split(7):
        grid.update({name: part[rows] for name, part in drawn.items()}, labels[rows])
    best = grid.compute()
    assert best["weight_static"] == 0.0
    right = fuse(drawn, grid.best_weights()).argmax(dim=1) == labels
    assert best["accuracy"] == right.double().mean()
    assert grid.total == 30


def test_counts_of_processes_add_up() -> None:
    drawn, labels = coarse(1, 40, 3)
    whole, first, second = (FusionGrid(static=True) for _ in range(3))
    whole.update(drawn, labels)
    first.update({name: part[:15] for name, part in drawn.items()}, labels[:15])
    second.update({name: part[15:] for name, part in drawn.items()}, labels[15:])
    assert torch.equal(whole.correct, first.correct + second.correct)
