"""Backbones whose features have both signs: the last residual block ends without a ReLU.

Hou et al., "Learning a Unified Classifier Incrementally via Rebalancing", CVPR 2019 (LUCIR).
"""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from mmcl.backbones.cifar_resnet import CifarBlock, shortcut_without_parameters
from mmcl.backbones.projection_shortcuts import ProjectedBlock
from mmcl.backbones.split import SplitBackbone
from mmcl.errors import UserError


class SignedBasicBlock(nn.Module):
    """A torchvision ``BasicBlock``, or one of the same parts, without its final ReLU; names stay."""

    def __init__(self, block: BasicBlock | ProjectedBlock) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu = block.conv1, block.bn1, block.relu
        self.conv2, self.bn2 = block.conv2, block.bn2
        self.downsample = block.downsample

    def forward(self, maps: Tensor) -> Tensor:
        """Map ``(N, in_channels, H, W)`` to ``(N, channels, H / stride, W / stride)``."""
        residual = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(maps)))))
        shortcut = maps if self.downsample is None else self.downsample(maps)
        output: Tensor = residual + shortcut
        return output


class SignedCifarBlock(nn.Module):
    """A :class:`CifarBlock` without its final ReLU; it takes over the parts, under the same names."""

    def __init__(self, block: CifarBlock) -> None:
        super().__init__()
        self.conv1, self.bn1 = block.conv1, block.bn1
        self.conv2, self.bn2, self.relu = block.conv2, block.bn2, block.relu
        self.stride, self.new_channels = block.stride, block.new_channels

    def forward(self, maps: Tensor) -> Tensor:
        """Map ``(N, in_channels, H, W)`` to ``(N, channels, H / stride, W / stride)``."""
        residual = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(maps)))))
        output: Tensor = residual + shortcut_without_parameters(maps, self.stride, self.new_channels)
        return output


SIGNED: dict[type[nn.Module], type[SignedBasicBlock] | type[SignedCifarBlock]] = {
    BasicBlock: SignedBasicBlock,
    ProjectedBlock: SignedBasicBlock,
    CifarBlock: SignedCifarBlock,
}


def signed_features(backbone: SplitBackbone) -> SplitBackbone:
    """Take the final ReLU out of the last block, in place; names of parameters stay.

    Returns:
        The backbone. One whose features are signed already stays as it is.

    Raises:
        UserError: when its last block is neither a basic residual block nor a sequence with a ReLU.
    """
    if residual := _last(backbone, (*SIGNED, *SIGNED.values(), Bottleneck)):
        parent, name, block = residual
        if isinstance(block, tuple(SIGNED.values())):
            return backbone
        if type(block) in SIGNED:
            setattr(parent, name, SIGNED[type(block)](block).train(block.training))  # type: ignore[arg-type]
            return backbone
    elif rectifier := _last(backbone, (nn.ReLU, nn.Identity)):
        parent, name, _ = rectifier
        setattr(parent, name, nn.Identity().train(backbone.training))
        return backbone
    raise UserError(
        f"backbone={backbone.name}: a cosine classifier needs features of both signs, and its last block cannot go "
        "without its ReLU. Type backbone=resnet32 (images of 32x32) or backbone=resnet18 (of 224x224)"
    )


def _last(backbone: SplitBackbone, kinds: tuple[type[nn.Module], ...]) -> tuple[nn.Module, str, nn.Module] | None:
    """Return the last module of one of the kinds, with its parent and its name there."""
    found = [
        (parent, name, child)
        for parent in backbone.modules()
        for name, child in parent.named_children()
        if isinstance(child, kinds)
    ]
    return found[-1] if found else None
