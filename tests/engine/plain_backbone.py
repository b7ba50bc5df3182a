"""A backbone without batch normalisation, so that the number of processes leaves nothing to change the figures."""

from __future__ import annotations

from torch import nn

from mmcl.backbones.split import SplitBackbone


def make(width: int = 8, name: str = "plain") -> SplitBackbone:
    """Build two strided convolutions, one in the trunk and one in the branch."""
    trunk = nn.Sequential(nn.Conv2d(3, width, 3, stride=2), nn.ReLU())
    branch = nn.Sequential(nn.Conv2d(width, width, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
    return SplitBackbone(trunk, branch, 4 * width, name)
