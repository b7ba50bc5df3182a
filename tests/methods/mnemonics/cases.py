"""A small network with statistics of its own, exemplars and queries."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mmcl.backbones.cosine_network import CosineNetwork
from mmcl.backbones.projection_resnet import projection_resnet
from mmcl.backbones.signed_features import signed_features

CLASSES, SIDE = 4, 8


class Case(NamedTuple):
    exemplars: Tensor
    labels: Tensor
    queries: Tensor
    query_labels: Tensor


def network(scales: bool = False, dtype: torch.dtype = torch.float32) -> CosineNetwork:
    """Return a network of two old and two new classes in eval mode, with or without scales and shifts."""
    torch.manual_seed(0)
    made = CosineNetwork(signed_features(projection_resnet(8, width=4)))
    made.expand(2)
    made.expand(CLASSES)
    if scales:
        made.transfer_weights()
    made(torch.randn(32, 3, SIDE, SIDE))
    torch.nn.init.constant_(made.head.sigma, 4.0)
    return made.eval().to(dtype)


def case(dtype: torch.dtype = torch.float32, exemplars: int = 8) -> Case:
    draw = torch.Generator().manual_seed(1)
    images = torch.randn(exemplars + 6, 3, SIDE, SIDE, generator=draw, dtype=dtype)
    labels = torch.arange(exemplars + 6) % CLASSES
    return Case(images[:exemplars].requires_grad_(), labels[:exemplars], images[exemplars:], labels[exemplars:])


def apart(actual: Tensor, expected: Tensor) -> float:
    """Return the largest difference, relative to the largest expected magnitude."""
    return float((actual - expected).abs().max() / expected.abs().max())
