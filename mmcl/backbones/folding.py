"""Faster evaluation of what does not train: folded batch norm, ``channels_last``, few images at a time.

A folded copy is a derived view. It is built at its first use, rebuilt as soon as a tensor of its module has
changed or moved, left out of ``state_dict``, and neither copied nor pickled with its owner.
"""

from __future__ import annotations

from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse
from torch.fx.proxy import TraceError

CHANNELS_OF_IMAGES = 3
# The widest maps of so many 32x32 images fit into 1 MB of cache, and allocating them touches no fresh page.
# Later layers have narrower maps, and their convolutions run best on more.
IMAGES_AT_ONCE = 16
MAPS_AT_ONCE = 64


class FoldedEvaluation:
    """Evaluates modules like a plain call, within 1e-5 relative in float32, and faster where it can.

    A frozen module, in eval mode throughout, runs through a folded copy; gradients still flow to its input.
    Modules that still train are never folded: fused optimisers change weights behind torch's version counter.
    Where nothing needs a gradient, a CPU takes a part of the batch at a time.

    Two limits of a folded copy: hooks on inner modules are not called, and a write through ``tensor.data`` is
    not seen, where one under ``torch.no_grad()`` is.
    """

    def __init__(self) -> None:
        self._views: WeakKeyDictionary[nn.Module, _View] = WeakKeyDictionary()

    def __reduce__(self) -> tuple[type[FoldedEvaluation], tuple[()]]:
        return FoldedEvaluation, ()

    def __call__(self, module: nn.Module, maps: Tensor) -> Tensor:
        """Return ``module(maps)`` for maps ``(N, C, H, W)``."""
        if torch.compiler.is_compiling():
            return _apply(module, maps)
        tensors = _constant_tensors(module)
        folded = None if tensors is None else self._folded(module, tensors)
        return _apply_in_chunks(module if folded is None else folded, maps, constant=tensors is not None)

    def _folded(self, module: nn.Module, tensors: list[Tensor]) -> nn.Module | None:
        view = self._views.get(module)
        if view is None or not view.is_fresh(tensors):
            view = _View(_fold(module), [_Stamp(tensor.detach(), tensor._version) for tensor in tensors])
            self._views[module] = view
        return view.folded


class _Stamp(NamedTuple):
    """Where a tensor lies and how often it was written; the alias keeps its place from being reused."""

    alias: Tensor
    version: int


class _View(NamedTuple):
    """A folded copy, None where a module cannot be traced, and the stamps of the tensors it was made from."""

    folded: nn.Module | None
    stamps: list[_Stamp]

    def is_fresh(self, tensors: list[Tensor]) -> bool:
        if len(tensors) != len(self.stamps):
            return False
        return all(
            stamp.version == tensor._version and stamp.alias.data_ptr() == tensor.data_ptr()
            for stamp, tensor in zip(self.stamps, tensors, strict=True)
        )


def _constant_tensors(module: nn.Module) -> list[Tensor] | None:
    """Return all tensors of a frozen module in eval mode, None for any other. Flat, as each step calls it."""
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
        if tensors and tensors[-1].requires_grad:
            return None
        tensors.extend(tensor for tensor in part._buffers.values() if tensor is not None)
    if not tensors or any(tensor.requires_grad or tensor.is_inference() for tensor in tensors):
        return None
    return tensors


def _fold(module: nn.Module) -> nn.Module | None:
    # A copy made inside inference mode could never take part in a training graph.
    with torch.inference_mode(False), torch.no_grad():
        try:
            folded: nn.Module = fuse(module)
        except TraceError:
            return None
        return folded.requires_grad_(False).to(memory_format=torch.channels_last)


def _apply_in_chunks(module: nn.Module, maps: Tensor, constant: bool) -> Tensor:
    builds_graph = torch.is_grad_enabled() and (maps.requires_grad or not constant)
    at_once = IMAGES_AT_ONCE if maps.shape[1] == CHANNELS_OF_IMAGES else MAPS_AT_ONCE
    if maps.device.type != "cpu" or builds_graph or len(maps) <= at_once:
        return _apply(module, maps)
    if any(part.training for part in module.modules()):
        return _apply(module, maps)
    starts = range(0, len(maps), at_once)
    return torch.cat([_apply(module, maps[start : start + at_once]) for start in starts])


def _apply(module: nn.Module, maps: Tensor) -> Tensor:
    output: Tensor = module(maps)
    return output
