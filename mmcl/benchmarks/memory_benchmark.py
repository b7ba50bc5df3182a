"""Benchmarks of replaceable memories: a method learns on some classes, then answers for whatever a memory holds.

The tasks are evaluations: each has queries and a memory, and nothing but the memory changes between them. The first one
brings what may be learned from. The protocol is that of Kang et al., "Memory-Modular Classification: Learning to
Generalize with Memory Replacement", TMLR 2025, with controls beside it.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import torch

from mmcl.benchmarks.base import BenchmarkConfig
from mmcl.benchmarks.dataset_benchmark import FeatureTasks
from mmcl.benchmarks.memory_sets import (
    EncodedSet,
    first_classes,
    image_rows,
    joined,
    relabelled_images,
    with_memory_of,
    without_images,
    without_texts,
)
from mmcl.benchmarks.memory_splits import first_rows, noisy_labels
from mmcl.config.schema import setting
from mmcl.errors import UserError, nearest
from mmcl.memory.prototypes import require_classes
from mmcl.protocol import (
    AskedMemory,
    EncodedDataset,
    ImageFeatures,
    MemoryTask,
    Sentences,
    Task,
    TextFeatures,
)
from mmcl.randomness import permutation

GROWING = "growing"
EVALUATIONS = {
    "seen": "the classes of training",
    "unseen": "other classes, after their memory has replaced the first one",
    "union": "both, with both memories",
    "few_shot": "the unseen classes, with a few labelled images of each in their prototypes",
    "text_only": "the unseen classes by a memory of texts alone",
    "images_only": "the unseen classes by a memory of images alone",
    "wrong_memory": "the unseen classes with a memory about others, those of training: a control. What reads it "
    "must fall to chance",
    GROWING: "the classes of training, then more and more of the unseen ones beside them",
}


class Evaluation(NamedTuple):
    """One task: ``kind`` is a key of ``EVALUATIONS``, ``added`` the number of unseen classes that it is about."""

    name: str
    kind: str
    added: int

    @property
    def asks_seen(self) -> bool:
        """Whether the classes of training are asked, before the unseen ones."""
        return self.kind in ("seen", "union", GROWING)


@dataclass
class MemoryBenchmarkConfig(BenchmarkConfig):
    """Keys of every benchmark of replaceable memories."""

    evaluations: list[str] = setting(
        "Tasks in order: seen, unseen, union, few_shot, text_only, images_only, wrong_memory, growing."
    )
    growing_steps: int = setting("Tasks of the evaluation growing, the first one without unseen classes; at least 2.")
    training_shots: bool = setting(
        "Make the prototypes of training and validation of shots, as published for few shots."
    )
    memory_images: int | None = setting("Most images of a class in the memory, the first ones; null keeps all.")
    max_sentences: int | None = setting("Most texts of a class in the memory, the first ones; null keeps all.")
    label_noise: float = setting("Share of the training queries that get a random label, 0 to 1.")
    memory_noise: float = setting("Share of the memory's images that get a random class of their set, 0 to 1.")
    split_seed: int = setting("Keys which images and classes go where, and all noise.")

    def __post_init__(self) -> None:
        """Refuse evaluations that do not exist, and shares and counts that cannot be."""
        for name in self.evaluations:
            if name not in EVALUATIONS:
                hint = nearest(name, EVALUATIONS)
                raise UserError(f"benchmark.evaluations: unknown {name!r}.{hint} Known: {', '.join(EVALUATIONS)}.")
        if not self.evaluations or len(set(self.evaluations)) < len(self.evaluations):
            raise UserError(f"benchmark.evaluations={self.evaluations}: expected at least one, none twice.")
        if self.growing_steps < 2:
            raise UserError(f"benchmark.growing_steps={self.growing_steps}: expected at least 2.")
        for name in ("memory_images", "max_sentences"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"benchmark.{name}={value}: expected at least 1, or null for all of a class.")
        for name in ("label_noise", "memory_noise"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"benchmark.{name}={getattr(self, name)}: expected a share, 0 (none) to 1 (all).")


class MemoryBenchmark(FeatureTasks):
    """Tasks that differ in queries and memory; a subclass says which classes there are and encodes them.

    Attributes:
        same_classes: whether all sets are about the same classes, behind one memory.
    """

    Config: ClassVar[type[BenchmarkConfig]] = MemoryBenchmarkConfig
    task_type: ClassVar[type[Task]] = MemoryTask
    same_classes: ClassVar[bool] = False
    config: MemoryBenchmarkConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._sets: dict[str, EncodedSet] = {}

    # ------------------------------------------------------------------ what a subclass says

    @abstractmethod
    def names_of_set(self, which: str) -> tuple[str, ...]:
        """Return the class names of ``seen``, ``validation`` or ``unseen``, without encoding anything."""

    @abstractmethod
    def encode_set(self, which: str) -> EncodedSet:
        """Return a set behind the encoders, its memory as large as the keys allow."""

    @property
    @abstractmethod
    def encoder_digest(self) -> str:
        """What the features depend on beside images and sentences."""

    # ------------------------------------------------------------------ tasks

    @cached_property
    def plan(self) -> tuple[Evaluation, ...]:
        """The tasks in order.

        Raises:
            UserError: an evaluation that these classes do not allow.
        """
        self.setup()
        seen, unseen = (len(self.names_of_set(which)) for which in ("seen", "unseen"))
        plan = []
        for kind in self.config.evaluations:
            if self.same_classes and kind in ("union", "wrong_memory", GROWING):
                raise UserError(
                    f"benchmark.evaluations: {kind} puts two sets of classes together; benchmark={self.name} has one. "
                    "Leave it out."
                )
            if kind == "wrong_memory" and unseen > seen:
                raise UserError(
                    f"benchmark.evaluations: wrong_memory needs as many classes of training as unseen ones, {unseen}; "
                    f"there are {seen}. Leave it out."
                )
            if kind == GROWING:
                steps = self.config.growing_steps
                sizes = [round(unseen * step / (steps - 1)) for step in range(steps)]
                plan += [Evaluation(f"{kind}_{number}", kind, added) for number, added in enumerate(sizes)]
            else:
                plan.append(Evaluation(kind, kind, 0 if kind == "seen" else unseen))
        return tuple(plan)

    @property
    def task_names(self) -> list[str]:
        """Names of the evaluations."""
        return [evaluation.name for evaluation in self.plan]

    def names_of(self, index: int) -> tuple[str, ...]:
        """Return the names of the classes that a task asks for."""
        evaluation = self.plan[index]
        seen = self.names_of_set("seen") if evaluation.asks_seen else ()
        return (*seen, *self.names_of_set("unseen")[: evaluation.added])

    def encoded(self, index: int) -> EncodedDataset:
        """Return a task's queries and texts."""
        return AskedDataset(self.evaluated(index), self.plan[index].name)

    def task(self, index: int) -> MemoryTask:
        """Return one evaluation, from 0; the first one brings what may be learned from."""
        fewest = self._fewest_rows() if index == 0 else (0, 0)
        known = sum(self.task_sizes[:index])
        asked = self.evaluated(index)
        content = asked.content(with_shots=self.plan[index].kind == "few_shot")
        return MemoryTask(
            index,
            known,
            known + len(asked.class_names),
            self.plan[index].name,
            asked.class_names,
            AskedDataset(asked, self.plan[index].name),
            content,
            self.encoder_digest,
            self._training() if index == 0 else None,
            self._validation() if index == 0 else None,
            asked.items,
            fewest,
        )

    def evaluated(self, index: int) -> EncodedSet:
        """Return the classes of a task with the memory that it is about."""
        kind, added = self.plan[index].kind, self.plan[index].added
        if kind == "seen":
            return self._set("seen")
        unseen = self._set("unseen")
        if kind in ("union", GROWING):
            return joined([self._set("seen"), first_classes(unseen, added)]) if added else self._set("seen")
        if kind == "text_only":
            return without_images(unseen)
        if kind == "images_only":
            return without_texts(unseen)
        if kind == "wrong_memory":
            seen = self._set("seen")
            drawn = permutation(len(seen.class_names), self.config.split_seed, "wrong memory")
            return with_memory_of(unseen, seen, drawn[: len(unseen.class_names)])
        if kind == "few_shot" and not len(unseen.shots):
            raise UserError("benchmark.evaluations: few_shot needs shots. Type for example benchmark.shots=16")
        return unseen

    # ------------------------------------------------------------------ inside

    def _set(self, which: str) -> EncodedSet:
        """Return a set, encoded once, with its noise."""
        if which not in self._sets:
            known = self.encode_set(which)
            noise, seed = self.config.memory_noise, self.config.split_seed
            if noise:
                rows = image_rows(known.images)
                labels = noisy_labels(
                    rows.classes, noise, len(known.class_names), seed, self._memory_name(which), "memory"
                )
                known = relabelled_images(known, labels)
            self._sets[which] = known
        return self._sets[which]

    def _memory_name(self, which: str) -> str:
        """Return what keys the noise of a set's memory: sets with one memory have one noise."""
        if self.same_classes:
            return "seen"
        official = getattr(self.config, "selection", "clean") == "official"
        return "unseen" if official and which == "validation" else which

    def _fewest_rows(self) -> tuple[int, int]:
        """Make every memory before anything is learned, and say how small those that have images, or texts, are.

        Raises:
            UserError: an evaluation lacks what it needs; after the learning would be too late.
        """
        images, texts = [], []
        for index, evaluation in enumerate(self.plan):
            content = self.evaluated(index).content(with_shots=evaluation.kind == "few_shot")
            try:
                require_classes(content.shots or content.images, content.texts, content.class_count)
            except UserError as error:
                words = f"benchmark.evaluations, {evaluation.name}: {error}, or leave the evaluation out"
                raise UserError(words) from error
            images.append(len(content.images.classes))
            texts.append(len(content.texts.classes))
        fewest_images, fewest_texts = (min(filter(None, counts), default=0) for counts in (images, texts))
        return fewest_images, fewest_texts

    def _training(self) -> AskedMemory:
        seen = self._set("seen")
        if not len(seen.training):
            raise UserError(
                "no image of the classes of training is left to learn from: shots, set aside first, took all. "
                "Ask for fewer shots, or add images"
            )
        noise, seed = self.config.label_noise, self.config.split_seed
        labels = noisy_labels(seen.training.labels, noise, len(seen.class_names), seed, "training")
        queries = ImageFeatures(seen.training.features, labels, torch.arange(len(labels)))
        content = seen.content(self.config.training_shots)
        return AskedMemory(queries, content, seen.class_names, AskedDataset(seen, "training"))

    def _validation(self) -> AskedMemory:
        known = self._set("validation")
        content = known.content(self.config.training_shots)
        return AskedMemory(known.queries, content, known.class_names, AskedDataset(known, "validation"))


