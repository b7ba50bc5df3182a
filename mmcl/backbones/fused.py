"""Convolution, batch norm, residual sum and ReLU as one step, for modules in eval mode.

Batch norm is folded into the weights. On x86 processors oneDNN adds the residual and applies the ReLU while the
result of the convolution is still in cache; elsewhere, and where a gradient is needed, torch does it in turn.
"""

from __future__ import annotations

import operator
import platform
from typing import NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights

from mmcl.backbones.scale_shift import applied_weights

ADDITIONS = (operator.add, operator.iadd, torch.add)
RELU_FUNCTIONS = (functional.relu, functional.relu_, torch.relu, torch.relu_)
RELU_METHODS = ("relu", "relu_")
ONEDNN_FUSES = (
    torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    and platform.machine().lower() in ("x86_64", "amd64")
    and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
    and hasattr(torch.ops.mkldnn, "_convolution_pointwise_")
    and hasattr(torch.ops.mkldnn, "_reorder_convolution_weight")
)


class _Geometry(NamedTuple):
    padding: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    def output_shape(self, maps: Tensor, weight: Tensor) -> tuple[int, ...]:
        sizes = zip(maps.shape[2:], weight.shape[2:], self.padding, self.stride, self.dilation, strict=True)
        sides = [(size + 2 * pad - gap * (kernel - 1) - 1) // stride + 1 for size, kernel, pad, stride, gap in sizes]
        return (len(maps), len(weight), *sides)


class _Weights(NamedTuple):
    """Folded weights ``(D, C, h, w)`` and biases ``(D,)``; ``packed`` is oneDNN's own order, None where it has none."""

    weight: Tensor
    bias: Tensor | None
    packed: Tensor | None


class FusedConvolution(nn.Module):
    """``relu(batch_norm(convolution(maps)) + residual)`` of given modules in eval mode.

    It computes with a folded copy of their weights, taken when it is made and at each :meth:`refresh`.

    Args:
        convolution: with zero padding, given in numbers.
        batch_norm: follows the convolution, with running statistics; None for none.
        relu: whether a ReLU ends it.
    """

    def __init__(self, convolution: nn.Conv2d, batch_norm: _BatchNorm | None, relu: bool) -> None:
        super().__init__()
        self.convolution = convolution
        self.batch_norm = batch_norm
        self.relu = relu
        padding = tuple(int(pad) for pad in convolution.padding)
        self.geometry = _Geometry(padding, convolution.stride, convolution.dilation, convolution.groups)
        self.refresh()

    def refresh(self) -> None:
        """Fold the present weights and statistics."""
        # A copy made inside inference mode could never take part in a training graph.
        with torch.inference_mode(False), torch.no_grad():
            weight, bias = _folded(self.convolution, self.batch_norm)
            fuses = ONEDNN_FUSES and weight.device.type == "cpu" and weight.dtype == torch.float32
            packed = torch.ops.mkldnn._reorder_convolution_weight(weight, *self.geometry) if fuses else None
            self.weights = _Weights(weight.contiguous(memory_format=torch.channels_last), bias, packed)

    def forward(self, maps: Tensor, residual: Tensor | None = None) -> Tensor:
        """Map ``(N, C, H, W)`` to ``(N, D, H', W')``; a residual of the result's shape may be overwritten."""
        if self._fits_onednn(maps, residual):
            return self._in_one_kernel(maps, residual)
        padding, stride, dilation, groups = self.geometry
        output = functional.conv2d(maps, self.weights.weight, self.weights.bias, stride, padding, dilation, groups)
        if residual is not None:
            output = output + residual
        return functional.relu(output) if self.relu else output

    def _fits_onednn(self, maps: Tensor, residual: Tensor | None) -> bool:
        if self.weights.packed is None or maps.dtype != torch.float32 or maps.device.type != "cpu" or not len(maps):
            return False
        if torch.is_autocast_enabled("cpu") or not torch.backends.mkldnn.enabled:
            return False
        inputs = (maps,) if residual is None else (maps, residual)
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs):
            return False
        return residual is None or residual.shape == self.geometry.output_shape(maps, self.weights.weight)

    def _in_one_kernel(self, maps: Tensor, residual: Tensor | None) -> Tensor:
        maps = maps.contiguous(memory_format=torch.channels_last)
        operands = (maps, self.weights.packed, self.weights.bias, *self.geometry)
        if residual is None:
            relu = "relu" if self.relu else "none"
            output: Tensor = torch.ops.mkldnn._convolution_pointwise(*operands, relu, [], None)
        else:
            relu_or_none = "relu" if self.relu else None
            residual = residual.contiguous(memory_format=torch.channels_last)
            add_in_place = torch.ops.mkldnn._convolution_pointwise_.binary
            output = add_in_place(residual, *operands, "add", 1.0, relu_or_none, [], None)
        return output


