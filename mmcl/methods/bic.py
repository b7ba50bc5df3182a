"""BiC: replay, distillation, and a scale and shift of each task's logits, fitted on a held-out part of data and memory.

Wu, Chen, Wang, Ye, Liu, Guo, Fu, "Large Scale Incremental Learning", CVPR 2019, with PyCIL's settings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcl.backbones.freezing import freeze, unfreeze
from mmcl.config.schema import setting
from mmcl.methods.class_incremental import ClassIncrementalIngredients, DistillationConfig, DistillationMethod
from mmcl.methods.losses import corrected_logits, weighted_distillation_losses
from mmcl.protocol import Batch, ClassTask, Stage
from mmcl.randomness import permutation


@dataclass
class BicConfig(DistillationConfig):
    """Keys of BiC."""

    held_out: float = setting("Share of a class's part of the memory that is held out for the bias stage. PyCIL: 0.1.")


class Bic(DistillationMethod):
    """Two stages per task: the representation, then two numbers that undo the bias towards new classes."""

    Config: ClassVar[type] = BicConfig

    def __init__(self, config: BicConfig, ingredients: ClassIncrementalIngredients) -> None:
        super().__init__(config, ingredients)
        self.corrections = nn.ParameterList()
        self.boundaries = [0]

    def grow(self, task: ClassTask) -> None:
        """Add the identity correction of the new classes; earlier corrections stay as they were fitted."""
        super().grow(task)
        self.corrections.requires_grad_(False)
        self.corrections.append(nn.Parameter(torch.tensor([1.0, 0.0], device=self.device), requires_grad=False))
        self.boundaries.append(task.seen)

    def stages(self, task: ClassTask) -> list[Stage]:
        """Train the representation on what is not held out, then the newest correction on what is."""
        if task.index == 0:
            return super().stages(task)
        held_out = self._held_out(task)
        everything = self.training_samples(task)
        stages = [Stage("representation", everything.select(~held_out), self.config.later_tasks)]
        if held_out.any():
            stages.append(Stage("bias", everything.select(held_out), self.config.later_tasks))
        return stages

    def begin_stage(self, stage: Stage, task: ClassTask) -> None:
        """Train either the network or the newest correction."""
        super().begin_stage(stage, task)
        fits_bias = stage.name == "bias"
        freeze(self.network) if fits_bias else unfreeze(self.network)
        self.corrections[-1].requires_grad_(fits_bias)

    def end_stage(self, stage: Stage, task: ClassTask) -> None:
        """Leave network and corrections as the next task expects them."""
        unfreeze(self.network)
        self.corrections.requires_grad_(False)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the losses of the current stage."""
        logits = self._corrected(self.network(batch.images).logits)
        assert self.stage is not None
        if self.stage.name == "bias":
            # PyCIL applies the softmax twice; its tables come from that.
            return {"classification": F.cross_entropy(logits.softmax(dim=1), batch.labels)}
        if not self.known:
            return {"classification": F.cross_entropy(logits, batch.labels)}
        logits_old = self.logits_old(batch.images)
        return weighted_distillation_losses(logits, logits_old, batch.labels, self.config.temperature)

    def scores(self, images: Tensor) -> dict[str, Tensor]:
        """Classify by corrected logits (``cnn``) and by the nearest class mean (``nme``)."""
        scores = super().scores(images)
        return {**scores, "cnn": self._corrected(scores["cnn"])}

    @torch.no_grad()
    def logits_old(self, images: Tensor) -> Tensor:
        """Return the teacher's logits with the corrections of its time."""
        return self._corrected(super().logits_old(images))

    def _corrected(self, logits: Tensor) -> Tensor:
        boundaries = [boundary for boundary in self.boundaries if boundary <= logits.shape[1]]
        scales, shifts = torch.stack(list(self.corrections)[: len(boundaries) - 1]).unbind(dim=1)
        return corrected_logits(logits, scales, shifts, boundaries)

    def _held_out(self, task: ClassTask) -> Tensor:
        """Mark the same number of samples of every class, new and old, bool ``(N,)``."""
        samples = self.training_samples(task)
        marked = torch.zeros(len(samples), dtype=torch.bool)
        share = self.ingredients.quota.per_class(task.known)
        for label in range(task.seen):
            rows = (samples.labels == label).nonzero().flatten()
            order = permutation(len(rows), self.ingredients.seed, task.index, "held out", label)
            marked[rows[order[: int(self.config.held_out * share)]]] = True
        return marked
