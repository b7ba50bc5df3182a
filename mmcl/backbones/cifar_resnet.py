"""ResNets for 32x32 images, cut before the last stage (He et al., CVPR 2016, section 4.2)."""

from __future__ import annotations

import math
from collections import OrderedDict

from torch import Tensor, nn
from torch.nn import functional

from mmcl.backbones.split import SplitBackbone
from mmcl.errors import UserError


class CifarBlock(nn.Module):
    """Two 3x3 convolutions; a shortcut without parameters (option A): every second pixel, zero channels."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.stride = stride
        self.new_channels = channels - in_channels

    def forward(self, maps: Tensor) -> Tensor:
        """Map ``(N, in_channels, H, W)`` to ``(N, channels, H / stride, W / stride)``."""
        residual = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(maps)))))
        output: Tensor = self.relu(residual + shortcut_without_parameters(maps, self.stride, self.new_channels))
        return output


def shortcut_without_parameters(maps: Tensor, stride: int, new_channels: int) -> Tensor:
    """Take every ``stride``-th pixel of maps ``(N, C, H, W)`` and append ``new_channels`` of zeros."""
    if stride > 1:
        maps = maps[:, :, ::stride, ::stride]
    return functional.pad(maps, (0, 0, 0, 0, 0, new_channels)) if new_channels > 0 else maps


def cifar_resnet(depth: int, width: int = 16, name: str = "cifar_resnet") -> SplitBackbone:
    """Build the ResNet of the given depth; the branch is its last stage, with ``feature_dim = 4 * width``.

    Args:
        depth: ``6 k + 2`` layers, ``k`` blocks in each of three stages.
        width: channels of the first stage; 16 is the paper's.
        name: what configurations and byte tables call it.

    Raises:
        UserError: when the depth is not ``6 k + 2``.
    """
    blocks = blocks_per_stage(depth)
    stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
    trunk = nn.Sequential(
        OrderedDict(stem=stem, stage1=_stage(width, width, 1, blocks), stage2=_stage(width, 2 * width, 2, blocks))
    )
    last_stage = _stage(2 * width, 4 * width, 2, blocks)
    branch = nn.Sequential(OrderedDict(stage3=last_stage, pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten()))
    backbone = SplitBackbone(trunk, branch, 4 * width, name)
    backbone.apply(_initialise)
    return backbone


def blocks_per_stage(depth: int) -> int:
    """Return how many blocks each of three stages has in a network of ``depth`` layers.

    Raises:
        UserError: when the depth is not ``6 k + 2``.
    """
    if depth < 8 or depth % 6 != 2:
        raise UserError(f"backbone.depth={depth}: expected 6k+2, such as 14, 20 or 32. Type backbone.depth=32.")
    return (depth - 2) // 6


def _stage(in_channels: int, channels: int, stride: int, blocks: int) -> nn.Sequential:
    first = CifarBlock(in_channels, channels, stride)
    return nn.Sequential(first, *(CifarBlock(channels, channels, 1) for _ in range(blocks - 1)))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        height, width = module.kernel_size
        nn.init.normal_(module.weight, std=math.sqrt(2.0 / (height * width * module.out_channels)))
