"""Frozen parts of a network: no gradient, normalisation in eval mode, not in the optimiser.

A module is frozen when it has parameters and none of them asks for a gradient. There is no second flag that
could disagree: whoever overrides ``train()`` calls :func:`restore_frozen_modes` after it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from torch import nn

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def freeze(module: ModuleT) -> ModuleT:
    """Take a module out of training; its running statistics stay as they are. Returns the module."""
    module.requires_grad_(False)
    module.zero_grad(set_to_none=True)
    return module.eval()


def unfreeze(module: ModuleT) -> ModuleT:
    """Let a module train again; its normalisation follows the next ``train()`` call. Returns it."""
    return module.requires_grad_(True)


def is_frozen(module: nn.Module) -> bool:
    """Whether a module has parameters and none asks for a gradient."""
    wants_gradient = [parameter.requires_grad for parameter in module.parameters()]
    return bool(wants_gradient) and not any(wants_gradient)


def restore_frozen_modes(root: nn.Module) -> None:
    """Put every frozen part at and below ``root`` back into eval mode, after ``train()`` took it out."""
    if is_frozen(root):
        # Not root.eval(): it may be what called us.
        for module in root.modules():
            module.training = False
        return
    for child in root.children():
        restore_frozen_modes(child)


def trainable_parameters(root: nn.Module) -> Iterator[nn.Parameter]:
    """Yield the parameters that an optimiser may hold, in the order of the module."""
    return (parameter for parameter in root.parameters() if parameter.requires_grad)
