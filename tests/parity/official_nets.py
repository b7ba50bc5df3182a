"""The small networks of Mnemonics' golden files, built from their arrays and named as there."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping

import numpy as np
import torch
from torch import nn
from torchvision.models.resnet import BasicBlock

from mmcl.backbones.aggregated import AggregatedNetwork
from mmcl.backbones.cosine_network import CosineNetwork
from mmcl.backbones.imagenet_resnet import residual_layer
from mmcl.backbones.signed_features import signed_features
from mmcl.backbones.split import SplitBackbone
from tests.parity import Golden, close


def tiny_network(golden: Golden, prefix: str) -> CosineNetwork:
    """Build the network whose arrays are ``prefix/*``, in eval mode: Tiny-3, or Tiny-4 of four layers.

    It has scales where ``mtl_weight`` is present, and old classes where the head is split.
    """
    state = official_arrays(golden, prefix)
    network = CosineNetwork(tiny_backbone(state))
    for rows in ("fc.fc1.weight", "fc.fc2.weight", "fc.weight"):
        if rows in state:
            network.expand(len(network.head.weight) + len(state[rows]))
    if "conv1.mtl_weight" in state:
        network.transfer_weights()
    load_official(network, state)
    return network.eval()


def tiny_aggregated(golden: Golden, stable: str, plastic: str, shares: np.ndarray) -> AggregatedNetwork:
    """Build the mixed network of two branches ``stable/*`` and ``plastic/*``, in eval mode, without the second head.

    A branch with scales is ``scale_shift``, one without is ``free``.
    """
    first, second = tiny_network(golden, stable), tiny_network(golden, plastic)
    network = AggregatedNetwork(first.backbone, second.backbone, first.head, fixed=())
    with torch.no_grad():
        network.shares.copy_(torch.from_numpy(shares))
    return network.eval()


def official_arrays(golden: Golden, prefix: str) -> dict[str, np.ndarray]:
    """Return the arrays ``prefix/*`` without the prefix."""
    return {name.removeprefix(f"{prefix}/"): golden[name] for name in golden if name.startswith(f"{prefix}/")}


def tiny_backbone(state: Mapping[str, np.ndarray]) -> SplitBackbone:
    """Build an untrained plain backbone of the shapes of ``state``, cut before its last layer."""
    counts: dict[int, int] = {}
    for name in state:
        if found := re.match(r"layer(\d)\.(\d)\.", name):
            layer, block = (int(number) for number in found.groups())
            counts[layer] = max(counts.get(layer, 0), block + 1)
    planes = [len(state["conv1.weight"]), *(len(state[f"layer{layer}.0.bn1.weight"]) for layer in counts)]
    layers = {
        f"layer{layer}": residual_layer(BasicBlock, planes[layer - 1], planes[layer], min(layer, 2), counts[layer])
        for layer in counts
    }
    stem = OrderedDict(
        conv1=nn.Conv2d(3, planes[0], 3, padding=1, bias=False), bn1=nn.BatchNorm2d(planes[0]), relu=nn.ReLU()
    )
    if len(layers) == 4:
        stem["maxpool"] = nn.MaxPool2d(3, stride=2, padding=1)
    last_name, last = layers.popitem()
    branch = OrderedDict({last_name: last, "avgpool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()})
    trunk = nn.Sequential(OrderedDict(stem | layers))
    return signed_features(SplitBackbone(trunk, nn.Sequential(branch), planes[-1], "tiny"))


def load_official(network: CosineNetwork, state: Mapping[str, np.ndarray]) -> None:
    """Overwrite all tensors of a network; every array of ``state`` is used, none is missing."""
    ours = official_tensors(network)
    assert set(ours) == set(state), set(ours) ^ set(state)
    with torch.no_grad():
        for name, tensor in ours.items():
            tensor.copy_(torch.from_numpy(state[name]))


def official_state(network: CosineNetwork | AggregatedNetwork) -> dict[str, np.ndarray]:
    """Return copies of all tensors of a network by their official names."""
    return {name: tensor.detach().numpy().copy() for name, tensor in official_tensors(network).items()}


def official_tensors(network: CosineNetwork | AggregatedNetwork) -> dict[str, torch.Tensor]:
    """Return the tensors of a network by their official names, except the counters of batch norms.

    Of two branches, the stable one is meant; for the other see :func:`backbone_tensors`.
    """
    head = {"sigma": "fc.sigma", "weight_old": "fc.fc1.weight", "weight_new": "fc.fc2.weight"}
    if not len(network.head.weight_old):
        head = {"sigma": "fc.sigma", "weight_new": "fc.weight"}
    stable = network.stable if isinstance(network, AggregatedNetwork) else network.backbone
    return backbone_tensors(stable) | {theirs: getattr(network.head, ours) for ours, theirs in head.items()}


def backbone_tensors(backbone: SplitBackbone) -> dict[str, torch.Tensor]:
    """Return the tensors of a backbone by their official names, except the counters of batch norms."""
    state = backbone.state_dict(keep_vars=True)
    names = {name: name.partition(".")[2].replace(".scale", ".mtl_weight") for name in state}
    return {names[name]: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}


def near(actual: object, expected: np.ndarray, limit: float = 1e-5) -> None:
    """Assert ``max |actual - expected| <= limit * max |expected|``; where all is 0, exactly."""
    largest = np.abs(expected).max(initial=0.0)
    scale = largest if largest > 0.0 else 1.0
    close(np.asarray(actual, dtype=np.float64) / scale, np.asarray(expected) / scale, limit if largest > 0.0 else 0.0)
