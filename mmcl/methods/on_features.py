"""What methods beside frozen encoders share: the texts of a data set, a few shots of it, a stream of test features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from mmcl.backbones.dual_encoder import DualEncoder
from mmcl.config.schema import ComponentConfig, StepSchedule, setting
from mmcl.memory.accounting import ByteReport, module_bytes
from mmcl.methods.base import Ingredients, Method
from mmcl.methods.step_schedule import optimizer_of
from mmcl.methods.text_classifier import text_classifier
from mmcl.protocol import DatasetTask, Stage, Task


@dataclass(frozen=True)
class FeatureIngredients(Ingredients):
    """What a run gives a method on features.

    Attributes:
        dimension: length D of a feature.
        logit_scale: factor of the cosine in the encoder's own classification; 100 for OpenAI CLIP.
        encoder: the frozen encoders, for methods that learn prompts; None where features come from a file.
    """

    dimension: int
    logit_scale: float
    encoder: DualEncoder | None


@dataclass
class OnFeaturesConfig(ComponentConfig):
    """Keys that every method on features has."""

    prompts: str = setting(
        "Sentences of the text classifier: simple (one for all data sets), tip (the data set's templates), "
        "cupl (longer descriptions), tip_cupl (both), full (every template)."
    )


class OnFeatures(Method[DatasetTask]):
    """A method on features of frozen encoders: a text classifier for each data set, which it starts from.

    The encoders stay outside of the method, so that its state holds only what it learned or remembers.

    Attributes:
        text_features: unit text classifier of the task ``(C, D)``.
        test_views: number of views of each test image, the plain one included.
    """

    Config: ClassVar[type] = OnFeaturesConfig
    task_type: ClassVar[type[Task]] = DatasetTask
    readouts: tuple[str, ...] = ("text",)
    test_views: int = 1
    ingredients: FeatureIngredients
    text_features: Tensor

    def __init__(self, config: Any, ingredients: FeatureIngredients) -> None:
        super().__init__(config, ingredients)
        self.logit_scale = ingredients.logit_scale

    def grow(self, task: DatasetTask) -> None:
        """Make room for the classes of a data set; nothing of the one before stays."""
        self.register_buffer("text_features", torch.zeros(task.size, self.ingredients.dimension))

    def begin_task(self, task: DatasetTask) -> None:
        """Build the text classifier."""
        features, classes = task.encoded.texts(self.config.prompts)
        self.text_features = text_classifier(features.float(), classes, task.size).to(self.device)

    def optimizer_of(self, stage: Stage) -> tuple[Optimizer, LRScheduler]:
        """Return the optimiser of a :class:`~mmcl.config.schema.StepSchedule`."""
        schedule = stage.schedule
        assert isinstance(schedule, StepSchedule)
        return optimizer_of(self.stage_parameters(), schedule, -(-len(stage.samples) // schedule.batch_size))

    def after_step(self) -> None:
        """Advance the learning rate."""
        self.lr_schedulers().step()  # type: ignore[union-attr,call-arg]

    def on_train_epoch_end(self) -> None:
        """Do nothing: the rate moves with the steps."""

    def memory_rows(self) -> list[Tensor]:
        """Return the features that are kept beside texts and learned parameters, each ``(..., D)``."""
        return []

    def byte_report(self) -> ByteReport:
        """Count the frozen encoders, what was learned with the text classifier (as heads), and the memory's rows.

        Tables that are kept beside the rows count as buffers.
        """
        encoder = self.ingredients.encoder
        rows = self.memory_rows()
        model = 0 if encoder is None else module_bytes(encoder).total
        memory = sum(part.nbytes for part in rows)
        exemplars = sum(part.numel() // part.shape[-1] for part in rows)
        heads = sum(parameter.nbytes for parameter in self.parameters()) + self.text_features.nbytes
        derived = sum(buffer.nbytes for buffer in self.buffers()) - self.text_features.nbytes - memory
        return ByteReport(
            model_bytes=model,
            head_bytes=heads,
            buffer_bytes=max(derived, 0),
            memory_bytes=memory,
            teacher_bytes=0,
            paper_model_bytes=model,
            paper_memory_bytes=memory,
            exemplars=exemplars,
            equals_exemplars=0,
        )
