"""MEMO: one shared trunk, one specialised branch per task, one growing classifier over all branches.

Zhou, Wang, Ye, Zhan, "A Model or 603 Exemplars: Towards Memory-Efficient Class-Incremental Learning", ICLR 2023.
Shallow layers hardly change between tasks, so they are shared; the bytes saved against a whole network per task hold
exemplars.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from mmcl.backbones.expandable import ExpandableNetwork, load_plain
from mmcl.config.schema import setting
from mmcl.methods.class_incremental import ClassIncrementalConfig, ReplayMethod
from mmcl.methods.losses import expansion_losses
from mmcl.methods.wa import align_head
from mmcl.protocol import Batch, ClassTask, Stage


@dataclass
class ExpansionConfig(ClassIncrementalConfig):
    """Keys of methods that add a branch per task."""

    alpha_aux: float = setting("Weight of the auxiliary loss (new classes against all old ones); 0 is none. Paper: 1.")


@dataclass
class MemoConfig(ExpansionConfig):
    """Keys of MEMO."""

    train_base: bool = setting("Train the shared trunk after the first task. Paper: true below about 20 base classes.")
    train_adaptive: bool = setting("Train old branches, too. Paper: false.")


class ExpansionMethod(ReplayMethod):
    """A replay method whose network grows by a branch per task, with an auxiliary loss and weight aligning."""

    Config: ClassVar[type] = ExpansionConfig

    def begin_stage(self, stage: Stage, task: ClassTask) -> None:
        """Leave the auxiliary head out of the first task, where its loss does not exist."""
        super().begin_stage(stage, task)
        self.network.auxiliary_head.requires_grad_(task.index > 0)

    def load_first_task(self, weights: dict[str, Tensor]) -> None:
        """Spread a plain network over trunk, first branch and classifier."""
        load_plain(self.network, weights)

    def first_task_weights(self) -> None:
        """Offer nothing: a plain network could not take it."""

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return cross-entropy and, from the second task on, the auxiliary loss of the newest branch."""
        output = self.network(batch.images)
        return expansion_losses(output.logits, output.auxiliary_logits, batch.labels, self.known, self.config.alpha_aux)

    def end_stage(self, stage: Stage, task: ClassTask) -> None:
        """Align the new classes' weights."""
        align_head(self.network.head, task)


class Memo(ExpansionMethod):
    """Shares the trunk, adds a copy of the newest branch per task."""

    Config: ClassVar[type] = MemoConfig
    growth: ClassVar[str] = "memo"

    def make_network(self) -> nn.Module:
        """Build trunk and heads; branches come with the tasks."""
        return ExpandableNetwork(self.ingredients.make_backbone, self.config.train_base, self.config.train_adaptive)
