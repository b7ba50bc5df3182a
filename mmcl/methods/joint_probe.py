"""Joint probe: a linear classifier on a frozen pre-trained network, trained on all data seen. An upper bound.

It keeps all data and so breaks every memory budget; methods on a pre-trained network are placed below it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from mmcl.config.schema import setting
from mmcl.memory.accounting import ByteReport
from mmcl.methods.linear_probe import LinearProbe, LinearProbeConfig
from mmcl.methods.pretrained import PretrainedIngredients
from mmcl.protocol import ClassTask, Samples, Stage


@dataclass
class JointProbeConfig(LinearProbeConfig):
    """Keys of the joint probe."""

    every_task: bool = setting("Retrain after every task for a whole curve; false trains once, in the last task.")


class JointProbe(LinearProbe):
    """A fresh linear head on everything seen."""

    Config: ClassVar[type] = JointProbeConfig
    config: JointProbeConfig

    def __init__(self, config: JointProbeConfig, ingredients: PretrainedIngredients) -> None:
        super().__init__(config, ingredients)
        self.answers = False
        self.kept = (0, 0)

    def grow(self, task: ClassTask) -> None:
        """Begin with a fresh head for all seen classes, and count what it keeps: everything."""
        super().grow(task)
        parts = (task.past(), task.train)
        self.kept = (sum(map(len, parts)), sum(part.images.nbytes for part in parts))
        self.head.reset_parameters()
        self.answers = self.config.every_task or task.index == self.ingredients.task_count - 1

    def training_samples(self, task: ClassTask) -> Samples:
        """Return the data of all tasks so far."""
        return Samples.concatenate([task.past(), task.train])

    def stages(self, task: ClassTask) -> list[Stage]:
        """Train on all data seen, or not at all before the last task."""
        return super().stages(task) if self.answers else []

    def byte_report(self) -> ByteReport:
        """Count network and head, and all data seen as its memory."""
        images, size = self.kept
        paper_bytes = images * self.ingredients.image_bytes
        return replace(super().byte_report(), exemplars=images, memory_bytes=size, paper_memory_bytes=paper_bytes)

    def scores(self, images: Tensor) -> dict[str, Tensor]:
        """Classify by the largest logit once trained; before, there is no answer."""
        return super().scores(images) if self.answers else {}
