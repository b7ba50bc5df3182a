"""Weight transfer: convolutions whose weights stay and are scaled and shifted.

Sun et al., "Meta-Transfer Learning for Few-Shot Learning", CVPR 2019, section 4.2; used by Mnemonics and AANets.
"""

from __future__ import annotations

import copy
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from mmcl.backbones.freezing import freeze

ModuleT = TypeVar("ModuleT", bound=nn.Module)
ConvolutionT = TypeVar("ConvolutionT", bound=nn.Conv2d)


class ScaleShiftConv2d(nn.Conv2d):
    """A convolution with ``weight * scale`` and ``bias + shift``, made from a plain one by :meth:`of`.

    Attributes:
        weight: ``(out, in / groups, h, w)``, frozen.
        bias: ``(out,)``, frozen, or None.
        scale: ``(out, in / groups, 1, 1)``, trains, 1 at first.
        shift: ``(out,)``, trains, 0 at first; None where there is no bias.
    """

    scale: nn.Parameter
    shift: nn.Parameter | None

    @classmethod
    def of(cls, convolution: nn.Conv2d) -> ScaleShiftConv2d:
        """Take over the weights of a plain convolution: the same tensors, frozen."""
        made = _empty_like(cls, convolution)
        freeze(convolution)
        weight, bias = convolution.weight, convolution.bias
        made.weight, made.bias = weight, bias
        made.scale = nn.Parameter(torch.ones_like(weight[:, :, :1, :1], memory_format=torch.contiguous_format))
        made.register_parameter("shift", None if bias is None else nn.Parameter(torch.zeros_like(bias)))
        return made

    def forward(self, maps: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to ``(N, D, H', W')``."""
        output: Tensor = self._conv_forward(maps, *applied_weights(self))
        return output


def applied_weights(convolution: nn.Conv2d) -> tuple[Tensor, Tensor | None]:
    """Return the weight ``(out, in / groups, h, w)`` and bias ``(out,)`` that a convolution applies to its maps."""
    weight, bias = convolution.weight, convolution.bias
    if not isinstance(convolution, ScaleShiftConv2d):
        return weight, bias
    shift = convolution.shift
    # One small product per step; scaling the maps instead would not work, as each weight has its own scale.
    return weight * convolution.scale, bias if bias is None or shift is None else bias + shift


def scale_and_shift(module: ModuleT) -> ModuleT:
    """Make every convolution of a module a :class:`ScaleShiftConv2d`, in place; the weights stay.

    Returns:
        The module, or what takes its place where it is a convolution itself. Those already made are left alone.
    """
    return cast(ModuleT, _scale_and_shift(module))


def _scale_and_shift(module: nn.Module) -> nn.Module:
    if isinstance(module, ScaleShiftConv2d):
        return module
    if isinstance(module, nn.Conv2d):
        return ScaleShiftConv2d.of(module)
    for name, child in module.named_children():
        setattr(module, name, _scale_and_shift(child))
    return module


def merged(module: ModuleT) -> ModuleT:
    """Return a copy with plain convolutions of ``weight * scale`` and ``bias + shift``."""
    return cast(ModuleT, _merge(copy.deepcopy(module)))


def _merge(module: nn.Module) -> nn.Module:
    if isinstance(module, ScaleShiftConv2d):
        plain = _empty_like(nn.Conv2d, module)
        with torch.no_grad():
            weight, bias = applied_weights(module)
        plain.weight = nn.Parameter(weight)
        plain.bias = None if bias is None else nn.Parameter(bias)
        return plain
    for name, child in module.named_children():
        setattr(module, name, _merge(child))
    return module


def _empty_like(kind: type[ConvolutionT], convolution: nn.Conv2d) -> ConvolutionT:
    """Return a convolution of the same geometry and mode, whose weights are yet to be set."""
    made = kind(
        convolution.in_channels,
        convolution.out_channels,
        convolution.kernel_size,  # type: ignore[arg-type]
        convolution.stride,  # type: ignore[arg-type]
        convolution.padding,  # type: ignore[arg-type]
        convolution.dilation,  # type: ignore[arg-type]
        convolution.groups,
        convolution.bias is not None,
        convolution.padding_mode,
        device="meta",
    )
    made.training = convolution.training
    return made
