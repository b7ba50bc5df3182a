"""CIFAR ResNets with option A become those with option B: the same network as projection_resnet."""

from __future__ import annotations

import torch

from mmcl.backbones.cifar_resnet import cifar_resnet
from mmcl.backbones.convnet import convnet2
from mmcl.backbones.cosine_network import CosineNetwork
from mmcl.backbones.imagenet_resnet import imagenet_resnet
from mmcl.backbones.projection_resnet import projection_resnet
from mmcl.backbones.projection_shortcuts import projection_shortcuts
from mmcl.backbones.signed_features import signed_features


def test_it_is_the_network_that_is_built_with_projections() -> None:
    torch.manual_seed(0)
    ours, built = projection_shortcuts(cifar_resnet(14)), projection_resnet(14)
    tensors = dict(zip(built.state_dict(), ours.state_dict().values(), strict=True))
    assert {name: value.shape for name, value in tensors.items()} == {
        name: value.shape for name, value in built.state_dict().items()
    }
    built.load_state_dict(tensors)
    images = torch.randn(3, 3, 32, 32)
    torch.testing.assert_close(ours.eval()(images), built.eval()(images))


def test_resnet32_has_the_published_number_of_parameters() -> None:
    network = CosineNetwork(signed_features(projection_shortcuts(cifar_resnet(32))))
    network.expand(50)
    assert sum(parameter.numel() for parameter in network.parameters()) == 469_457


def test_other_networks_stay_as_they_are() -> None:
    for backbone in (convnet2(4), imagenet_resnet("basic", [1, 1, 1, 1], 4)):
        before = list(backbone.state_dict())
        assert list(projection_shortcuts(backbone).state_dict()) == before
