"""Pre-trained networks from images to features, whole: no cut into trunk and branch, no head."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Tensor, nn

from mmcl.config.schema import ComponentConfig


class FeatureBackbone(nn.Module, ABC):
    """A network from images to features, with its weights. It trains unless it is frozen.

    Args:
        dimension: length D of a feature.
    """

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.dimension = dimension

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Return the features ``(B, D)`` of normalised images, float32 ``(B, 3, H, W)``."""


class Identity(FeatureBackbone):
    """Features that were computed before: ``(B, D)`` in, the same out, no parameters."""

    def forward(self, images: Tensor) -> Tensor:
        """Return what it is given."""
        return images


class PretrainedBackbone(ABC):
    """What a configuration names: a feature backbone that is cheap to make and reads its weights in :meth:`load`.

    Args:
        config: the backbone's keys.

    Raises:
        UserError: no such architecture or weights, or no such file; nothing is read yet.
    """

    Config: ClassVar[type[ComponentConfig]] = ComponentConfig

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def load(self) -> FeatureBackbone:
        """Build the network with its weights: float32, on the CPU, not frozen; a new one at each call.

        Raises:
            UserError: the weights cannot be fetched or read, or are another network's.
        """
