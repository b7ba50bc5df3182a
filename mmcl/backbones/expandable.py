"""The network of MEMO: one shared trunk, one branch per task (Zhou et al., ICLR 2023).

DER (Yan et al., CVPR 2021) is this network with an empty trunk, see :func:`~mmcl.backbones.split.unshared`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mmcl.backbones.folding import FoldedEvaluation
from mmcl.backbones.freezing import freeze, restore_frozen_modes, unfreeze
from mmcl.backbones.heads import GrowingLinear
from mmcl.backbones.split import SplitBackbone


class ExpandableOutput(NamedTuple):
    """What an expandable network returns after T tasks.

    ``logits`` ``(N, C)`` over all classes seen; ``auxiliary_logits`` ``(N, n + 1)``: 0 for old classes, then
    the n new; ``features`` ``(N, T * D)`` of all branches in task order; ``base``: the trunk's map.
    """

    logits: Tensor
    auxiliary_logits: Tensor
    features: Tensor
    base: Tensor


class ExpandableNetwork(nn.Module):
    """A trunk, one branch per task, a classifier on all branches and an auxiliary one on the newest.

    Args:
        make_backbone: builds a fresh backbone; asked once for the trunk and once for the first branch.
        train_base: whether the trunk trains after the first task. False freezes it.
        train_adaptive: whether branches train after their own task. False freezes them.

    Attributes:
        feature_dim: number of features of one branch, D.
        task_sizes: new classes of each task so far.
    """

    def __init__(self, make_backbone: Callable[[], SplitBackbone], train_base: bool, train_adaptive: bool) -> None:
        super().__init__()
        backbone = make_backbone()
        self.make_backbone = make_backbone
        self.train_base = train_base
        self.train_adaptive = train_adaptive
        self.feature_dim = backbone.feature_dim
        self.task_sizes: list[int] = []
        self.trunk = backbone.trunk
        self.branches = nn.ModuleList()
        self.head = GrowingLinear()
        self.auxiliary_head = GrowingLinear(self.feature_dim, 1)
        self._evaluate = FoldedEvaluation()

    def expand(self, classes: int) -> None:
        """Add a branch and grow the classifier to ``classes`` in all. Call at the start of each task.

        The new branch is a copy of the newest, buffers included; the auxiliary classifier is drawn afresh.
        """
        device = self.auxiliary_head.weight.device
        new_classes = classes - sum(self.task_sizes)
        if self.branches:
            self._add_copy_of_newest_branch()
        else:
            self.branches.append(self.make_backbone().branch.to(device))
        self.head.grow(classes, self.feature_dim * len(self.branches))
        self.auxiliary_head = GrowingLinear(self.feature_dim, new_classes + 1).to(device)
        self.task_sizes.append(new_classes)

    def _add_copy_of_newest_branch(self) -> None:
        newest = unfreeze(copy.deepcopy(self.branches[-1]))
        if not self.train_base:
            freeze(self.trunk)
        if not self.train_adaptive:
            freeze(self.branches)
        self.branches.append(newest)

    def forward(self, images: Tensor) -> ExpandableOutput:
        """Classify images ``(N, 3, H, W)``."""
        base = self._evaluate(self.trunk, images.contiguous(memory_format=torch.channels_last))
        parts = [self._evaluate(branch, base) for branch in self.branches]
        features = torch.cat(parts, dim=1)
        return ExpandableOutput(self.head(features), self.auxiliary_head(parts[-1]), features, base)

    def train(self, mode: bool = True) -> ExpandableNetwork:
        """Switch to train or eval mode; frozen parts stay in eval mode."""
        super().train(mode)
        restore_frozen_modes(self)
        return self


def load_plain(network: ExpandableNetwork, state: Mapping[str, Tensor]) -> None:
    """Start an expandable network from a plain one trained on the same first task.

    Args:
        network: expanded once; its trunk, first branch and classifier are overwritten.
        state: ``state_dict()`` of a :class:`mmcl.backbones.plain.PlainNetwork` of the same architecture.

    Raises:
        RuntimeError: when a tensor is missing, left over or of another shape; nothing is skipped.
    """
    if len(network.branches) != 1:
        raise ValueError(f"a plain network fits one branch, and this network has {len(network.branches)}")
    (branch,) = network.branches
    # A branch that is a whole backbone (DER) takes the plain one as it is; a cut one takes its part.
    whole = isinstance(branch, SplitBackbone)
    backbone = branch if whole else SplitBackbone(network.trunk, branch, network.feature_dim, "")
    nn.ModuleDict({"backbone": backbone, "head": network.head}).load_state_dict(dict(state))