class AskedDataset:
    """The queries and prompts of a set as an :class:`~mmcl.protocol.EncodedDataset`, so that any method can answer.

    Args:
        known: the set.
        name: of the task, for messages.
    """

    def __init__(self, known: EncodedSet, name: str) -> None:
        self.known, self.name = known, name

    def sentences(self, prompts: str) -> Sentences:
        """Return empty strings in the places of a kind's texts."""
        features, classes = self.texts(prompts)
        return Sentences(("",) * len(features), classes)

    def texts(self, prompts: str) -> TextFeatures:
        """Return the features of a kind of prompts."""
        return self.known.prompts(prompts)

    def train(self, shots: int, passes: int, interpolation: str = "bilinear") -> ImageFeatures:
        """Return the first ``shots`` shots of each class; the plain view stands for every pass.

        Raises:
            UserError: a class has fewer.
        """
        labels = self.known.shots.labels
        counts = torch.bincount(labels, minlength=len(self.known.class_names))
        if shots and int(counts.min()) < shots:
            raise UserError(
                f"method.shots={shots}: {self.name} has {int(counts.min())} labelled shots of a class. Type for "
                f"example benchmark.shots={shots}"
            )
        return self.known.shots.select(first_rows(labels, shots)).with_views([0] * (1 + passes))

    def validation(self, per_class: int | None, views: int) -> ImageFeatures:
        """Refuse: nothing may be chosen on the classes that are asked."""
        raise UserError(
            f"{self.name} has no validation images of its classes: choose nothing on them (dmn: method.fusion=fixed, "
            "tip_adapter: method.search=fixed)"
        )

    def test(self, views: int) -> ImageFeatures:
        """Return the queries.

        Raises:
            UserError: several views are asked for; queries have the plain one.
        """
        if views > 1:
            raise UserError(f"{self.name} has plain queries, but {views} views are asked for. Type method.views=1")
        return self.known.queries
