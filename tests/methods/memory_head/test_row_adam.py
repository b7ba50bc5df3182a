"""RowAdam against ``torch.optim.Adam``."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from mmcl.methods.memory_head.row_adam import RowAdam, steps_until_rest

ROWS, SIZE = 8, 6


def pair(shape: tuple[int, ...] = (2, ROWS // 2, SIZE)) -> tuple[nn.Parameter, nn.Parameter]:
    torch.manual_seed(0)
    values = 0.1 * torch.randn(shape)
    return nn.Parameter(values.clone()), nn.Parameter(values.clone())


def give(parameters: tuple[nn.Parameter, nn.Parameter], rows: list[int], step: int) -> None:
    """Give both parameters the gradient of some rows: the first a dense one, the second a sparse one."""
    dense, sparse = parameters
    values = torch.randn(len(rows), SIZE, generator=torch.Generator().manual_seed(step)) * 10.0 ** (step % 5 - 3)
    places = torch.tensor([[row // 4 for row in rows], [row % 4 for row in rows]])
    sparse.grad = torch.sparse_coo_tensor(places, values, sparse.shape, check_invariants=True)
    dense.grad = sparse.grad.to_dense()


def rows_of(step: int) -> list[int]:
    """One row for 150 steps, then the next; now and then another, and row 7 never."""
    return [step // 150 % 4] + ([5] if step % 40 == 0 else [])


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.5, 0.99)])
def test_rows_go_where_adam_takes_them(betas: tuple[float, float]) -> None:
    parameters = pair()
    start = parameters[0].detach().clone()
    theirs = torch.optim.Adam([parameters[0]], lr=1e-2, betas=betas)
    ours = RowAdam([parameters[1]], lr=1e-2, betas=betas)
    rested = set()
    for step in range(1300):
        give(parameters, rows_of(step), step)
        theirs.step()
        ours.step()
        rested |= set(ours.state[parameters[1]]["resting"])
    torch.testing.assert_close(parameters[1], parameters[0], rtol=3e-6, atol=3e-6)
    assert rested == {0, 1, 2, 3} or rested == {0, 1, 2, 3, 5}, "some rows rested, and came back"
    assert parameters[1][1, 3].equal(start[1, 3]), "a row without gradients never moves"
    assert (parameters[0] - start).abs().max() > 0.1


def test_with_weight_decay_all_rows_move() -> None:
    parameters = pair()
    theirs = torch.optim.Adam([parameters[0]], lr=1e-2, weight_decay=1e-3, fused=True)
    ours = RowAdam([parameters[1]], lr=1e-2, weight_decay=1e-3)
    for step in range(400):
        give(parameters, rows_of(step), step)
        theirs.step()
        ours.step()
    torch.testing.assert_close(parameters[1], parameters[0], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("size", [3, 5000])
@pytest.mark.parametrize("weight_decay", [0.0, 1e-2])
def test_dense_gradients_move_the_whole(size: int, weight_decay: float) -> None:
    parameters = pair((size,))
    theirs = torch.optim.Adam([parameters[0]], lr=1e-2, weight_decay=weight_decay)
    ours = RowAdam([parameters[1]], lr=1e-2, weight_decay=weight_decay)
    for step in range(50):
        gradient = torch.randn(size, generator=torch.Generator().manual_seed(step))
        for parameter in parameters:
            parameter.grad = gradient.clone()
        theirs.step()
        ours.step()
    torch.testing.assert_close(parameters[1], parameters[0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dense", [range(0, 20), range(580, 600), range(300, 320)])
def test_dense_and_sparse_gradients_may_take_turns(dense: range) -> None:
    parameters = pair()
    theirs, ours = torch.optim.Adam([parameters[0]], lr=1e-2), RowAdam([parameters[1]], lr=1e-2)
    for step in range(600):
        give(parameters, list(range(ROWS)) if step in dense else [step // 290 % 2], step)
        if step in dense:
            parameters[1].grad = parameters[0].grad
        theirs.step()
        ours.step()
    torch.testing.assert_close(parameters[1], parameters[0], rtol=3e-6, atol=3e-6)


def test_a_saved_state_goes_on_alike() -> None:
    parameters = pair()
    ours = RowAdam([parameters[1]], lr=1e-2)
    for step in range(400):
        give(parameters, rows_of(step), step)
        ours.step()
    again = nn.Parameter(parameters[1].detach().clone())
    resumed = RowAdam([again], lr=1e-2)
    resumed.load_state_dict(copy.deepcopy(ours.state_dict()))
    for step in range(400, 700):
        give((parameters[0], again), rows_of(step), step)
        resumed.step()
        give(parameters, rows_of(step), step)
        ours.step()
    assert again.equal(parameters[1])


@pytest.mark.parametrize(("betas", "known"), [((0.9, 0.999), 221), ((0.0, 0.99), 0), ((0.999, 0.9), float("inf"))])
def test_rest_begins_when_little_is_left(betas: tuple[float, float], known: float) -> None:
    assert steps_until_rest(*betas) == known


def test_what_a_resting_row_forgoes() -> None:
    """The worst gradients for the bound: those that make |m| / sqrt(v) largest."""
    beta1, beta2, limit = 0.9, 0.999, int(steps_until_rest(0.9, 0.999))
    parameter = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    adam = torch.optim.Adam([parameter], lr=1.0, betas=(beta1, beta2), eps=0.0)
    places: list[Tensor] = []
    for step in range(2000 + limit):
        gradient = (beta1 / beta2) ** (1999 - step) if step < 2000 else 0.0
        parameter.grad = torch.full((1,), gradient, dtype=torch.float64)
        adam.step()
        places.append(parameter.detach().clone())
    before = places[-1]
    for _ in range(500):
        adam.step()
    assert 0 < (parameter - before).abs().item() < 2.0**-24
