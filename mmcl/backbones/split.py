"""A backbone cut in two: a trunk that tasks may share and a branch that each task may copy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from torch import Tensor, nn

LEVEL = re.compile(r"(layer|stage|block)\d+")


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

    def levels(self) -> list[nn.Sequential]:
        """Cut the whole backbone behind each child named ``layerN``, ``stageN`` or ``blockN``.

        What comes before the first of them belongs to it, what comes behind the last to the last. The parts are those
        of the backbone, not copies: levels applied in turn compute what the backbone does.
        """
        parts = list(_parts(self))
        ends = [place + 1 for place, (name, _) in enumerate(parts) if LEVEL.fullmatch(name)]
        cuts = [0, *ends[:-1], len(parts)]
        modules = [part for _, part in parts]
        return [nn.Sequential(*modules[start:stop]) for start, stop in pairwise(cuts)]


def _parts(backbone: SplitBackbone) -> Iterator[tuple[str, nn.Module]]:
    for name, part in backbone.named_children():
        if isinstance(part, SplitBackbone):
            yield from _parts(part)
        elif isinstance(part, nn.Sequential):
            yield from part.named_children()
        else:
            yield name, part


def unshared(backbone: SplitBackbone) -> SplitBackbone:
    """Move the cut before the first layer: the trunk is empty and the branch is the whole backbone."""
    return SplitBackbone(nn.Identity(), backbone, backbone.feature_dim, backbone.name)
