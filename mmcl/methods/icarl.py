"""iCaRL: replay, distillation from the previous network, and the nearest class mean as second readout.

Rebuffi, Kolesnikov, Sperl, Lampert, "iCaRL: Incremental Classifier and Representation Learning", CVPR 2017, in PyCIL's
form (cross-entropy and softened cross-entropy instead of binary ones), which the tables come from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from mmcl.config.schema import setting
from mmcl.methods.class_incremental import ClassIncrementalConfig, DistillationMethod
from mmcl.methods.losses import distillation_loss
from mmcl.protocol import Batch


@dataclass
class IcarlConfig(ClassIncrementalConfig):
    """Keys of iCaRL."""

    temperature: float = setting("Softening of old and new logits; 1 compares plain probabilities. PyCIL: 2.")


class Icarl(DistillationMethod):
    """Cross-entropy plus distillation with weight 1."""

    Config: ClassVar[type] = IcarlConfig

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return cross-entropy and, from the second task on, distillation."""
        logits = self.network(batch.images).logits
        losses = {"classification": F.cross_entropy(logits, batch.labels)}
        if self.known:
            losses["distillation"] = distillation_loss(logits, self.logits_old(batch.images), self.config.temperature)
        return losses
