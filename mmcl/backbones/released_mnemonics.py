"""Networks that the authors of Mnemonics (Liu et al., CVPR 2020) released, as cosine networks of this suite.

Their files are whole pickled modules of code that is not needed here: :mod:`mmcl.backbones.pickled_modules` reads the
tensors, whose names tell the architecture. Every tensor is used once, none is left over.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from mmcl.backbones.cosine_network import CosineNetwork
from mmcl.backbones.imagenet_resnet import imagenet_resnet
from mmcl.backbones.pickled_modules import read_pickled
from mmcl.backbones.projection_resnet import projection_resnet
from mmcl.backbones.signed_features import signed_features
from mmcl.backbones.split import SplitBackbone
from mmcl.errors import UserError

_NETWORKS = {
    "models.modified_resnet_cifar": ("ResNet", "BasicBlock"),
    "models.modified_resnetmtl_cifar": ("ResNetMtl", "BasicBlockMtl"),
    "models.modified_resnet": ("ResNet", "BasicBlock"),
    "models.modified_resnetmtl": ("ResNetMtl", "BasicBlockMtl"),
    "models.modified_linear": ("CosineLinear", "SplitCosineLinear"),
    "utils.incremental.conv2d_mtl": ("Conv2dMtl",),
}
OFFICIAL_MODULES = [(module, name) for module, names in _NETWORKS.items() for name in names]
# Their names of the head's tensors by ours: split into old and new classes, and before it was.
SPLIT_HEAD = {"head.weight_old": "fc.fc1.weight", "head.weight_new": "fc.fc2.weight", "head.sigma": "fc.sigma"}
FIRST_HEAD = {"head.weight_new": "fc.weight", "head.sigma": "fc.sigma"}
RESNETS: dict[tuple[int, ...], str] = {(2, 2, 2, 2): "resnet18", (3, 4, 6, 3): "resnet34"}
_BLOCK = re.compile(r"layer([1-4])\.(\d{1,3})\.conv1\.weight")
_COUNTER = "num_batches_tracked"  # torch before 0.4.1 kept none, and nothing reads it
_SHOWN = 5


def read_released(file: Path) -> CosineNetwork:
    """Return a released network in eval mode, with scales and shifts where it has some.

    Args:
        file: ``run_0_iteration_<j>_model.pth``, a whole module or its state dict.

    Raises:
        UserError: the file cannot be read, asks for other classes, or is of no network of this kind.
    """
    return network_of(read_pickled(file, OFFICIAL_MODULES), file)


def network_of(state: Mapping[str, Tensor], file: Path) -> CosineNetwork:
    """Return the network of tensors under their official names, in eval mode.

    Args:
        state: tensors such as ``layer1.0.conv1.weight``, ``layer1.0.conv1.mtl_weight`` and ``fc.sigma``.
        file: where they are from, for messages.

    Raises:
        UserError: a tensor is missing, left over or of another shape.
    """
    rows = SPLIT_HEAD if "fc.fc1.weight" in state else FIRST_HEAD
    network = CosineNetwork(signed_features(_backbone(state, file)))
    for name in (theirs for theirs in rows.values() if theirs.endswith("weight")):
        if name not in state or state[name].ndim != 2 or not len(state[name]):
            raise _misfit(file, f"it has no rows {name} of a cosine classifier")
        network.expand(len(network.head.weight) + len(state[name]))
    if any(name.endswith(".mtl_weight") for name in state):
        network.transfer_weights()
    places = {rows.get(ours) or _official(ours): place for ours, place in _places(network).items()}
    _check_fit(state, places, file)
    with torch.no_grad():
        for name, tensor in state.items():
            places[name].copy_(tensor)
    return network.eval()


def _backbone(state: Mapping[str, Tensor], file: Path) -> SplitBackbone:
    """Build the untrained backbone that the tensors' names and the first convolution tell of."""
    blocks: dict[int, int] = {}
    for found in filter(None, map(_BLOCK.fullmatch, state)):
        layer, block = (int(number) for number in found.groups())
        blocks[layer] = max(blocks.get(layer, 0), block + 1)
    counts = [blocks[layer] for layer in sorted(blocks)]
    stem = tuple(state["conv1.weight"].shape) if "conv1.weight" in state else ()
    if len(stem) == 4 and stem[2:] == (3, 3) and sorted(blocks) == [1, 2, 3] and len(set(counts)) == 1:
        depth = 6 * counts[0] + 2
        return projection_resnet(depth, stem[0], f"resnet{depth}_projection")
    if len(stem) == 4 and stem[2:] == (7, 7) and sorted(blocks) == [1, 2, 3, 4]:
        return imagenet_resnet("basic", counts, stem[0], RESNETS.get(tuple(counts), "imagenet_resnet"))
    raise _misfit(file, f"its first convolution is {stem or 'missing'}, its blocks by layer {blocks}")


def _places(network: CosineNetwork) -> dict[str, Tensor]:
    """Return the tensors of a network by name, without the rows of old classes where there are none."""
    state: dict[str, Tensor] = network.state_dict()
    return {name: tensor for name, tensor in state.items() if tensor.ndim == 0 or len(tensor)}


def _official(name: str) -> str:
    """``backbone.trunk.layer1.0.conv1.scale`` is ``layer1.0.conv1.mtl_weight`` in their code."""
    return re.sub(r"^backbone\.(trunk|branch)\.", "", name).replace(".scale", ".mtl_weight")


def _check_fit(state: Mapping[str, Tensor], places: Mapping[str, Tensor], file: Path) -> None:
    missing = [name for name in places if name not in state and not name.endswith(_COUNTER)]
    left_over = [name for name in state if name not in places]
    shapes = [
        f"{name} is {tuple(state[name].shape)}, expected {tuple(place.shape)}"
        for name, place in places.items()
        if name in state and state[name].shape != place.shape
    ]
    faults = {"it has no": missing, "no place for its": left_over, "another shape:": shapes}
    if any(faults.values()):
        raise _misfit(file, "; ".join(f"{words} {_some(names)}" for words, names in faults.items() if names))


def _some(names: Iterable[str]) -> str:
    found = list(names)
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return f"{', '.join(found[:_SHOWN])}{more}"


def _misfit(file: Path, fault: str) -> UserError:
    return UserError(
        f"{file} is no network of Mnemonics' released code: {fault}. Expected a ResNet of basic blocks with a cosine "
        "classifier, such as run_0_iteration_24_model.pth"
    )
