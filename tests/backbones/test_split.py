from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

from mmcl.backbones import unshared
from mmcl.backbones.cifar_resnet import cifar_resnet
from mmcl.backbones.convnet import convnet2
from mmcl.backbones.imagenet_resnet import imagenet_resnet
from mmcl.backbones.split import SplitBackbone
from mmcl.config.components import locate
from mmcl.errors import UserError

CONFIGS = sorted((Path(__file__).parents[2] / "conf" / "backbone").glob("*.yaml"))
CONFIGS = [path for path in CONFIGS if not hasattr(locate(OmegaConf.load(path)["_target_"]), "load")]  # not CLIP
PARAMETERS = {
    "conv2": (1_920, 37_056),
    "resnet14": (42_320, 129_536),
    "resnet20": (65_552, 203_520),
    "resnet26": (88_784, 277_504),
    "resnet32": (112_016, 351_488),
    "resnet32_projection": (112_592, 353_664),
    "conv4": (314_880, 591_360),
    "resnet10_imagenet": (1_232_704, 3_673_088),
    "resnet18": (2_782_784, 8_393_728),
    "resnet26_imagenet": (3_444_032, 10_502_144),
    "resnet34": (8_170_304, 13_114_368),
    "resnet50": (8_543_296, 14_964_736),
}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_configuration_builds_the_counted_backbone(path: Path) -> None:
    with torch.device("meta"):
        backbone = instantiate(OmegaConf.load(path))
    counts = [sum(tensor.numel() for tensor in part.parameters()) for part in (backbone.trunk, backbone.branch)]
    assert tuple(counts) == PARAMETERS[path.stem]
    assert backbone.name == path.stem
    command = rf"# python -m mmcl\.run \+method=\w+ (benchmark=\w+ )?backbone={path.stem}( .*)?\n"
    assert re.match(command, path.read_text())


def test_every_counted_backbone_has_a_configuration() -> None:
    assert {path.stem for path in CONFIGS} == set(PARAMETERS)


def test_initialisation_follows_the_global_generator() -> None:
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        states.append(cifar_resnet(8, width=4).trunk.stem[0].weight)
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_unshared_is_the_same_function() -> None:
    backbone = cifar_resnet(8, width=4).eval()
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(unshared(backbone)(images), backbone(images))


LEVELS = {
    "cifar": (lambda: cifar_resnet(8, width=4), 3),
    "convnet": (lambda: convnet2(8), 2),
    "imagenet": (lambda: imagenet_resnet("basic", [1, 1, 1, 1], width=4), 4),
    "unshared": (lambda: unshared(cifar_resnet(8, width=4)), 3),
    "no names": (lambda: SplitBackbone(nn.Conv2d(3, 4, 3), nn.Sequential(nn.ReLU(), nn.Flatten()), 3600, "x"), 1),
}


@pytest.mark.parametrize("name", LEVELS)
def test_levels_in_turn_are_the_backbone(name: str) -> None:
    make_backbone, count = LEVELS[name]
    backbone = make_backbone().eval()
    names, levels = list(backbone.state_dict()), backbone.levels()
    assert len(levels) == count
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(nn.Sequential(*levels).eval()(images), backbone(images))
    parameters = [parameter for level in levels for parameter in level.parameters()]
    assert [id(parameter) for parameter in parameters] == [id(parameter) for parameter in backbone.parameters()]
    assert list(backbone.state_dict()) == names


@pytest.mark.parametrize("depth", [7, 15, 2])
def test_wrong_depth_says_what_to_type(depth: int) -> None:
    with pytest.raises(UserError, match=r"backbone\.depth"):
        cifar_resnet(depth)


def test_wrong_block_says_what_to_type() -> None:
    with pytest.raises(UserError, match="basic, bottleneck"):
        imagenet_resnet("wide", [1, 1, 1, 1])
    with pytest.raises(UserError, match="4 counts"):
        imagenet_resnet("basic", [1, 1, 1])
