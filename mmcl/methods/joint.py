"""Joint: all classes' training data at once, the upper bound of every table.

It keeps all data and so breaks every memory budget; no method with a budget is compared with it, only placed below it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from mmcl.config.schema import setting
from mmcl.memory.accounting import ByteReport
from mmcl.methods.class_incremental import ClassIncremental, ClassIncrementalConfig
from mmcl.protocol import Batch, ClassTask, Samples, Stage


@dataclass
class JointConfig(ClassIncrementalConfig):
    """Keys of joint training."""

    every_task: bool = setting("Retrain after every task for a whole curve; false trains once, in the last task.")


class Joint(ClassIncremental):
    """Trains afresh on everything seen, with the first task's schedule."""

    Config: ClassVar[type] = JointConfig

    def grow(self, task: ClassTask) -> None:
        """Begin with a fresh network for all seen classes, and count what it keeps: everything."""
        self.network = self.make_network().to(self.device)
        super().grow(task)
        parts = (task.past(), task.train)
        self.kept_images, self.kept_bytes = sum(map(len, parts)), sum(part.images.nbytes for part in parts)
        self.answers = self.config.every_task or task.index == self.ingredients.task_count - 1

    def begin_task(self, task: ClassTask) -> None:
        """Take nothing over: the upper bound trains afresh."""

    def first_task_weights(self) -> None:
        """Offer nothing: before the last task, nothing may be trained."""

    def stages(self, task: ClassTask) -> list[Stage]:
        """Train on all data seen, or not at all before the last task."""
        if not self.answers:
            return []
        return [Stage("representation", self.training_samples(task), self.config.first_task)]

    def training_samples(self, task: ClassTask) -> Samples:
        """Return the data of all tasks so far."""
        return Samples.concatenate([task.past(), task.train])

    def end_task(self, task: ClassTask) -> None:
        """Keep nothing in a memory: all data stays at hand."""

    def byte_report(self) -> ByteReport:
        """Count the network, and all data seen as its memory."""
        report = super().byte_report()
        paper_bytes = self.kept_images * self.ingredients.image_bytes
        return replace(report, exemplars=self.kept_images, memory_bytes=self.kept_bytes, paper_memory_bytes=paper_bytes)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the cross-entropy over all seen classes."""
        return {"classification": F.cross_entropy(self.network(batch.images).logits, batch.labels)}

    def scores(self, images: Tensor) -> dict[str, Tensor]:
        """Classify by the largest logit once trained; before, there is no answer."""
        return super().scores(images) if self.answers else {}
