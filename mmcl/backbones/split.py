"""A backbone cut in two: a trunk that tasks may share and a branch that each task may copy."""

from __future__ import annotations

from torch import Tensor, nn


class SplitBackbone(nn.Module):
    """A feature extractor cut into a generalized trunk and a specialized branch.

    Any cut of any architecture is a pair of modules; the plain network is the same object, no second class.

    Attributes:
        trunk: images float32 ``(N, 3, H, W)`` to the base map.
        branch: base map to features ``(N, feature_dim)``.
        feature_dim: number of features.
        name: what configurations and byte tables call the architecture.
    """

    def __init__(self, trunk: nn.Module, branch: nn.Module, feature_dim: int, name: str) -> None:
        super().__init__()
        self.trunk = trunk
        self.branch = branch
        self.feature_dim = feature_dim
        self.name = name

    def forward(self, images: Tensor) -> Tensor:
        """Return the features ``(N, feature_dim)`` of images ``(N, 3, H, W)``."""
        features: Tensor = self.branch(self.trunk(images))
        return features


def unshared(backbone: SplitBackbone) -> SplitBackbone:
    """Move the cut before the first layer: the trunk is empty and the branch is the whole backbone."""
    return SplitBackbone(nn.Identity(), backbone, backbone.feature_dim, backbone.name)
