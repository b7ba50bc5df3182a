"""Optimisers of the Memory-Modular Learner: what its released code does, and what it says.

The released code calls Adam with learning rate and eps 1e-6 on float16 parameters. There the second moment of a small
gradient underflows to 0, and the root of it plus eps is eps: what remains is momentum with bias correction and a step
of lr / eps. ``ema_sgd`` is that in float32. ``half_official`` is Adam on float16 parameters itself, where elements that
once had a gradient above some 5e-3 are as good as frozen. ``adam`` is Adam in float32, which needs a learning rate of
its own: with 1e-6 it hardly moves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer
from torch.optim.sgd import sgd

from mmcl.config.schema import MEMORY_OPTIMIZERS
from mmcl.errors import UserError, nearest

BETAS = (0.9, 0.999)


class EmaSgd(Optimizer):
    """Gradient descent along the mean of past gradients, corrected for its start from 0.

    With t the number of the step, ``m = momentum m + (1 - momentum) (g + weight_decay p)`` and
    ``p = p - lr m / (1 - momentum^t)``: Adam (Kingma and Ba, ICLR 2015) whose denominator is constant.

    Args:
        params: as for any optimiser.
        lr: length of a step; Adam's lr / eps.
        momentum: decay of the mean, Adam's first beta.
        weight_decay: L2 added to the gradient; 0 is none.
    """

    def __init__(
        self, params: Iterable[nn.Parameter], lr: float, momentum: float = BETAS[0], weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take a step along the gradients; parameters without one stay."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            by_step: dict[int, list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_step.setdefault(self._count(parameter), []).append(parameter)
            for step, parameters in by_step.items():
                self._move(parameters, group["lr"] / (1 - group["momentum"] ** step), group)
        return loss

    def _count(self, parameter: nn.Parameter) -> int:
        """Return the number of the step that a parameter takes now."""
        state = self.state[parameter]
        if not state:
            state.update(step=0, exp_avg=torch.zeros_like(parameter))
        state["step"] += 1
        return int(state["step"])

    def _move(self, parameters: list[nn.Parameter], lr: float, group: dict[str, float]) -> None:
        """Let torch move them in one pass over each: with dampening, its momentum is the mean."""
        means: list[Tensor | None] = [self.state[parameter]["exp_avg"] for parameter in parameters]
        sgd(
            list(parameters),
            [parameter.grad for parameter in parameters if parameter.grad is not None],
            means,
            fused=True,
            weight_decay=group["weight_decay"],
            momentum=group["momentum"],
            lr=lr,
            dampening=group["momentum"],
            nesterov=False,
            maximize=False,
        )


def mml_optimizer(
    name: str, parameters: Iterable[nn.Parameter], lr: float, eps: float, weight_decay: float
) -> Optimizer:
    """Build an optimiser by its name.

    Args:
        name: one of ``mmcl.config.schema.MEMORY_OPTIMIZERS``.
        parameters: float32, with ``half_official`` float16.
        lr: Adam's learning rate, from which ``ema_sgd`` makes its step lr / eps.
        eps: added to the root of Adam's second moment.
        weight_decay: L2 added to the gradient.

    Raises:
        UserError: a name that is not known.
    """
    if name == "ema_sgd":
        return EmaSgd(parameters, lr / eps, weight_decay=weight_decay)
    if name == "adam":
        return Adam(parameters, lr, BETAS, eps, weight_decay, fused=True)
    if name == "half_official":
        # Tensor by tensor, the step is p - (lr / (1 - beta1^t)) * (m / d), which does not underflow.
        return Adam(parameters, lr, BETAS, eps, weight_decay, foreach=False, fused=False)
    known = ", ".join(MEMORY_OPTIMIZERS)
    raise UserError(f"optimizer={name}: expected one of {known}.{nearest(name, MEMORY_OPTIMIZERS)}")
