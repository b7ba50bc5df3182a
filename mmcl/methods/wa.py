"""WA: replay, distillation, and weight aligning of the classifier after each task.

Zhao, Xiao, Gan, Zhang, Xia, "Maintaining Discrimination and Fairness in Class Incremental Learning", CVPR 2020, with
PyCIL's settings.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmcl.backbones.heads import GrowingLinear, align_weights
from mmcl.methods.class_incremental import DistillationMethod
from mmcl.methods.losses import weighted_distillation_losses
from mmcl.protocol import Batch, ClassTask, Stage


class Wa(DistillationMethod):
    """Cross-entropy and distillation, weighted by the shares of new and old classes; then rows of equal mean norm."""

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return cross-entropy and, from the second task on, distillation, weighted by the share of old classes."""
        logits = self.network(batch.images).logits
        if not self.known:
            return {"classification": F.cross_entropy(logits, batch.labels)}
        logits_old = self.logits_old(batch.images)
        return weighted_distillation_losses(logits, logits_old, batch.labels, self.config.temperature)

    def end_stage(self, stage: Stage, task: ClassTask) -> None:
        """Align the new classes' weights."""
        align_head(self.network.head, task)


@torch.no_grad()
def align_head(head: GrowingLinear, task: ClassTask) -> None:
    """Align the rows of a task's new classes with the old ones; the first task has nothing to align with."""
    if task.known:
        head.weight.copy_(align_weights(head.weight, task.size)[0])
