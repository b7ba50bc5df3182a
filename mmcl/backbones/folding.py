"""Faster evaluation of what does not train: fused convolutions, ``channels_last``, few images at a time.

A fused view is derived from its module. It is built at its first use, follows every change of the module's
tensors, is left out of ``state_dict``, and is neither copied nor pickled with its owner.
"""

from __future__ import annotations

from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, fx, nn

from mmcl.backbones.fused import fuse, refresh

# The widest maps of so many 32x32 images take 4 MB: few enough to stay in cache between two layers, and enough
# for the convolutions of later layers to run at full speed.
MAPS_AT_ONCE = 64


class FoldedEvaluation:
    """Evaluates modules like a plain call, within 1e-5 relative in float32, and faster where it can.

    A frozen module, in eval mode throughout, runs through a fused view; gradients still flow to its input. The view
    takes its weights anew when a tensor was written or replaced. Where nothing needs a gradient, a CPU takes a part of
    the batch at a time; a module that still trains then runs through a view of its own, made anew for each batch,
    because fused optimisers change weights behind torch's version counter.

    Two limits of a view: hooks on inner modules are not called, and a write to a frozen module through
    ``tensor.data`` is not seen, where one under ``torch.no_grad()`` is.
    """

    def __init__(self) -> None:
        self._views: WeakKeyDictionary[nn.Module, _View] = WeakKeyDictionary()

    def __reduce__(self) -> tuple[type[FoldedEvaluation], tuple[()]]:
        return FoldedEvaluation, ()

    def __call__(self, module: nn.Module, maps: Tensor) -> Tensor:
        """Return ``module(maps)`` for maps ``(N, C, H, W)``."""
        if torch.compiler.is_compiling():
            return _apply(module, maps)
        tensors = _tensors_in_eval_mode(module)
        if tensors is None:
            return _apply(module, maps)
        trains = any(tensor.requires_grad for tensor in tensors)
        builds_graph = torch.is_grad_enabled() and (trains or maps.requires_grad)
        in_chunks = maps.device.type == "cpu" and len(maps) > MAPS_AT_ONCE and not builds_graph
        if trains and not in_chunks:
            return _apply(module, maps)
        quick = self._view(module, tensors, trains)
        return _apply_in_chunks(quick, maps) if in_chunks else _apply(quick, maps)

    def _view(self, module: nn.Module, tensors: list[Tensor], trains: bool) -> nn.Module:
        """Return the module's view with its present weights, or the module itself where it cannot be traced."""
        view = self._views.get(module)
        if view is None:
            view = _View(fuse(module), _stamps(tensors, trains))
        elif trains or not view.is_fresh(tensors):
            if view.fused is not None:
                refresh(view.fused)
            view = view._replace(stamps=_stamps(tensors, trains))
        self._views[module] = view
        return module if view.fused is None else view.fused


class _Stamp(NamedTuple):
    """Where a tensor lies and how often it was written; the alias keeps its place from being reused."""

    alias: Tensor
    version: int


class _View(NamedTuple):
    """A fused view, None where a module cannot be traced, and the stamps of the tensors that it shows.

    Without stamps it must be refreshed before each use.
    """

    fused: fx.GraphModule | None
    stamps: list[_Stamp] | None

    def is_fresh(self, tensors: list[Tensor]) -> bool:
        if self.stamps is None or len(tensors) != len(self.stamps):
            return False
        return all(
            stamp.version == tensor._version and stamp.alias.data_ptr() == tensor.data_ptr()
            for stamp, tensor in zip(self.stamps, tensors, strict=True)
        )


def _stamps(tensors: list[Tensor], trains: bool) -> list[_Stamp] | None:
    if trains or any(tensor.is_inference() for tensor in tensors):
        return None
    return [_Stamp(tensor.detach(), tensor._version) for tensor in tensors]


def _tensors_in_eval_mode(module: nn.Module) -> list[Tensor] | None:
    """Return all tensors of a module, None where a part is in train mode or there are none. Each step calls it."""
    tensors: list[Tensor] = []
    parts: list[nn.Module | None] = [module]
    while parts:
        part = parts.pop()
        if part is None:
            continue
        if part.training:
            return None
        parts.extend(part._modules.values())
        tensors.extend(tensor for tensor in part._parameters.values() if tensor is not None)
        tensors.extend(tensor for tensor in part._buffers.values() if tensor is not None)
    return tensors or None


def _apply_in_chunks(module: nn.Module, maps: Tensor) -> Tensor:
    starts = range(0, len(maps), MAPS_AT_ONCE)
    return torch.cat([_apply(module, maps[start : start + MAPS_AT_ONCE]) for start in starts])


def _apply(module: nn.Module, maps: Tensor) -> Tensor:
    output: Tensor = module(maps)
    return output