def fuse(module: nn.Module) -> fx.GraphModule | None:
    """Return a module of fused convolutions that computes what ``module`` does in eval mode.

    It reads the module's own weights when it is made and at each :func:`refresh`. None where torch cannot trace.
    """
    try:
        graph = _Tracer().trace(module)
    except fx.proxy.TraceError:
        return None
    fused = fx.GraphModule(module, graph)
    for place, node in enumerate(list(graph.nodes)):
        _fuse_from(fused, node, f"fused_{place}")
    _keep_residuals_that_are_read_again(fused)
    fused.recompile()
    return fused.eval()


class _Tracer(fx.Tracer):
    """Keeps convolutions whole, those of the project's own kinds, too."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, nn.Conv2d) or super().is_leaf_module(m, module_qualified_name)


def refresh(fused: fx.GraphModule) -> None:
    """Take the present weights and statistics of the module that was fused."""
    for part in fused.modules():
        if isinstance(part, FusedConvolution):
            part.refresh()


def _fuse_from(fused: fx.GraphModule, node: fx.Node, name: str) -> None:
    """Put one fused convolution in the place of a convolution and of what follows it."""
    convolution = _module_of(fused, node)
    if not isinstance(convolution, nn.Conv2d):
        return
    if convolution.padding_mode != "zeros" or isinstance(convolution.padding, str):
        return
    arguments, replaced = [node.args[0]], [node]
    follower, batch_norm = _only_user(node), _module_of(fused, _only_user(node))
    if follower is not None and isinstance(batch_norm, _BatchNorm) and batch_norm.running_mean is not None:
        replaced.append(follower)
    else:
        batch_norm = None
    follower, residual = _only_user(replaced[-1]), _other_addend(replaced[-1])
    if follower is not None and residual is not None:
        replaced.append(follower)
        arguments.append(residual)
    follower = _only_user(replaced[-1])
    relu = _is_relu(fused, follower)
    if follower is not None and relu:
        replaced.append(follower)
    fused.add_submodule(name, FusedConvolution(convolution, batch_norm, relu))
    with fused.graph.inserting_before(replaced[-1]):
        replaced[-1].replace_all_uses_with(fused.graph.call_module(name, tuple(arguments)))
    for old in reversed(replaced):
        fused.graph.erase_node(old)


def _keep_residuals_that_are_read_again(fused: fx.GraphModule) -> None:
    """Copy each residual that anyone else reads later, or whose memory may belong to another tensor."""
    places = {node: place for place, node in enumerate(fused.graph.nodes)}
    for node in places:
        if not isinstance(_module_of(fused, node), FusedConvolution) or len(node.args) == 1:
            continue
        maps, residual = node.args
        fresh = isinstance(_module_of(fused, residual), FusedConvolution) or residual.target is functional.pad
        readers = [reader for reader in residual.users if reader is not node]
        done = all(
            isinstance(_module_of(fused, reader), FusedConvolution) and places[reader] < places[node]
            for reader in readers
        )
        if not fresh or not done or maps is residual:
            with fused.graph.inserting_before(node):
                node.args = (maps, fused.graph.call_method("clone", (residual,)))


def _module_of(fused: fx.GraphModule, node: object) -> nn.Module | None:
    if isinstance(node, fx.Node) and node.op == "call_module":
        return fused.get_submodule(str(node.target))
    return None


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _other_addend(node: fx.Node) -> fx.Node | None:
    """Return what the only user of a node adds to it; None where it is no sum of two maps."""
    user = _only_user(node)
    if user is None or user.target not in ADDITIONS or len(user.args) != 2 or user.kwargs:
        return None
    left, right = user.args
    other = right if left is node else left
    return other if isinstance(other, fx.Node) and other is not node and other.op != "get_attr" else None


def _is_relu(fused: fx.GraphModule, node: fx.Node | None) -> bool:
    if node is None:
        return False
    if node.op == "call_function":
        return node.target in RELU_FUNCTIONS
    if node.op == "call_method":
        return node.target in RELU_METHODS
    return isinstance(_module_of(fused, node), nn.ReLU)


def _folded(convolution: nn.Conv2d, batch_norm: _BatchNorm | None) -> tuple[Tensor, Tensor | None]:
    weight, bias = applied_weights(convolution)
    weight, bias = weight.detach(), None if bias is None else bias.detach()
    if batch_norm is None:
        return weight.clone(), None if bias is None else bias.clone()
    mean, variance = batch_norm.running_mean, batch_norm.running_var
    assert mean is not None
    assert variance is not None
    folded_weight, folded_bias = fuse_conv_bn_weights(
        weight, bias, mean, variance, batch_norm.eps, batch_norm.weight, batch_norm.bias
    )
    return folded_weight.detach(), folded_bias.detach()
