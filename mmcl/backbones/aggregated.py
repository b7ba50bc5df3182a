"""The network of AANets: a stable and a plastic branch whose maps are mixed level by level.

Liu, Schiele, Sun, "Adaptive Aggregation Networks for Class-Incremental Learning", CVPR 2021.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from mmcl.backbones.cosine_head import CosineHead
from mmcl.backbones.cosine_network import CosineNetwork, CosineOutput
from mmcl.backbones.folding import FoldedEvaluation
from mmcl.backbones.freezing import freeze, is_frozen, restore_frozen_modes, unfreeze
from mmcl.backbones.scale_shift import merged, scale_and_shift
from mmcl.backbones.split import SplitBackbone
from mmcl.errors import UserError, nearest

# What trains of a branch: scales, shifts and batch norms; everything; nothing.
BRANCHES: dict[str, Callable[[SplitBackbone], SplitBackbone]] = {
    "scale_shift": lambda backbone: scale_and_shift(unfreeze(backbone)),
    "free": unfreeze,
    "fixed": freeze,
}


class AggregatedNetwork(nn.Module):
    """Two backbones of one architecture and one cosine classifier, made from one network by :meth:`of`.

    The maps behind level k are ``shares[k]`` times those of the stable branch plus ``1 - shares[k]`` times those of
    the plastic one, and both branches continue with them. Level 1 is applied to the images.

    Attributes:
        stable: backbone of which scales and shifts train, or as configured.
        plastic: backbone that trains, or as configured.
        shares: share of the stable branch behind each level ``(L,)``, 0.5 at first, unbounded.
        head: the classifier.
        fixed: names of the branches that do not train, but for the statistics of their batch norms.
    """

    def __init__(self, stable: SplitBackbone, plastic: SplitBackbone, head: CosineHead, fixed: tuple[str, ...]) -> None:
        super().__init__()
        self.stable = stable
        self.plastic = plastic
        self.head = head
        self.fixed = fixed
        # A list, not a ModuleList: the levels are made of the branches' own parts, which count once.
        self._levels = list(zip(stable.levels(), plastic.levels(), strict=True))
        self.shares = nn.Parameter(head.sigma.new_full((len(self._levels),), 0.5))
        self._evaluate = FoldedEvaluation()

    @classmethod
    def of(cls, network: CosineNetwork, stable: str = "scale_shift", plastic: str = "free") -> AggregatedNetwork:
        """Start both branches and the classifier from a network, which stays as it is.

        Args:
            network: trained on the first task.
            stable: what trains of the first branch: ``scale_shift``, ``free`` (everything) or ``fixed`` (nothing).
            plastic: the same of the second branch.

        Raises:
            UserError: for another word, or when both branches are fixed.
        """
        words = {"stable": stable, "plastic": plastic}
        for key, word in words.items():
            if word not in BRANCHES:
                hint = nearest(word, BRANCHES)
                raise UserError(f"method.aggregation.{key}={word}: expected one of {', '.join(BRANCHES)}.{hint}")
        fixed = tuple(key for key, word in words.items() if word == "fixed")
        if len(fixed) == len(words):
            raise UserError(
                "method.aggregation.stable=fixed and plastic=fixed: neither branch would learn. Type "
                "method.aggregation.plastic=free"
            )
        backbones = {key: BRANCHES[word](merged(network.backbone)) for key, word in words.items()}
        return cls(**backbones, head=copy.deepcopy(network.head), fixed=fixed).train(network.training)

    def expand(self, classes: int) -> None:
        """Grow the classifier to ``classes`` rows in all; the rows so far become the old ones."""
        self.head.expand(classes)

    def forward(self, images: Tensor) -> CosineOutput:
        """Classify images ``(N, 3, H, W)``."""
        maps = images.contiguous(memory_format=torch.channels_last)
        for (stable, plastic), share in zip(self._levels, self.shares, strict=True):
            of_plastic, of_stable = self._evaluate(plastic, maps), self._evaluate(stable, maps)
            maps = torch.lerp(of_plastic.float(), of_stable.float(), share)  # half precision would round shares away
        scores = self.head(maps)
        return CosineOutput(self.head.sigma * scores, scores, maps)

    def frozen_copy(self) -> AggregatedNetwork:
        """Return a copy as it is now, in eval mode, without gradients and with plain convolutions."""
        twin = AggregatedNetwork(merged(self.stable), merged(self.plastic), copy.deepcopy(self.head), ())
        with torch.no_grad():
            twin.shares.copy_(self.shares)
        return freeze(twin)

    def train(self, mode: bool = True) -> AggregatedNetwork:
        """Switch to train or eval mode; frozen parts stay in eval mode.

        The statistics of a fixed branch follow what the other branch makes of the maps, as long as that one trains.
        """
        super().train(mode)
        restore_frozen_modes(self)
        if not (is_frozen(self.stable) and is_frozen(self.plastic)):
            for name in self.fixed:
                self.get_submodule(name).train(mode)
        for level in (level for pair in self._levels for level in pair):
            level.training = all(part.training for part in level)
        return self
