"""Optimisers for a few parameters learned on features, and their learning rate at every step."""

from __future__ import annotations

import math

from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from mmcl.config.schema import StepSchedule


def learning_rate(position: int, count: int, lr: float, lr_final: float) -> float:
    """Return the rate at step (or epoch) ``position`` of ``count``: a half cosine from ``lr`` towards ``lr_final``."""
    return lr_final + (lr - lr_final) * (1 + math.cos(math.pi * position / count)) / 2


def optimizer_of(
    parameters: list[nn.Parameter], schedule: StepSchedule, steps_per_epoch: int
) -> tuple[Optimizer, LRScheduler]:
    """Build the optimiser over the parameters and its learning rate, to be advanced after every step.

    AdamW has betas 0.9 and 0.999. With ``interval=epoch`` the rate is constant inside an epoch; during the warm-up
    it is ``warmup_lr``.
    """
    if schedule.optimizer == "adamw":
        optimizer: Optimizer = AdamW(parameters, schedule.lr, eps=schedule.eps, weight_decay=schedule.weight_decay)
    else:
        optimizer = SGD(parameters, schedule.lr, momentum=schedule.momentum, weight_decay=schedule.weight_decay)
    by_step = schedule.interval == "step"
    count = max(1, schedule.epochs * (steps_per_epoch if by_step else 1))

    def factor(step: int) -> float:
        if step // steps_per_epoch < schedule.warmup_epochs:
            return schedule.warmup_lr / schedule.lr
        position = step if by_step else step // steps_per_epoch
        return learning_rate(position, count, schedule.lr, schedule.lr_final) / schedule.lr

    return optimizer, LambdaLR(optimizer, factor)
