from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from mmcl.backbones import freeze, unshared
from mmcl.backbones.cifar_resnet import cifar_resnet
from mmcl.backbones.convnet import convnet2
from mmcl.backbones.folding import FoldedEvaluation
from mmcl.backbones.imagenet_resnet import imagenet_resnet
from mmcl.backbones.projection_resnet import projection_resnet
from mmcl.backbones.projection_shortcuts import projection_shortcuts
from mmcl.backbones.signed_features import signed_features
from mmcl.backbones.split import SplitBackbone
from mmcl.errors import UserError

BACKBONES = {
    "cifar": lambda: cifar_resnet(14, width=4),
    "cifar, one block": lambda: cifar_resnet(8, width=4),
    "cifar, projected": lambda: projection_shortcuts(cifar_resnet(8, width=4)),
    "convnet": lambda: convnet2(width=4),
    "projection": lambda: projection_resnet(14, width=4),
    "imagenet": lambda: imagenet_resnet("basic", [1, 1, 1, 2], width=4),
    "imagenet, one block": lambda: imagenet_resnet("basic", [1, 1, 1, 1], width=4),
    "unshared": lambda: unshared(cifar_resnet(8, width=4)),
}


def images() -> torch.Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def before_pooling(backbone: SplitBackbone) -> torch.Tensor:
    return nn.Sequential(*[part for level in backbone.levels() for part in level][:-2])(images())


@pytest.mark.parametrize("name", BACKBONES)
def test_a_relu_gives_back_the_old_maps(name: str) -> None:
    backbone = BACKBONES[name]().eval()
    expected, names = before_pooling(backbone).detach(), list(backbone.state_dict())
    assert signed_features(backbone) is backbone
    signed = before_pooling(backbone)
    assert (signed < 0).any()
    assert torch.equal(signed.relu(), expected)
    assert list(backbone.state_dict()) == names
    assert not any(module.training for module in backbone.modules())


@pytest.mark.parametrize("name", BACKBONES)
def test_signed_once_is_signed(name: str) -> None:
    backbone = signed_features(BACKBONES[name]()).eval()
    expected = backbone(images())
    assert torch.equal(signed_features(copy.deepcopy(backbone))(images()), expected)


@pytest.mark.parametrize("name", BACKBONES)
def test_a_frozen_one_is_fused_within_tolerance(name: str) -> None:
    backbone = freeze(signed_features(BACKBONES[name]()))
    expected = backbone(images())
    assert (FoldedEvaluation()(backbone, images()) - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_other_backbones_are_refused() -> None:
    with pytest.raises(UserError, match="Type backbone=resnet32"):
        signed_features(imagenet_resnet("bottleneck", [1, 1, 1, 1], width=4))
