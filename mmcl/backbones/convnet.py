"""Plain convolutional networks, cut before the last block: ConvNet2 (32x32) and ConvNet4 (224x224)."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from mmcl.backbones.split import SplitBackbone


def convnet2(width: int = 64, name: str = "conv2") -> SplitBackbone:
    """Build two blocks of ``width`` channels for small images; ``feature_dim = width``."""
    trunk = nn.Sequential(OrderedDict(block1=_block(3, width)))
    return SplitBackbone(trunk, _branch("block2", _block(width, width)), width, name)


def convnet4(width: int = 128, name: str = "conv4") -> SplitBackbone:
    """Build four blocks for large images, the last of ``4 * width`` channels; ``feature_dim = 4 * width``."""
    trunk = nn.Sequential(
        OrderedDict(
            block1=_block(3, width, kernel=7, stride=2),
            block2=_block(width, width),
            block3=_block(width, width),
        )
    )
    return SplitBackbone(trunk, _branch("block4", _block(width, 4 * width)), 4 * width, name)


def _block(in_channels: int, channels: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, kernel, stride, padding=kernel // 2),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
    )


def _branch(block_name: str, block: nn.Module) -> nn.Sequential:
    layers = [(block_name, block), ("pool", nn.AdaptiveAvgPool2d(1)), ("flatten", nn.Flatten())]
    return nn.Sequential(OrderedDict(layers))
