"""Memory benchmarks of images and sentences: what a subclass lists is encoded once, each feature cached."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch

from mmcl.benchmarks.base import BenchmarkConfig
from mmcl.benchmarks.dataset_benchmark import EncodingBenchmark, EncodingConfig
from mmcl.benchmarks.memory_benchmark import MemoryBenchmark, MemoryBenchmarkConfig
from mmcl.benchmarks.memory_sets import ClassSet, ClassSets, EncodedSet
from mmcl.benchmarks.memory_splits import first_rows
from mmcl.errors import UserError
from mmcl.features.job import EncodingJob, Views
from mmcl.protocol import ImageFeatures, MemoryItems, Samples, Sentences


@dataclass
class MemoryImagesConfig(MemoryBenchmarkConfig, EncodingConfig):
    """Keys of memory benchmarks whose images are encoded here."""

    def __post_init__(self) -> None:
        """Refuse what either kind of keys refuses."""
        MemoryBenchmarkConfig.__post_init__(self)
        EncodingConfig.__post_init__(self)


class MemoryImages(MemoryBenchmark, EncodingBenchmark):
    """Sets of classes of images; a subclass lists them."""

    Config: ClassVar[type[BenchmarkConfig]] = MemoryImagesConfig
    config: MemoryImagesConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._listed: ClassSets | None = None

    @classmethod
    def told_by(cls, keys: Mapping[str, Any]) -> list[Path]:
        """Return the files and folders that are there and say what classes and texts are, by the benchmark's keys.

        What they hold is part of a run's identity. Images are not: the cache notices by their sizes and times.
        """
        return []

    @abstractmethod
    def read_sets(self) -> ClassSets:
        """List images and sentences of all classes. Raises UserError where files are missing or damaged."""

    def setup(self, stage: str | None = None) -> None:
        """List everything; does nothing the second time."""
        if self._listed is None:
            self._listed = self.read_sets()

    @property
    def listed(self) -> ClassSets:
        """What :meth:`read_sets` gave."""
        self.setup()
        assert self._listed is not None
        return self._listed

    @property
    def encoder_digest(self) -> str:
        """What the features depend on beside images and sentences."""
        return self.encoders.digest

    def names_of_set(self, which: str) -> tuple[str, ...]:
        """Return the class names of a set."""
        return self.listed.items()[which].class_names

    def encode_set(self, which: str) -> EncodedSet:
        """Encode a set."""
        known = self._within_limits(self.listed.items()[which])
        sentences = known.sentences
        return EncodedSet(
            class_names=known.class_names,
            training=self._encoded("training", known.training),
            queries=self._encoded("queries", known.queries),
            images=self._encoded("memory", known.images),
            texts=self.encoders.texts(f"{self.name}-texts", sentences, too_long="cut"),
            shots=self._encoded("shots", known.shots),
            prompts=lambda kind: self.encoders.texts(f"{self.name}-prompts-{kind}", known.prompts(kind)),
            items=MemoryItems(known.queries, known.images, sentences.texts),
        )

    def _within_limits(self, known: ClassSet) -> ClassSet:
        """Return a set with as much memory as the keys allow, by class."""
        images, texts = (
            first_rows(labels, len(labels) if most is None else most)
            for labels, most in (
                (known.images.labels, self.config.memory_images),
                (known.sentences.classes, self.config.max_sentences),
            )
        )
        bare = sorted(set(range(len(known.class_names))) - set(known.sentences.classes.tolist()))
        if bare:
            raise UserError(f"class {known.class_names[bare[0]]!r} has no text for the memory: every class needs some")
        kept = tuple(known.sentences.texts[row] for row in texts.tolist())
        return replace(
            known, images=known.images.select(images), sentences=Sentences(kept, known.sentences.classes[texts])
        )

    def _encoded(self, role: str, samples: Samples) -> ImageFeatures:
        if not len(samples):
            return ImageFeatures(torch.empty(0, 1, self.encoders.dimension), samples.labels, samples.sources)
        encoded = self.encoders.images(EncodingJob(f"{self.name}-{role}", samples, Views()))
        return ImageFeatures(encoded.features.float(), encoded.labels, torch.arange(len(encoded)))
