from __future__ import annotations

import pytest
import torch
from torch import nn

from mmcl.backbones import freeze
from mmcl.backbones.folding import FoldedEvaluation
from mmcl.backbones.projection_resnet import projection_resnet
from mmcl.errors import UserError


def test_the_names_are_those_of_torchvision() -> None:
    backbone = projection_resnet(8, width=4)
    assert [name for name, _ in backbone.trunk.named_children()] == ["conv1", "bn1", "relu", "layer1", "layer2"]
    assert [name for name, _ in backbone.branch.named_children()] == ["layer3", "avgpool", "flatten"]
    assert [name for name in backbone.state_dict() if "downsample.0" in name] == [
        "trunk.layer2.0.downsample.0.weight",
        "branch.layer3.0.downsample.0.weight",
    ]


def test_features_are_pooled_maps_of_an_eighth() -> None:
    backbone = projection_resnet(14, width=4)
    images = torch.randn(2, 3, 32, 32)
    assert backbone.trunk(images).shape == (2, 8, 16, 16)
    assert backbone.branch.layer3(backbone.trunk(images)).shape == (2, 16, 8, 8)
    assert backbone(images).shape == (2, backbone.feature_dim)


def test_weights_begin_with_the_variance_of_the_outputs() -> None:
    torch.manual_seed(0)
    backbone = projection_resnet(8)
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 2000:
            expected = (2 / (module.out_channels * module.kernel_size[0] ** 2)) ** 0.5
            assert module.weight.std().item() == pytest.approx(expected, rel=0.05)


def test_a_frozen_one_is_fused_within_tolerance() -> None:
    backbone, images = freeze(projection_resnet(14, width=8)), torch.randn(70, 3, 32, 32)
    expected = backbone(images)
    assert (FoldedEvaluation()(backbone, images) - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("depth", [7, 15, 2])
def test_wrong_depth_says_what_to_type(depth: int) -> None:
    with pytest.raises(UserError, match=r"Type backbone\.depth=32"):
        projection_resnet(depth)
