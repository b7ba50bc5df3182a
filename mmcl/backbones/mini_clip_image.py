"""The image tower of the mini CLIP as a feature backbone: pre-trained on the shapes world, shipped with the package."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mmcl.backbones.feature_backbone import FeatureBackbone, PretrainedBackbone
from mmcl.backbones.final_norm import FRESH, check_final_norm, fresh_norm
from mmcl.backbones.freezing import unfreeze
from mmcl.backbones.mini_clip import SHIPPED_WEIGHTS, MiniClip, MiniClipConfig
from mmcl.config.schema import setting


@dataclass
class MiniClipImageConfig(MiniClipConfig):
    """Keys of the mini CLIP's image tower."""

    final_norm: str = setting("fresh: a layer norm behind the tower, features of length 8; kept: as CLIP has them.")

    def __post_init__(self) -> None:
        """Refuse other norms."""
        check_final_norm(self.final_norm)


class ImageTower(FeatureBackbone):
    """The image side of a CLIP model.

    Args:
        tower: from normalised images ``(B, 3, H, W)`` to features ``(B, D)``.
        norm: stands behind it.
        dimension: length D of a feature.
    """

    def __init__(self, tower: Any, norm: nn.Module, dimension: int) -> None:
        super().__init__(dimension)
        self.tower = tower
        self.norm = norm

    def forward(self, images: Tensor) -> Tensor:
        """Return the features ``(B, D)`` of images ``(B, 3, H, W)``."""
        features: Tensor = self.norm(self.tower(images.contiguous(memory_format=torch.channels_last)))
        return features


class MiniClipImage(PretrainedBackbone):
    """The mini CLIP's ResNet with attention pooling: 32x32 images, 64 features.

    Raises:
        UserError: the weights file is not there.
    """

    Config: ClassVar[type[MiniClipImageConfig]] = MiniClipImageConfig
    shipped_files: ClassVar[dict[str, Path]] = {"weights": SHIPPED_WEIGHTS}

    def __init__(self, config: MiniClipImageConfig) -> None:
        super().__init__(config)
        self._both_sides = MiniClip(config)

    def load(self) -> ImageTower:
        """Read the weights.

        Raises:
            UserError: the file is damaged or not of a mini CLIP.
        """
        # The random initialisation is overwritten; the run's own draws shall not notice it.
        with torch.random.fork_rng(devices=[]):
            encoder = self._both_sides.load()
        dimension = encoder.dimension
        norm = fresh_norm(dimension) if self.config.final_norm == FRESH else nn.Identity()
        return ImageTower(unfreeze(encoder.model.visual), norm, dimension)
