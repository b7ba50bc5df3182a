"""Linear probe: one linear classifier on a frozen pre-trained network, trained on task after task.

The head has a row for each class seen. Each task trains all rows, old ones too, with cross-entropy over all classes
seen, on images of its new classes alone: sequential fine-tuning of a head, which forgets, since nothing but negative
evidence about old classes is left. The lower bound of methods on a pre-trained network; ``joint_probe`` is the upper
bound. (Heads that are trained apart, each over its own classes: ``+method=slca method.backbone_lr_scale=0
method.alignment.epochs=0``.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from mmcl.backbones.heads import GrowingLinear
from mmcl.config.schema import ComponentConfig, Schedule, setting
from mmcl.methods.pretrained import PretrainedIncremental, PretrainedIngredients
from mmcl.protocol import Batch, ClassTask, FeatureBatch, Stage


@dataclass
class LinearProbeConfig(ComponentConfig):
    """Keys of the linear probe."""

    classifier: Schedule = setting("How the head is trained in each task.")
    frozen_features: bool = setting(
        "Encode training images once, without augmentation, and train on that: much faster, other results."
    )


class LinearProbe(PretrainedIncremental):
    """A linear head over all classes seen, trained on each task's data alone.

    Attributes:
        head: grows with the classes; old rows stay as they are until they are trained.
    """

    Config: ClassVar[type] = LinearProbeConfig
    config: LinearProbeConfig

    def __init__(self, config: LinearProbeConfig, ingredients: PretrainedIngredients) -> None:
        super().__init__(config, ingredients)
        self.frozen_features = config.frozen_features
        self.head = GrowingLinear(self.backbone.dimension)

    def grow(self, task: ClassTask) -> None:
        """Add rows for the new classes."""
        super().grow(task)
        self.head.grow(task.seen)

    def stages(self, task: ClassTask) -> list[Stage]:
        """Train the head once."""
        return [self.training_pass("classifier", task, self.config.classifier)]

    def begin_stage(self, stage: Stage, task: ClassTask) -> None:
        """Encode the training images, where they are encoded once."""
        super().begin_stage(stage, task)
        self.fill(stage, task)

    def losses(self, batch: Batch | FeatureBatch) -> dict[str, Tensor]:
        """Return the cross-entropy over all classes seen."""
        return {"classification": F.cross_entropy(self.head(self.features(batch)), batch.labels)}

    def scores(self, images: Tensor) -> dict[str, Tensor]:
        """Classify by the largest logit (``cnn``)."""
        return {"cnn": self.head(self.backbone(images))}

    def head_modules(self) -> list[nn.Module]:
        """Return the head."""
        return [self.head]
