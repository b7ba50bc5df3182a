"""The names that golden files give to architectures and parameters, and ours."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from mmcl.backbones.cifar_resnet import cifar_resnet
from mmcl.backbones.convnet import convnet2, convnet4
from mmcl.backbones.expandable import ExpandableNetwork
from mmcl.backbones.imagenet_resnet import imagenet_resnet
from mmcl.backbones.plain import PlainNetwork
from mmcl.backbones.split import SplitBackbone

_NAMED = {
    "conv2": convnet2,
    "conv4": convnet4,
    "resnet10_imagenet": lambda: imagenet_resnet("basic", [1, 1, 1, 1]),
    "resnet18": lambda: imagenet_resnet("basic", [2, 2, 2, 2]),
    "resnet26_imagenet": lambda: imagenet_resnet("bottleneck", [2, 2, 2, 2]),
    "resnet34_imagenet": lambda: imagenet_resnet("basic", [3, 4, 6, 3]),
    "resnet50_imagenet": lambda: imagenet_resnet("bottleneck", [3, 4, 6, 3]),
}
_CIFAR_BLOCK = {"conv1": "conv_a", "bn1": "bn_a", "conv2": "conv_b", "bn2": "bn_b"}


def build_arch(arch: str) -> SplitBackbone:
    """Build ``cifar:8:4``, ``conv2:8``, ``basic:4:1-1-1-1``, ``bottle:4:1-1-1-1`` or a named backbone."""
    family, *arguments = arch.split(":")
    if family == "cifar":
        return cifar_resnet(int(arguments[0]), int(arguments[1]))
    if family == "conv2" and arguments:
        return convnet2(int(arguments[0]))
    if family in ("basic", "bottle"):
        blocks = [int(count) for count in arguments[1].split("-")]
        return imagenet_resnet({"bottle": "bottleneck"}.get(family, family), blocks, int(arguments[0]))
    cifar = re.fullmatch(r"resnet(14|20|26|32)(_cifar)?", arch)
    return cifar_resnet(int(cifar[1])) if cifar else _NAMED[arch]()


def trunk_names(trunk: nn.Module) -> dict[str, str]:
    """Map our names of a trunk's tensors to the golden ones, in the order of the state dict."""
    names = _tensor_names(trunk)
    first_block = "block1." if any(name.startswith("block3.") for name in names) else "encoder.0."
    return {name: _cifar_name(name.replace("block1.", first_block), "") for name in names}


def branch_names(branch: nn.Module, plain: bool) -> dict[str, str]:
    """Map our names of a branch's tensors to the golden ones; plain nets call the last stage otherwise."""
    last_stage, last_block = ("stage_3", "encoder.1.") if plain else ("final_stage", "AdaptiveBlock.")
    names = _tensor_names(branch)
    return {name: _cifar_name(name.replace("block2.", last_block), last_stage) for name in names}


def golden_names(network: nn.Module) -> dict[str, str]:
    """Map all tensor names of a plain or expandable network to the golden ones."""
    if isinstance(network, PlainNetwork):
        return {**_backbone_names(network.backbone, "backbone.", "convnet."), **_head_names("head.", "fc.")}
    if not isinstance(network, ExpandableNetwork):
        raise TypeError(f"no golden names for {type(network).__name__}")
    names = _prefixed(trunk_names(network.trunk), "trunk.", "TaskAgnosticExtractor.")
    for task, branch in enumerate(network.branches):
        if isinstance(branch, SplitBackbone):
            names |= _backbone_names(branch, f"branches.{task}.", f"convnets.{task}.")
        else:
            inner = branch_names(branch, plain=False)
            names |= _prefixed(inner, f"branches.{task}.", f"AdaptiveExtractors.{task}.")
    return {**names, **_head_names("head.", "fc."), **_head_names("auxiliary_head.", "aux_fc.")}


def to_golden(network: nn.Module) -> dict[str, np.ndarray]:
    """Return the network's tensors under their golden names."""
    state = network.state_dict()
    return {golden: state[ours].numpy() for ours, golden in golden_names(network).items()}


def load_golden(network: nn.Module, golden: Mapping[str, np.ndarray], prefix: str) -> None:
    """Copy every golden tensor under ``prefix`` into the network; a name that it lacks is an error."""
    ours = {theirs: name for name, theirs in golden_names(network).items()}
    state = network.state_dict()
    names = [name.removeprefix(prefix) for name in golden if name.startswith(prefix)]
    assert names, f"nothing under {prefix}"
    with torch.no_grad():
        for name in names:
            state[ours[name]].copy_(torch.from_numpy(golden[prefix + name]))


def _tensor_names(module: nn.Module) -> list[str]:
    return [name for name in module.state_dict() if not name.endswith("num_batches_tracked")]


def _cifar_name(name: str, last_stage: str) -> str:
    name = name.replace("stem.0.", "conv_1_3x3.").replace("stem.1.", "bn_1.")
    if not name.startswith("stage"):
        return name
    stage, block, layer, tensor = name.split(".")
    stage = {"stage1": "stage_1", "stage2": "stage_2", "stage3": last_stage}[stage]
    return f"{stage}.{block}.{_CIFAR_BLOCK[layer]}.{tensor}"


def _prefixed(names: Mapping[str, str], ours: str, golden: str) -> dict[str, str]:
    return {ours + name: golden + theirs for name, theirs in names.items()}


def _backbone_names(backbone: SplitBackbone, ours: str, golden: str) -> dict[str, str]:
    return {
        **_prefixed(trunk_names(backbone.trunk), f"{ours}trunk.", golden),
        **_prefixed(branch_names(backbone.branch, plain=True), f"{ours}branch.", golden),
    }


def _head_names(ours: str, golden: str) -> dict[str, str]:
    return {f"{ours}{tensor}": f"{golden}{tensor}" for tensor in ("weight", "bias")}
