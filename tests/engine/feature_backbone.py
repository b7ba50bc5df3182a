"""A small pre-trained network without batch normalisation, so that the number of processes leaves the figures alone."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mmcl.backbones.feature_backbone import FeatureBackbone, PretrainedBackbone
from mmcl.config.schema import ComponentConfig

DIMENSION = 16


class SmallNetwork(FeatureBackbone):
    """A strided convolution and a linear layer."""

    def __init__(self) -> None:
        super().__init__(DIMENSION)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            convolution = nn.Conv2d(3, 8, 4, stride=4)
            self.layers = nn.Sequential(convolution, nn.ReLU(), nn.Flatten(), nn.Linear(8 * 8 * 8, DIMENSION))

    def forward(self, images: Tensor) -> Tensor:
        """Return features ``(B, 16)``."""
        features: Tensor = self.layers(images)
        return features


class SmallBackbone(PretrainedBackbone):
    """What a configuration names."""

    Config: ClassVar[type[ComponentConfig]] = ComponentConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)

    def load(self) -> SmallNetwork:
        """Build the network."""
        return SmallNetwork()
