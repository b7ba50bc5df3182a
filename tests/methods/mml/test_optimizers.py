"""Optimisers by their definitions, and what they keep."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from mmcl.errors import UserError
from mmcl.methods.mml.optimizers import EmaSgd, mml_optimizer
from tests.methods.mml import cases


def gradients(count: int, size: float = 1.0) -> list[Tensor]:
    return list(size * torch.randn(count, 40, generator=cases.draws(4)))


def walk(optimizer: torch.optim.Optimizer, parameter: nn.Parameter, steps: list[Tensor]) -> None:
    for gradient in steps:
        parameter.grad = gradient.to(parameter.dtype)
        optimizer.step()


def test_ema_sgd_is_its_definition() -> None:
    parameter = nn.Parameter(torch.randn(40, generator=cases.draws(0)))
    expected, mean = parameter.detach().double(), torch.zeros(40, dtype=torch.float64)
    walk(EmaSgd([parameter], lr=0.5, momentum=0.8, weight_decay=0.1), parameter, gradients(5))
    for step, gradient in enumerate(gradients(5), start=1):
        mean = 0.8 * mean + 0.2 * (gradient + 0.1 * expected)
        expected = expected - 0.5 * mean / (1 - 0.8**step)
    assert cases.apart(parameter.detach(), expected) < 1e-6


def test_ema_sgd_goes_on_from_its_state() -> None:
    undisturbed, resumed = (nn.Parameter(torch.ones(40)) for _ in range(2))
    walk(EmaSgd([undisturbed], 0.5), undisturbed, gradients(6))
    first = EmaSgd([resumed], 0.5)
    walk(first, resumed, gradients(6)[:3])
    second = EmaSgd([resumed], 0.5)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    walk(second, resumed, gradients(6)[3:])
    assert torch.equal(undisturbed, resumed)


def test_ema_sgd_leaves_parameters_without_gradient_and_counts_their_steps_apart() -> None:
    late, early = nn.Parameter(torch.ones(40)), nn.Parameter(torch.ones(40))
    optimizer = EmaSgd([late, early], 1.0)
    first, second = gradients(2)
    early.grad = first
    optimizer.step()
    assert torch.equal(late, torch.ones(40))
    late.grad = second
    optimizer.step()
    assert cases.apart(late.detach(), 1 - second) < 1e-6


def test_half_adam_with_gradients_that_underflow_is_ema_sgd() -> None:
    half, single, adam = (nn.Parameter(torch.zeros(40, dtype=kind)) for kind in (torch.half, torch.float, torch.float))
    for name, parameter in (("half_official", half), ("ema_sgd", single), ("adam", adam)):
        walk(mml_optimizer(name, [parameter], 1e-6, 1e-6, 0.0), parameter, gradients(8, 1e-3))
    moved = single.detach().norm()
    assert (half.detach().float() - single.detach()).norm() < 0.05 * moved
    assert (adam - single).detach().norm() > 0.9 * moved


def test_half_adam_freezes_what_once_had_a_large_gradient() -> None:
    parameter = nn.Parameter(torch.zeros(40, dtype=torch.half))
    large = torch.zeros(40)
    large[0] = 0.5
    steps = [large + 1e-3] * 6
    walk(mml_optimizer("half_official", [parameter], 1e-6, 1e-6, 0.0), parameter, steps)
    assert float(parameter.detach()[0].abs()) < 1e-5
    assert float(parameter.detach()[1].abs()) > 1e-3


def test_a_misspelt_name_is_refused() -> None:
    with pytest.raises(UserError, match=r"optimizer=ema_sdg: expected .*Did you mean 'ema_sgd'"):
        mml_optimizer("ema_sdg", [nn.Parameter(torch.ones(1))], 1e-6, 1e-6, 0.0)
