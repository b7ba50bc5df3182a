"""Shortcuts with parameters for CIFAR ResNets: a 1x1 convolution with batch norm wherever the shape changes.

Option B of He et al., CVPR 2016, which LUCIR's and Mnemonics' code has where most others have option A.
"""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models.resnet import conv1x1

from mmcl.backbones.cifar_resnet import CifarBlock
from mmcl.backbones.imagenet_resnet import initialise
from mmcl.backbones.split import SplitBackbone


class ProjectedBlock(nn.Module):
    """A :class:`CifarBlock` whose shortcut has parameters; it takes over the rest, under the same names."""

    def __init__(self, block: CifarBlock) -> None:
        super().__init__()
        self.conv1, self.bn1 = block.conv1, block.bn1
        self.conv2, self.bn2, self.relu = block.conv2, block.bn2, block.relu
        channels = block.conv2.out_channels
        self.downsample = nn.Sequential(
            conv1x1(block.conv1.in_channels, channels, block.stride), nn.BatchNorm2d(channels)
        )
        self.downsample.apply(initialise)

    def forward(self, maps: Tensor) -> Tensor:
        """Map ``(N, in_channels, H, W)`` to ``(N, channels, H / stride, W / stride)``."""
        residual = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(maps)))))
        output: Tensor = self.relu(residual + self.downsample(maps))
        return output


def projection_shortcuts(backbone: SplitBackbone) -> SplitBackbone:
    """Give every block that changes the shape of its maps a shortcut with parameters, in place.

    Returns:
        The backbone; one without a :class:`CifarBlock` stays as it is.
    """
    changing = [
        (parent, name, child)
        for parent in backbone.modules()
        for name, child in parent.named_children()
        if isinstance(child, CifarBlock) and (child.stride > 1 or child.new_channels)
    ]
    for parent, name, block in changing:
        setattr(parent, name, ProjectedBlock(block).train(block.training))
    return backbone
