"""RECO-style fusion: images and texts of classes are refined by what a memory of the other modality adds to them.

After Iscen, Caron, Fathi, Schmid, "Retrieval-Enhanced Contrastive Vision-Text Models", ICLR 2024, on memories by class.
The paper learns on millions of pairs of the web; here the layers are learned on the labelled queries of the classes of
training, as MML is, so that the two compare. :mod:`mmcl.methods.reco_fusion` says what else is the paper's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from mmcl.config.schema import StepSchedule, setting
from mmcl.errors import UserError
from mmcl.methods.clip_zeroshot import cosine_logits
from mmcl.methods.mml.learner import BestEpoch
from mmcl.methods.on_features import FeatureIngredients, OnFeatures, OnFeaturesConfig
from mmcl.methods.reco_fusion import PairMemory, Read, RecoLearner
from mmcl.methods.text_classifier import text_classifier
from mmcl.protocol import AskedMemory, FeatureBatch, MemoryTask, Stage, Task
from mmcl.randomness import generator


@dataclass
class RecoConfig(OnFeaturesConfig):
    """Keys of RECO-style fusion."""

    neighbours: int = setting("Pairs of the memory that an image or a class text reads.")
    temperature: float = setting("Factor of the cosines in loss and answers.")
    schedule: StepSchedule = setting("How the fusion layers are learned; 0 epochs leave them as they start.")

    def __post_init__(self) -> None:
        """Refuse values that retrieve nothing or turn answers around."""
        if self.neighbours < 1:
            raise UserError(f"method.neighbours={self.neighbours}: expected at least 1")
        if not self.temperature > 0:
            raise UserError(f"method.temperature={self.temperature}: expected more than 0")


class _Lesson(NamedTuple):
    """Queries and class texts with what they read."""

    images: Read
    texts: Read
    labels: Tensor


class Reco(OnFeatures):
    """Learns to fuse embeddings with retrieved ones, then answers for whatever a memory holds.

    Refined images are compared with refined text classifiers. Where the memory lacks one modality there are no pairs,
    and the answers are those of the zero-shot text classifier. The epoch is the one that answers best for the
    validation classes with their own memory.

    Attributes:
        learner: the two fusion layers.
        best: the best epoch so far.
    """

    Config: ClassVar[type] = RecoConfig
    task_type: ClassVar[type[Task]] = MemoryTask
    readouts: tuple[str, ...] = ("reco", "text")
    config: RecoConfig

    def __init__(self, config: RecoConfig, ingredients: FeatureIngredients) -> None:
        super().__init__(config, ingredients)
        self.learner = RecoLearner(ingredients.dimension, config.temperature, generator(ingredients.seed, "reco"))
        self.best = BestEpoch()
        self._memory: PairMemory | None = None
        self._rows: list[Tensor] = []
        self._training: _Lesson | None = None
        self._validation: _Lesson | None = None

    # ------------------------------------------------------------------ learning

    def stages(self, task: MemoryTask) -> list[Stage]:  # type: ignore[override]
        """Return the one pass of learning, in the task that brings training queries."""
        return [] if task.training is None else [Stage("reco", task.training.queries, self.config.schedule)]

    def begin_stage(self, stage: Stage, task: MemoryTask) -> None:  # type: ignore[override]
        """Look up all queries and texts of training and validation, once for all epochs."""
        super().begin_stage(stage, task)
        assert task.training is not None
        assert task.validation is not None
        self._training, self._validation = self._lesson(task.training), self._lesson(task.validation)

    def _lesson(self, asked: AskedMemory) -> _Lesson:
        memory = PairMemory(asked.content, self.config.neighbours, self.device)
        features, classes = asked.encoded.texts(self.config.prompts)
        texts = text_classifier(features.float(), classes, len(asked.class_names)).to(self.device)
        images = asked.queries.features[:, 0].float().to(self.device)
        return _Lesson(memory.images.read(images), memory.texts.read(texts), asked.queries.labels.to(self.device))

    def losses(self, batch: FeatureBatch) -> dict[str, Tensor]:
        """Return the cross-entropies of a batch of training queries."""
        assert self._training is not None
        return self.learner.losses(self._training.images.select(batch.sources), self._training.texts, batch.labels)

    @torch.no_grad()
    def epoch_figures(self, epoch: int) -> dict[str, float]:
        """Answer for the validation classes, and keep the weights where no epoch before was as good."""
        assert self._validation is not None
        images, texts, labels = self._validation
        hits = self.learner(images, texts).argmax(dim=1) == labels
        accuracy = 100 * int(hits.sum()) / len(hits)
        self.best.offer(epoch, accuracy, self.learner)
        return {"validation_accuracy": accuracy}

    def end_stage(self, stage: Stage, task: MemoryTask) -> None:  # type: ignore[override]
        """Go back to the best epoch, and let go of what only learning needs."""
        self.best.restore(self.learner)
        self._training = self._validation = None

    # ------------------------------------------------------------------ answers

    def begin_evaluation(self, task: MemoryTask) -> None:  # type: ignore[override]
        """Remember what the task brings; all that was remembered before is gone."""
        self._memory = PairMemory(task.memory, self.config.neighbours, self.device)
        self._rows = [task.memory.images.features, task.memory.texts.features]

    def scores(self, images: Tensor) -> dict[str, Tensor]:
        """Return the logits of fusion and of the zero-shot text classifier for plain queries ``(B, 1, D)``."""
        assert self._memory is not None
        features = images[:, 0]
        return {
            "reco": self.learner(self._memory.images.read(features), self._memory.texts.read(self.text_features)),
            "text": cosine_logits(features, self.text_features, self.logit_scale),
        }

    def memory_rows(self) -> list[Tensor]:
        """Return the rows of the memory."""
        return self._rows
