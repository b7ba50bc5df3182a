"""Finetune: train on each task's data alone, keep nothing. The lower bound of every table.

Reference: the finetune baseline of PyCIL and of "Class-Incremental Learning: A Survey" (Zhou et al., TPAMI 2024).
"""

from __future__ import annotations

from torch import Tensor

from mmcl.methods.class_incremental import ClassIncremental
from mmcl.methods.losses import new_class_loss
from mmcl.protocol import Batch


class Finetune(ClassIncremental):
    """No memory; cross-entropy over the new classes' logits, so that old classes get no negative evidence."""

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the cross-entropy over new classes."""
        return {"classification": new_class_loss(self.network(batch.images).logits, batch.labels, self.known)}
