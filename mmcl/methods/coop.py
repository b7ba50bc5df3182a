"""CoOp: the words before the class name are learned as vectors from a few shots, one context for all classes.

Zhou et al., "Learning to Prompt for Vision-Language Models", IJCV 2022 (unified context, class name at the end).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mmcl.backbones.dual_encoder import DualEncoder
from mmcl.config.schema import ComponentConfig, StepSchedule, setting
from mmcl.errors import UserError
from mmcl.methods.clip_zeroshot import cosine_logits
from mmcl.methods.few_shot import FewShotKeys, training_passes
from mmcl.methods.on_features import FeatureIngredients, OnFeatures
from mmcl.methods.prompt_learner import PromptLearner, text_encoder_of
from mmcl.protocol import DatasetTask, FeatureBatch, Stage
from mmcl.randomness import generator

PLACEHOLDER = "X"
CONTEXT_SPREAD = 0.02


@dataclass
class CoopConfig(FewShotKeys, ComponentConfig):
    """Keys of CoOp."""

    context_tokens: int = setting("Learned vectors before the class name, at least 1. Paper: 16.")
    schedule: StepSchedule = setting("How the context is learned.")
    epochs_of_shots: dict[str, int] | None = setting(
        "Epochs by number of shots, instead of schedule.epochs; null: schedule.epochs for all."
    )
    prompts_at_once: int = setting("Above so many classes the text encoder works in parts, twice over, to save memory.")

    def __post_init__(self) -> None:
        """Refuse prompts without a context."""
        super().__post_init__()
        if self.context_tokens < 1 or self.prompts_at_once < 1:
            raise UserError(
                f"method.context_tokens={self.context_tokens}, method.prompts_at_once={self.prompts_at_once}: "
                "expected at least 1 each"
            )


class Coop(OnFeatures):
    """Learns the context of the prompts.

    Attributes:
        prompts: the data set's prompts; ``text_features`` is their classifier under the learned context.
        context: learned vectors ``(n, W)``.
    """

    Config: ClassVar[type] = CoopConfig
    readouts: tuple[str, ...] = ("coop",)
    prompts: PromptLearner
    context: nn.Parameter

    def __init__(self, config: CoopConfig, ingredients: FeatureIngredients) -> None:
        super().__init__(config, ingredients)
        text_encoder_of(ingredients.encoder, config.name)

    def grow(self, task: DatasetTask) -> None:
        """Embed the prompts of the classes and make room for the context."""
        super().grow(task)
        words = " ".join([PLACEHOLDER] * self.config.context_tokens)
        self.prompts = PromptLearner(self._encoder(), task.class_names, words)
        self.context = nn.Parameter(torch.zeros_like(self.prompts.initial_context()))

    def begin_task(self, task: DatasetTask) -> None:
        """Draw the context, keyed by seed and task."""
        drawn = torch.randn(self.context.shape, generator=generator(self.ingredients.seed, task.index, "context"))
        with torch.no_grad():
            self.context.copy_(CONTEXT_SPREAD * drawn)

    def stages(self, task: DatasetTask) -> list[Stage]:
        """Learn the context."""
        shots = training_passes(task, self.config.shots, self.config.passes)
        schedule = self.config.schedule
        epochs = (self.config.epochs_of_shots or {}).get(str(self.config.shots), schedule.epochs)
        return [Stage("context", shots, replace(schedule, epochs=epochs))]

    def losses(self, batch: FeatureBatch) -> dict[str, Tensor]:
        """Return the cross-entropy under the context as it is."""
        logits = cosine_logits(batch.features[:, 0], self._classifier(), self.logit_scale)
        return {"cross_entropy": cross_entropy(logits, batch.labels)}

    def end_task(self, task: DatasetTask) -> None:
        """Keep the classifier of the learned context."""
        with torch.no_grad():
            self.text_features.copy_(self._classifier())

    def scores(self, features: Tensor) -> dict[str, Tensor]:
        """Return the logits of the plain views."""
        return {"coop": cosine_logits(features[:, 0], self.text_features, self.logit_scale)}

    def _classifier(self) -> Tensor:
        return self.prompts.classifier(self._encoder(), self.context, self.config.prompts_at_once)

    def _encoder(self) -> DualEncoder:
        return text_encoder_of(self.ingredients.encoder, self.config.name).to(self.device)
