"""One backbone and one classifier: the network of the methods that do not expand."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from mmcl.backbones.folding import FoldedEvaluation
from mmcl.backbones.freezing import restore_frozen_modes
from mmcl.backbones.heads import GrowingLinear
from mmcl.backbones.split import SplitBackbone


class PlainOutput(NamedTuple):
    """``logits`` ``(N, C)`` over all classes seen and ``features`` ``(N, D)``."""

    logits: Tensor
    features: Tensor


class PlainNetwork(nn.Module):
    """A backbone with a growing linear classifier, empty until the first :meth:`expand`."""

    def __init__(self, backbone: SplitBackbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = GrowingLinear(backbone.feature_dim)
        self._evaluate = FoldedEvaluation()

    def expand(self, classes: int) -> None:
        """Grow the classifier to ``classes`` rows in all; the old rows stay."""
        self.head.grow(classes)

    def forward(self, images: Tensor) -> PlainOutput:
        """Classify images ``(N, 3, H, W)``."""
        features = self._evaluate(self.backbone, images.contiguous(memory_format=torch.channels_last))
        return PlainOutput(self.head(features), features)

    def train(self, mode: bool = True) -> PlainNetwork:
        """Switch to train or eval mode; frozen parts stay in eval mode."""
        super().train(mode)
        restore_frozen_modes(self)
        return self
