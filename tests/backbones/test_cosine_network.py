from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from mmcl.backbones import trainable_parameters
from mmcl.backbones.cosine_network import CosineNetwork
from mmcl.backbones.folding import MAPS_AT_ONCE
from mmcl.backbones.imagenet_resnet import imagenet_resnet
from mmcl.backbones.projection_resnet import projection_resnet
from mmcl.backbones.scale_shift import ScaleShiftConv2d
from mmcl.backbones.signed_features import signed_features


def made(*classes: int, transfer: bool = False) -> CosineNetwork:
    torch.manual_seed(0)
    network = CosineNetwork(signed_features(projection_resnet(8, width=4)))
    for seen in classes:
        network.expand(seen)
    if transfer:
        network.transfer_weights()
        for module in network.modules():
            if isinstance(module, ScaleShiftConv2d):
                nn.init.uniform_(module.scale, 0.5, 1.5)
    return network.eval()


def images(count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(count))


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def trained(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in trainable_parameters(network))


def test_the_counts_are_those_of_the_papers_networks() -> None:
    """ResNet-32 and ResNet-18 with 50 classes; with weight transfer, what trains of them."""
    for backbone, plain, transferred in (
        (projection_resnet(32), 469_457, 59_473),
        (imagenet_resnet("basic", [2, 2, 2, 2]), 11_202_113, 1_428_033),
    ):
        network = CosineNetwork(signed_features(backbone))
        network.expand(50)
        assert count(network) == trained(network) == plain
        network.transfer_weights()
        assert trained(network) == transferred
        scales = sum(part.scale.numel() for part in network.modules() if isinstance(part, ScaleShiftConv2d))
        assert count(network) == plain + scales
        if plain == 469_457:
            assert scales == 53_808


def test_logits_are_scaled_cosines_and_old_ones_stay() -> None:
    network = made(3)
    nn.init.constant_(network.head.sigma, 2.5)
    before = network(images())
    assert before.features.shape == (2, 16)
    torch.testing.assert_close(before.logits, 2.5 * before.scores)
    network.expand(5)
    after = network(images())
    assert after.logits.shape == (2, 5)
    torch.testing.assert_close(after.logits[:, :3], before.logits)


def test_weight_transfer_begins_as_the_network_is() -> None:
    network = made(3)
    before = network(images())
    network.transfer_weights()
    torch.testing.assert_close(network(images()), before)


@pytest.mark.parametrize("transfer", [False, True])
@pytest.mark.parametrize("number", [2, MAPS_AT_ONCE + 3])
def test_a_frozen_copy_agrees_and_stays_as_it_was(transfer: bool, number: int) -> None:
    network = made(3, transfer=transfer)
    reference = network.frozen_copy()
    with torch.no_grad():
        expected = [tensor.clone() for tensor in network(images(number))]
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    network.expand(5)
    actual = reference.train()(images(number))
    for ours, theirs in zip(actual, expected, strict=True):
        assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()
    assert not any(module.training or isinstance(module, ScaleShiftConv2d) for module in reference.modules())
    assert not any(parameter.requires_grad for parameter in reference.parameters())


def test_statistics_follow_while_scales_train() -> None:
    network = made(3, transfer=True).train()
    before = network.backbone.trunk.bn1.running_mean.clone()
    network(images()).logits.sum().backward()
    assert not torch.equal(network.backbone.trunk.bn1.running_mean, before)
    assert network.backbone.trunk.conv1.scale.grad is not None
    assert network.backbone.trunk.conv1.weight.grad is None


@pytest.mark.parametrize("classes", [(3,), (3, 5), (3, 5, 9)])
@pytest.mark.parametrize("transfer", [False, True])
def test_state_and_copies_round_trip(classes: tuple[int, ...], transfer: bool) -> None:
    network = made(*classes, transfer=transfer)
    torch.manual_seed(1)
    fresh = CosineNetwork(signed_features(projection_resnet(8, width=4)))
    for seen in classes:
        fresh.expand(seen)
    if transfer:
        fresh.transfer_weights()
    fresh.load_state_dict(network.state_dict())
    for same in (fresh.eval(), copy.deepcopy(network)):
        torch.testing.assert_close(same(images()), network(images()))
        assert trained(same) == trained(network)
