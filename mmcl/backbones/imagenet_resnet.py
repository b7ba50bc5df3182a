"""ResNets for 224x224 images from torchvision's blocks, cut before ``layer4`` (He et al., CVPR 2016)."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, conv1x1

from mmcl.backbones.split import SplitBackbone
from mmcl.errors import UserError

BLOCKS: dict[str, type[BasicBlock] | type[Bottleneck]] = {"basic": BasicBlock, "bottleneck": Bottleneck}


def imagenet_resnet(block: str, blocks: list[int], width: int = 64, name: str = "imagenet_resnet") -> SplitBackbone:
    """Build a ResNet whose branch is ``layer4``; ``feature_dim`` is ``8 * width`` times the expansion.

    Args:
        block: ``basic`` (two 3x3 convolutions) or ``bottleneck`` (1x1, 3x3, 1x1, four times the channels).
        blocks: number of blocks in each of the four layers; [2, 2, 2, 2] of ``basic`` is ResNet-18.
        width: channels of the stem; 64 is the paper's.
        name: what configurations and byte tables call it.

    Raises:
        UserError: for an unknown block, or when there are not four layers.
    """
    if block not in BLOCKS:
        known = ", ".join(BLOCKS)
        raise UserError(f"backbone.block={block!r}: expected one of {known}. Type backbone.block=basic.")
    if len(blocks) != 4 or min(blocks) < 1:
        raise UserError(f"backbone.blocks={list(blocks)}: expected 4 counts. Type backbone.blocks=[2,2,2,2].")
    kind = BLOCKS[block]
    widths = [width, 2 * width, 4 * width, 8 * width]
    inputs = [width, *(kind.expansion * channels for channels in widths[:3])]
    layers = [residual_layer(kind, inputs[i], widths[i], stride=1 if i == 0 else 2, blocks=blocks[i]) for i in range(4)]
    trunk = nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False),
            bn1=nn.BatchNorm2d(width),
            relu=nn.ReLU(inplace=True),
            maxpool=nn.MaxPool2d(3, stride=2, padding=1),
            layer1=layers[0],
            layer2=layers[1],
            layer3=layers[2],
        )
    )
    branch = nn.Sequential(OrderedDict(layer4=layers[3], avgpool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten()))
    backbone = SplitBackbone(trunk, branch, widths[3] * kind.expansion, name)
    backbone.apply(initialise)
    return backbone


def residual_layer(
    kind: type[BasicBlock] | type[Bottleneck], in_channels: int, channels: int, stride: int, blocks: int
) -> nn.Sequential:
    """Return so many blocks of ``channels`` times the expansion; a 1x1 convolution leads past a change of shape."""
    out_channels = channels * kind.expansion
    downsample = None
    if stride != 1 or in_channels != out_channels:
        downsample = nn.Sequential(conv1x1(in_channels, out_channels, stride), nn.BatchNorm2d(out_channels))
    first = kind(in_channels, channels, stride, downsample)
    return nn.Sequential(first, *(kind(out_channels, channels) for _ in range(blocks - 1)))


def initialise(module: nn.Module) -> None:
    """Draw a convolution's weights for the variance of its outputs' gradients (He et al., ICCV 2015, fan-out)."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
