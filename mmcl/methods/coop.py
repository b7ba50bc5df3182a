"""CoOp: the words before the class name are learned as vectors from a few shots, one context for all classes.

Zhou, Yang, Loy, Liu, "Learning to Prompt for Vision-Language Models", IJCV 2022 (unified context, class name at the
end).

Where there is no text encoder, a shift of the text features is learned alike (:mod:`mmcl.methods.shift_learner`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mmcl.config.schema import StepSchedule, setting
from mmcl.errors import UserError
from mmcl.methods.clip_zeroshot import cosine_logits
from mmcl.methods.context_learner import ContextLearner
from mmcl.methods.few_shot import FewShotKeys, training_passes
from mmcl.methods.learned_context import LearnedContextConfig, context_learner, refuse_missing_encoder
from mmcl.methods.on_features import FeatureIngredients, OnFeatures
from mmcl.protocol import DatasetTask, FeatureBatch, Stage
from mmcl.randomness import generator

PLACEHOLDER = "X"


@dataclass
class CoopConfig(FewShotKeys, LearnedContextConfig):
    """Keys of CoOp."""

    context_tokens: int = setting("Learned vectors before the class name, at least 1. Paper: 16.")
    schedule: StepSchedule = setting("How the context is learned.")
    epochs_of_shots: dict[str, int] | None = setting(
        "Epochs by number of shots, instead of schedule.epochs; null: schedule.epochs for all."
    )

    def __post_init__(self) -> None:
        """Refuse prompts without a context."""
        super().__post_init__()
        LearnedContextConfig.__post_init__(self)
        if self.context_tokens < 1:
            raise UserError(f"method.context_tokens={self.context_tokens}: expected at least 1")


class Coop(OnFeatures):
    """Learns the context of the text classifier.

    Attributes:
        learner: the data set's classifier under a context; ``text_features`` is the one under the learned context.
        context: what is learned: vectors ``(n, W)`` before the class names, or a shift ``(D,)``.
    """

    Config: ClassVar[type] = CoopConfig
    readouts: tuple[str, ...] = ("coop",)
    learner: ContextLearner
    context: nn.Parameter

    def __init__(self, config: CoopConfig, ingredients: FeatureIngredients) -> None:
        super().__init__(config, ingredients)
        refuse_missing_encoder(config, ingredients)

    def grow(self, task: DatasetTask) -> None:
        """Take in the texts of the classes and make room for the context."""
        super().grow(task)
        words = " ".join([PLACEHOLDER] * self.config.context_tokens)
        self.learner = context_learner(self.config, self.ingredients, task, words)
        self.context = nn.Parameter(torch.zeros_like(self.learner.initial_context()))

    def begin_task(self, task: DatasetTask) -> None:
        """Draw the context, keyed by seed and task."""
        drawn = self.learner.drawn_context(generator(self.ingredients.seed, task.index, "context"))
        with torch.no_grad():
            self.context.copy_(drawn)

    def stages(self, task: DatasetTask) -> list[Stage]:
        """Learn the context."""
        shots = training_passes(task, self.config.shots, self.config.passes)
        schedule = self.config.schedule
        epochs = (self.config.epochs_of_shots or {}).get(str(self.config.shots), schedule.epochs)
        return [Stage("context", shots, replace(schedule, epochs=epochs))]

    def losses(self, batch: FeatureBatch) -> dict[str, Tensor]:
        """Return the cross-entropy under the context as it is."""
        logits = cosine_logits(batch.features[:, 0], self.learner.classifier(self.context), self.logit_scale)
        return {"cross_entropy": cross_entropy(logits, batch.labels)}

    def end_task(self, task: DatasetTask) -> None:
        """Keep the classifier of the learned context."""
        with torch.no_grad():
            self.text_features.copy_(self.learner.classifier(self.context))

    def scores(self, features: Tensor) -> dict[str, Tensor]:
        """Return the logits of the plain views."""
        return {"coop": cosine_logits(features[:, 0], self.text_features, self.logit_scale)}
