"""iCaRL: replay, distillation from the previous network, and the nearest class mean as second readout.

Rebuffi, Kolesnikov, Sperl, Lampert, "iCaRL: Incremental Classifier and Representation Learning", CVPR 2017, in PyCIL's
form (cross-entropy and softened cross-entropy instead of binary ones), which the tables come from.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from mmcl.methods.class_incremental import DistillationMethod
from mmcl.methods.losses import distillation_loss
from mmcl.protocol import Batch


class Icarl(DistillationMethod):
    """Cross-entropy over all seen classes, plus distillation of the old ones with weight 1."""

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return cross-entropy and, from the second task on, distillation."""
        logits = self.network(batch.images).logits
        losses = {"classification": F.cross_entropy(logits, batch.labels)}
        if self.known:
            losses["distillation"] = distillation_loss(logits, self.logits_old(batch.images), self.config.temperature)
        return losses
