"""ResNets for 32x32 images with projection shortcuts: the network of LUCIR, Mnemonics and AANets on CIFAR-100."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn
from torchvision.models.resnet import BasicBlock

from mmcl.backbones.cifar_resnet import blocks_per_stage
from mmcl.backbones.imagenet_resnet import initialise, residual_layer
from mmcl.backbones.split import SplitBackbone


def projection_resnet(depth: int, width: int = 16, name: str = "projection_resnet") -> SplitBackbone:
    """Build the ResNet of the given depth; the branch is ``layer3``, with ``feature_dim = 4 * width``.

    It is :func:`~mmcl.backbones.cifar_resnet.cifar_resnet` but for its shortcuts, a 1x1 convolution with batch norm
    where the shape changes (option B of He et al., CVPR 2016), and for its first weights, which follow ``fan_out``.

    Args:
        depth: ``6 k + 2`` layers, ``k`` blocks in each of three layers.
        width: channels of the first layer; 16 is the paper's.
        name: what configurations and byte tables call it.

    Raises:
        UserError: when the depth is not ``6 k + 2``.
    """
    blocks = blocks_per_stage(depth)
    trunk = nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(3, width, 3, padding=1, bias=False),
            bn1=nn.BatchNorm2d(width),
            relu=nn.ReLU(inplace=True),
            layer1=residual_layer(BasicBlock, width, width, 1, blocks),
            layer2=residual_layer(BasicBlock, width, 2 * width, 2, blocks),
        )
    )
    last_layer = residual_layer(BasicBlock, 2 * width, 4 * width, 2, blocks)
    branch = nn.Sequential(OrderedDict(layer3=last_layer, avgpool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten()))
    backbone = SplitBackbone(trunk, branch, 4 * width, name)
    backbone.apply(initialise)
    return backbone
