"""What class-incremental methods on a pre-trained network share: its features, and that they keep no exemplars."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from mmcl.backbones.feature_backbone import FeatureBackbone
from mmcl.backbones.freezing import freeze, is_frozen
from mmcl.config.schema import ComponentConfig, Schedule
from mmcl.memory.accounting import PARAMETER_BYTES, ByteReport, exemplars_worth, module_bytes
from mmcl.methods.base import Ingredients, Method
from mmcl.protocol import Batch, ClassTask, FeatureBatch, ImageFeatures, Samples, Stage, Task


@dataclass(frozen=True)
class PretrainedIngredients(Ingredients):
    """What a run gives a method on a pre-trained network.

    Attributes:
        make_backbone: builds the network with its weights.
        image_bytes: bytes of one image in the papers' accounting.
    """

    make_backbone: Callable[[], FeatureBackbone]
    image_bytes: int


class PretrainedIncremental(Method[ClassTask]):
    """A pre-trained network whose features are classified; classes come task by task, and no image is kept.

    Attributes:
        backbone: the network, frozen unless a method trains it.
        known: number of classes before the current task.
        frozen_features: whether training images are encoded once, under the test transform, and trained on as such.
    """

    task_type: ClassVar[type[Task]] = ClassTask
    readouts: tuple[str, ...] = ("cnn",)
    frozen_features: bool = False
    ingredients: PretrainedIngredients

    def __init__(self, config: ComponentConfig, ingredients: PretrainedIngredients) -> None:
        super().__init__(config, ingredients)
        self.known = 0
        self.backbone = freeze(ingredients.make_backbone())

    def grow(self, task: ClassTask) -> None:
        """Take note of how many classes are known."""
        self.known = task.known

    # ------------------------------------------------------------------ features

    def training_samples(self, task: ClassTask) -> Samples:
        """Return what a task is trained on."""
        return task.train

    def training_pass(self, name: str, task: ClassTask, schedule: Schedule) -> Stage:
        """Return a stage over the training images, or over their features, which :meth:`begin_stage` encodes."""
        samples = self.training_samples(task)
        if not self.frozen_features:
            return Stage(name, samples, schedule)
        room = torch.empty(len(samples), 1, self.backbone.dimension)
        return Stage(name, ImageFeatures(room, samples.labels, samples.sources), schedule)

    def fill(self, stage: Stage, task: ClassTask) -> None:
        """Encode the training images of a stage of :meth:`training_pass`, where it has room for their features."""
        if isinstance(stage.samples, ImageFeatures):
            stage.samples.features[:, 0] = self.encode(task, self.training_samples(task))

    def features(self, batch: Batch | FeatureBatch) -> Tensor:
        """Return the features ``(B, D)`` of a batch; a frozen network computes no gradient."""
        if isinstance(batch, FeatureBatch):
            return batch.features[:, 0]
        with torch.set_grad_enabled(torch.is_grad_enabled() and not is_frozen(self.backbone)):
            features: Tensor = self.backbone(batch.images)
        return features

    @torch.no_grad()
    def encode(self, task: ClassTask, samples: Samples) -> Tensor:
        """Return float32 features ``(N, D)`` of samples under the test transform, on the device of the run."""
        training = self.backbone.training
        self.backbone.eval()
        parts = [self.backbone(batch.images).float() for batch in task.plain_batches(samples, self.device)]
        self.backbone.train(training)
        return torch.cat(parts) if parts else torch.zeros(0, self.backbone.dimension, device=self.device)

    # ------------------------------------------------------------------ bytes

    def head_modules(self) -> list[nn.Module]:
        """Return what classifies features."""
        return []

    def kept_bytes(self) -> int:
        """Count what is kept of classes beside network and heads."""
        return 0

    def byte_report(self) -> ByteReport:
        """Count the network, the heads with all that they hold, and what is kept of classes as memory."""
        backbone = module_bytes(self.backbone)
        counted = sum(parameter.numel() for parameter in self.backbone.parameters())
        return ByteReport(
            model_bytes=backbone.parameters,
            head_bytes=sum(module_bytes(head).total for head in self.head_modules()),
            buffer_bytes=backbone.buffers,
            memory_bytes=self.kept_bytes(),
            teacher_bytes=0,
            paper_model_bytes=counted * PARAMETER_BYTES,
            paper_memory_bytes=0,
            exemplars=0,
            equals_exemplars=exemplars_worth(counted, self.ingredients.image_bytes),
        )
