"""Adam for parameters of which few rows have a gradient, such as the units of a Memory Head.

Kingma and Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015. ``torch.optim.Adam`` moves all rows at every
step, as the momentum of earlier gradients goes on; ``SparseAdam`` moves only those with a gradient, which is another
rule. Here all rows move as under Adam for as long as they can move: a row that never had a gradient stays where it is,
and one whose momentum has died away is left alone until its next gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.optimizer import Optimizer

FORGONE = 2.0**-24  # of the learning rate, in all that a resting row would still have moved
SMALL = 4096  # up to so many numbers, plain operations are quicker than torch's one pass with what it has to prepare


def steps_until_rest(beta1: float, beta2: float) -> float:
    """Return after how many steps without a gradient a row has less than ``FORGONE * lr`` to go in all.

    With r = beta1 / sqrt(beta2), the step s after the last gradient is at most c r^s lr / (1 - beta1), where c =
    (1 - beta1) / sqrt((1 - beta2) (1 - r^2)) bounds |m| / sqrt(v) by the inequality of Cauchy and Schwarz, and
    1 / (1 - beta1) the correction of its bias. Infinite if r is not below 1.
    """
    ratio = beta1 / math.sqrt(beta2)
    if ratio >= 1:
        return math.inf
    if ratio == 0:
        return 0
    bound = 1 / math.sqrt((1 - beta2) * (1 - ratio**2)) * ratio / (1 - ratio)
    return max(0, math.ceil(math.log(FORGONE / bound) / math.log(ratio)))


class RowAdam(Optimizer):
    """``torch.optim.Adam`` within the rounding of float32, in time that grows with the rows that move.

    Rows are those of the last dimension. Parameters whose gradient is sparse (in all dimensions but the last) are
    updated row by row; others as a whole. With ``weight_decay``, all rows move at every step.

    Args:
        params: as for any optimiser.
        lr: learning rate.
        betas: decay of the first and second moments.
        eps: added to the root of the second moment.
        weight_decay: L2 added to the gradient; 0 is none.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take a step along the gradients; parameters without one stay."""
        loss = None if closure is None else closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    _move(parameter.data, parameter.grad, self.state[parameter], group)
        return loss


def _move(parameter: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
    """Move one parameter; its state is made at the first time."""
    if not state:
        moments = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
        # Rows that move and rows at rest, each with the step of its last gradient; other rows never had one. ``whole``
        # is the step of the last gradient of all rows, if none of a few followed.
        state.update(step=0, **moments, moving={}, resting={}, whole=0)
    state["step"] += 1
    if gradient.is_sparse:
        _move_rows(parameter, gradient.coalesce(), state, group)
        return
    _wake(list(state["resting"]), state, group)
    state["moving"], state["whole"] = {}, state["step"]
    first, second = state["exp_avg"], state["exp_avg_sq"]
    if parameter.numel() <= SMALL:
        _adam_by_hand(parameter, gradient, first, second, state["step"], group)
    else:
        _adam([parameter], [gradient], [first], [second], state["step"], group)


def _move_rows(parameter: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
    """Move the rows that can move; the gradient is of some of them."""
    size = parameter.shape[-1]
    count = parameter.numel() // size
    if state["whole"]:
        state["moving"], state["whole"] = dict.fromkeys(range(count), state["whole"]), 0
    strides = torch.tensor([math.prod(parameter.shape[at + 1 : -1]) for at in range(parameter.ndim - 1)])
    rows = (gradient.indices().cpu() * strides[:, None]).sum(dim=0).tolist()
    _wake(range(count) if group["weight_decay"] else rows, state, group)
    _rest(state, group)
    of_row = dict(zip(rows, gradient.values().unbind(), strict=True))
    nothing = gradient.values().new_zeros(size)
    gradients = [of_row.get(row, nothing) for row in state["moving"]]
    tables = (tensor.view(count, size) for tensor in (parameter, state["exp_avg"], state["exp_avg_sq"]))
    moved, first, second = ([table[row] for row in state["moving"]] for table in tables)
    _adam(moved, gradients, first, second, state["step"], group)


def _wake(rows: Iterable[int], state: dict[str, Any], group: dict[str, Any]) -> None:
    """Note that rows have a gradient in this step; moments of those at rest decay as if they had moved."""
    limit = steps_until_rest(*group["betas"])
    for row in rows:
        last = state["resting"].pop(row, None)
        if last is not None:
            missed = state["step"] - 1 - (last + limit)
            for name, beta in zip(("exp_avg", "exp_avg_sq"), group["betas"], strict=True):
                state[name].view(-1, state[name].shape[-1])[row].mul_(beta**missed)
        state["moving"][row] = state["step"]


def _rest(state: dict[str, Any], group: dict[str, Any]) -> None:
    """Lay rows to rest whose last gradient is too long ago."""
    limit = state["step"] - steps_until_rest(*group["betas"])
    for row in [row for row, last in state["moving"].items() if last < limit]:
        state["resting"][row] = state["moving"].pop(row)


def _adam(
    parameters: list[Tensor],
    gradients: list[Tensor],
    first: list[Tensor],
    second: list[Tensor],
    step: int,
    group: dict[str, Any],
) -> None:
    """Let torch compute step number ``step`` of these tensors, in one pass over each."""
    steps = list(torch.full((len(parameters),), step - 1.0).unbind())
    adam(
        parameters,
        gradients,
        first,
        second,
        [],
        steps,
        fused=True,
        amsgrad=False,
        beta1=group["betas"][0],
        beta2=group["betas"][1],
        lr=group["lr"],
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        maximize=False,
    )


def _adam_by_hand(
    parameter: Tensor, gradient: Tensor, first: Tensor, second: Tensor, step: int, group: dict[str, Any]
) -> None:
    """Compute step number ``step`` of one tensor."""
    beta1, beta2 = group["betas"]
    if group["weight_decay"]:
        gradient = gradient.add(parameter, alpha=group["weight_decay"])
    first.lerp_(gradient, 1 - beta1)
    second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    root = (second.sqrt() / math.sqrt(1 - beta2**step)).add_(group["eps"])
    parameter.addcdiv_(first, root, value=-group["lr"] / (1 - beta1**step))
