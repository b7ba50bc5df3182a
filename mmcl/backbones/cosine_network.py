"""A backbone and a cosine classifier: the network of LUCIR (Hou et al., CVPR 2019) and Mnemonics."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from mmcl.backbones.cosine_head import CosineHead
from mmcl.backbones.folding import FoldedEvaluation
from mmcl.backbones.freezing import freeze, restore_frozen_modes
from mmcl.backbones.scale_shift import merged, scale_and_shift
from mmcl.backbones.split import SplitBackbone


class CosineOutput(NamedTuple):
    """``logits`` ``(N, C)``, sigma times the cosine ``scores`` ``(N, C)``, and ``features`` ``(N, D)``."""

    logits: Tensor
    scores: Tensor
    features: Tensor


class CosineNetwork(nn.Module):
    """A backbone with a growing cosine classifier, empty until the first :meth:`expand`."""

    def __init__(self, backbone: SplitBackbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = CosineHead(backbone.feature_dim)
        self._evaluate = FoldedEvaluation()

    def expand(self, classes: int) -> None:
        """Grow the classifier to ``classes`` rows in all; the rows so far become the old ones."""
        self.head.expand(classes)

    def transfer_weights(self) -> None:
        """Freeze the convolutions of the backbone and let scales and shifts train in their place, from now on."""
        scale_and_shift(self.backbone)
        self._evaluate = FoldedEvaluation()  # the fused views so far hold the plain convolutions, without scales

    def forward(self, images: Tensor) -> CosineOutput:
        """Classify images ``(N, 3, H, W)``."""
        features = self._evaluate(self.backbone, images.contiguous(memory_format=torch.channels_last))
        scores = self.head(features)
        return CosineOutput(self.head.sigma * scores, scores, features)

    def frozen_copy(self) -> CosineNetwork:
        """Return a copy as it is now, in eval mode, without gradients and with plain convolutions."""
        return freeze(merged(self))

    def train(self, mode: bool = True) -> CosineNetwork:
        """Switch to train or eval mode; frozen parts stay in eval mode."""
        super().train(mode)
        restore_frozen_modes(self)
        return self
