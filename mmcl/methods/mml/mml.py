"""MML: two small blocks learn to reason over a memory of images and texts, which is replaced without training.

Kang, Iscen, Jo, Choi, Cho, Schmid, "Memory-Modular Classification: Learning to Generalize with Memory Replacement",
TMLR 2025. The learner is trained on some classes, with their memory; the epoch is chosen on others. After that, every
task brings another memory, and the same learner answers for its classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ConstantLR, LRScheduler

from mmcl.config.schema import MemorySchedule, setting
from mmcl.errors import UserError, nearest
from mmcl.memory.accounting import ByteReport
from mmcl.memory.class_memory import STORAGES, ClassMemory, MemoryContent
from mmcl.memory.search import INDEXES
from mmcl.methods.clip_zeroshot import cosine_logits
from mmcl.methods.mml.learner import BestEpoch, MmlLearner, Queries, evaluate
from mmcl.methods.mml.optimizers import mml_optimizer
from mmcl.methods.mml.readout import Retrieved
from mmcl.methods.mml.remembered import Neighbourhood, Remembered
from mmcl.methods.mml.retrieval import retrieved
from mmcl.methods.on_features import FeatureIngredients, OnFeatures, OnFeaturesConfig
from mmcl.protocol import AskedMemory, FeatureBatch, MemoryTask, Stage, Task
from mmcl.randomness import generator

SELECTIONS = ("best", "last")
TRAINING, VALIDATION = -1, -2  # their memories, among those of the tasks


@dataclass
class MmlConfig(OnFeaturesConfig):
    """Keys of MML."""

    image_neighbours: int = setting("Images of the memory that a query sees. Published: 32, before that 16.")
    text_neighbours: int = setting("Texts of the memory that a query sees. Published: 32, before that 16.")
    temperature: float = setting("Factor of the cosines in the logits. Published: 16.")
    feature_length: float | None = setting(
        "Length that features are scaled to before the blocks; null leaves them as the encoder gives them, as "
        "published for CLIP, whose features have a length of about 10. The root of D suits other encoders."
    )
    prototype_items: int = setting("Most rows of a class and modality that a prototype averages. Published: 16.")
    storage: str = setting(
        "How the memory keeps and saves rows: float32, or float16 in half the bytes; answers come from float32 copies."
    )
    index: str = setting("exact, or faiss where it is installed.")
    selection: str = setting("best: the epoch that answers best for the validation classes; last: the last one.")
    schedule: MemorySchedule = setting("How the blocks are learned; 0 epochs leave them as drawn.")

    def __post_init__(self) -> None:
        """Refuse values that could stop a run only after everything was encoded."""
        for name, known in (("storage", tuple(STORAGES)), ("index", INDEXES), ("selection", SELECTIONS)):
            value = getattr(self, name)
            if value not in known:
                raise UserError(f"method.{name}={value}: expected one of {', '.join(known)}.{nearest(value, known)}")
        for name in ("image_neighbours", "text_neighbours", "prototype_items"):
            if getattr(self, name) < 1:
                raise UserError(f"method.{name}={getattr(self, name)}: expected at least 1")
        for name in ("temperature", "feature_length"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UserError(f"method.{name}={value}: expected more than 0")

    @property
    def neighbourhood(self) -> Neighbourhood:
        """How far a query looks, and at what."""
        return Neighbourhood(self.image_neighbours, self.text_neighbours, self.index, self.feature_length)


class _Lesson(NamedTuple):
    """Queries with their neighbours, and the memory that these are rows of."""

    queries: Queries
    remembered: Remembered


class Mml(OnFeatures):
    """The Memory-Modular Learner with the training-free readouts of the same memory beside it.

    The state holds what was learned and which memory it stands before, never the rows of a memory: they come from the
    benchmark, or from a file of the user's own.

    Attributes:
        learner: the two blocks.
        best: the best epoch so far.
    """

    Config: ClassVar[type] = MmlConfig
    task_type: ClassVar[type[Task]] = MemoryTask
    readouts: tuple[str, ...] = ("mml", "addknn", "prototype", "ncm", "knn", "text")
    config: MmlConfig

    def __init__(self, config: MmlConfig, ingredients: FeatureIngredients) -> None:
        super().__init__(config, ingredients)
        draws = generator(ingredients.seed, "mml")
        self.learner = MmlLearner(ingredients.dimension, config.temperature, draws)
        if config.schedule.optimizer == "half_official":
            self.learner.half()
        self.best = BestEpoch()
        self._remembered: Remembered | None = None
        self._memory_bytes = 0
        self._fingerprints: dict[int, str] = {}
        self._training: _Lesson | None = None
        self._validation: _Lesson | None = None

    # ------------------------------------------------------------------ a memory

    def begin_task(self, task: MemoryTask) -> None:  # type: ignore[override]
        """Build the zero-shot classifier and remember what the task brings; all that was remembered before is gone."""
        super().begin_task(task)
        for name, fewest in zip(("image_neighbours", "text_neighbours"), task.fewest, strict=True):
            if 0 < fewest < getattr(self.config, name):
                raise UserError(
                    f"method.{name}={getattr(self.config, name)}: expected 1 to {fewest}, as many as the smallest "
                    "memory of benchmark.evaluations has items of this modality"
                )
        self._remember(task)

    def _remember(self, task: MemoryTask) -> None:
        memory = self._memory_of(task.memory, task.encoder)
        self._recognise({task.index: memory.fingerprint()})
        self._memory_bytes = memory.nbytes
        self._remembered = self._made_ready(memory)

    def _recognise(self, fingerprints: Mapping[int, str]) -> None:
        """Take down which memories tasks have; refuse another than the one known."""
        for index, fingerprint in fingerprints.items():
            if self._fingerprints.setdefault(index, fingerprint) != fingerprint:
                whose = {TRAINING: "training", VALIDATION: "validation"}.get(index, f"task {index + 1}")
                raise UserError(
                    f"the memory of {whose} is not the one that this run was begun with: its images, texts or "
                    "encoder have changed since. Type force=true to begin again"
                )

    def _memory_of(self, content: MemoryContent, encoder: str) -> ClassMemory:
        memory = ClassMemory(encoder, self.config.prototype_items, self.config.storage)
        memory.replace(content, encoder)
        return memory

    def _made_ready(self, memory: ClassMemory) -> Remembered:
        return Remembered(memory, self.config.neighbourhood, self.device)

    # ------------------------------------------------------------------ learning

    def stages(self, task: MemoryTask) -> list[Stage]:  # type: ignore[override]
        """Return the one pass of learning, in the task that brings training queries."""
        return [] if task.training is None else [Stage("mml", task.training.queries, self.config.schedule)]

    def begin_stage(self, stage: Stage, task: MemoryTask) -> None:  # type: ignore[override]
        """Find the neighbours of all queries of training and validation, once for all epochs."""
        super().begin_stage(stage, task)
        assert task.training is not None
        assert task.validation is not None
        self._training = self._lesson(TRAINING, task.training, task.encoder)
        self._validation = self._lesson(VALIDATION, task.validation, task.encoder)

    def _lesson(self, number: int, asked: AskedMemory, encoder: str) -> _Lesson:
        memory = self._memory_of(asked.content, encoder)
        self._recognise({number: memory.fingerprint()})
        remembered = self._made_ready(memory)
        images = asked.queries
        features = images.features[:, 0].float().to(self.device)
        return _Lesson(remembered.queries(features, images.labels.to(self.device)), remembered)

    def optimizer_of(self, stage: Stage) -> tuple[Optimizer, LRScheduler]:
        """Return the optimiser of the blocks at a constant rate."""
        schedule = stage.schedule
        assert isinstance(schedule, MemorySchedule)
        optimizer = mml_optimizer(
            schedule.optimizer, self.learner.parameters(), schedule.lr, schedule.eps, schedule.weight_decay
        )
        return optimizer, ConstantLR(optimizer, factor=1.0)

    def after_step(self) -> None:
        """Do nothing: the rate is constant."""

    def losses(self, batch: FeatureBatch) -> dict[str, Tensor]:
        """Return the cross-entropy of a batch of training queries."""
        assert self._training is not None
        queries = self._training.queries.select(batch.sources)
        loss, _ = self.learner.batch_loss(queries, self._training.remembered.knowledge)
        return {"classification": loss.float()}  # the sum over an epoch does not fit into float16

    def epoch_figures(self, epoch: int) -> dict[str, float]:
        """Answer for the validation classes, and keep the weights where no epoch before was as good."""
        assert self._validation is not None
        batch_size = self.config.schedule.batch_size
        figures = evaluate(self.learner, self._validation.queries, self._validation.remembered.knowledge, batch_size)
        self.best.offer(epoch, figures.accuracy, self.learner)
        return {"validation_loss": figures.loss, "validation_accuracy": figures.accuracy}

    def end_stage(self, stage: Stage, task: MemoryTask) -> None:  # type: ignore[override]
        """Go back to the best epoch, and let go of what only learning needs."""
        if self.config.selection == "best":
            self.best.restore(self.learner)
        self._training = self._validation = None

    # ------------------------------------------------------------------ answers

    def begin_evaluation(self, task: MemoryTask) -> None:  # type: ignore[override]
        """Remember again what a resumed run has lost."""
        self._remember(task)

    def scores(self, images: Tensor) -> dict[str, Tensor]:
        """Return the scores of each readout for plain queries ``(B, 1, D)``."""
        assert self._remembered is not None
        features = images[:, 0]
        return {
            **self._remembered.scores(self.learner, features),
            "text": cosine_logits(features, self.text_features, self.logit_scale),
        }

    def retrieved(self, features: Tensor) -> Retrieved:
        """Return what plain queries ``(B, D)`` look at in the memory, with the attention that each item gets."""
        assert self._remembered is not None
        nobody = torch.zeros(len(features), dtype=torch.int64, device=features.device)
        return retrieved(self.learner, self._remembered.queries(features, nobody), self._remembered.knowledge)

    def byte_report(self) -> ByteReport:
        """Count the memory as it is stored, with classes and prototypes."""
        return replace(super().byte_report(), memory_bytes=self._memory_bytes, paper_memory_bytes=self._memory_bytes)

    def memory_rows(self) -> list[Tensor]:
        """Return the rows of the memory."""
        if self._remembered is None:
            return []
        return [self._remembered.knowledge.images, self._remembered.knowledge.texts]

    def get_extra_state(self) -> dict[str, Any]:
        """Return which memories were remembered, by task."""
        return {"memories": dict(self._fingerprints)}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take which memories were remembered.

        Raises:
            UserError: a task that has begun has another memory than then.
        """
        self._recognise(state["memories"])
