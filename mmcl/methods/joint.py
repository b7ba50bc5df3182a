"""Joint: all classes' training data at once, the upper bound of every table.

It keeps all data and so breaks every memory budget; no method with a budget is compared with it, only placed below it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from mmcl.config.schema import setting
from mmcl.methods.class_incremental import ClassIncremental, ClassIncrementalConfig
from mmcl.protocol import Batch, Samples, Stage, Task


@dataclass
class JointConfig(ClassIncrementalConfig):
    """Keys of joint training."""

    every_task: bool = setting("Retrain after every task for a whole curve; false trains once, in the last task.")


class Joint(ClassIncremental):
    """Trains afresh on everything seen, with the first task's schedule."""

    Config: ClassVar[type] = JointConfig

    def grow(self, task: Task) -> None:
        """Begin with a fresh network for all seen classes."""
        self.network = self.make_network().to(self.device)
        super().grow(task)
        self.answers = self.config.every_task or task.index == self.ingredients.task_count - 1

    def stages(self, task: Task) -> list[Stage]:
        """Train on all data seen, or not at all before the last task."""
        if not self.answers:
            return []
        return [Stage("representation", self.training_samples(task), self.config.first_task)]

    def training_samples(self, task: Task) -> Samples:
        """Return the data of all tasks so far."""
        return Samples.concatenate([task.past(), task.train])

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the cross-entropy over all seen classes."""
        return {"classification": F.cross_entropy(self.network(batch.images).logits, batch.labels)}

    def scores(self, images: Tensor) -> dict[str, Tensor]:
        """Classify by the largest logit once trained; before, there is no answer."""
        return super().scores(images) if self.answers else {}
