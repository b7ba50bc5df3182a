"""A memory out of a user's own features: the classes of one file become seen, validation and unseen ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from mmcl.benchmarks.base import BenchmarkConfig, DataItem
from mmcl.benchmarks.memory_benchmark import MemoryBenchmark, MemoryBenchmarkConfig
from mmcl.benchmarks.memory_dealing import ClassRoles, class_roles, deal, rows_of_classes
from mmcl.benchmarks.memory_sets import EncodedSet
from mmcl.benchmarks.memory_splits import first_rows
from mmcl.benchmarks.own_features import DEFAULT_LOGIT_SCALE, OwnEncodedDataset
from mmcl.config.schema import setting
from mmcl.errors import UserError, nearest
from mmcl.features.fingerprint import digest_file
from mmcl.features.own import KINDS, OwnFeatures, read_own_features
from mmcl.protocol import ImageFeatures, MemoryItems, TextFeatures

SHARES = ("validation_share", "unseen_share", "training_share", "shots_share")


@dataclass
class FeaturesMemoryConfig(MemoryBenchmarkConfig):
    """Keys of the memory benchmark of a user's own features."""

    file: str | None = setting("An npz or safetensors file of features and texts; given as paths.features=FILE.")
    logit_scale: float | None = setting("Factor of the cosine; null takes the file's, or 100 where it has none.")
    text_kinds: list[str] = setting("Kinds of text in the memory, out of template, description, caption.")
    validation_share: float = setting("Share of the classes that choose the epoch; at least one class.")
    unseen_share: float = setting("Share of the classes that only a memory knows; at least one class.")
    training_share: float = setting(
        "Share of each class's training images that are labelled queries; used of the classes of training alone."
    )
    shots_share: float = setting("Share of each class's training images set aside as shots; the memory gets the rest.")

    def __post_init__(self) -> None:
        """Refuse shares that leave nothing, and kinds of text that do not exist."""
        super().__post_init__()
        for name in SHARES:
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"benchmark.{name}={getattr(self, name)}: expected a share from 0 to below 1")
        if not self.training_share:
            raise UserError("benchmark.training_share=0: training needs queries. Type for example 0.4")
        for one, other in (SHARES[:2], SHARES[2:]):
            if getattr(self, one) + getattr(self, other) >= 1:
                raise UserError(f"benchmark.{one} and benchmark.{other} leave nothing: their sum has to be below 1")
        for kind in self.text_kinds:
            if kind not in KINDS:
                raise UserError(f"benchmark.text_kinds: unknown {kind!r}.{nearest(kind, KINDS)} Known: {KINDS}")
        if not self.text_kinds:
            raise UserError(f"benchmark.text_kinds=[]: expected one or more of {', '.join(KINDS)}")


class FeaturesMemory(MemoryBenchmark):
    """Sets of classes out of one file of features, see :mod:`mmcl.features.own`.

    ``image_train`` is dealt into training queries, memory and shots, class by class and alike for every class, so that
    an unseen class has as large a memory as a seen one; ``image_test`` is asked. ``image_validation`` is not used:
    validation is about classes of its own.
    """

    Config: ClassVar[type[BenchmarkConfig]] = FeaturesMemoryConfig
    config: FeaturesMemoryConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._content: OwnFeatures | None = None

    def setup(self, stage: str | None = None) -> None:
        """Read the file; does nothing the second time.

        Raises:
            UserError: the file is missing or damaged, or has too little for these keys.
        """
        if self._content is None:
            self._content = read_own_features(self.file)
            self._check_roles()

    @property
    def file(self) -> Path:
        """The file of features."""
        if not self.config.file:
            raise UserError("benchmark=features_memory needs a file. Type paths.features=FILE, an npz or safetensors")
        return Path(self.config.file).expanduser()

    @property
    def content(self) -> OwnFeatures:
        """What the file holds."""
        self.setup()
        assert self._content is not None
        return self._content

    @property
    def dimension(self) -> int:
        """Length D of a feature."""
        return self.content.dimension

    @property
    def logit_scale(self) -> float:
        """Factor of the cosine."""
        return self.config.logit_scale or self.content.logit_scale or DEFAULT_LOGIT_SCALE

    @cached_property
    def encoder_digest(self) -> str:
        """Digest of the file: features of another file may be of another encoder."""
        return digest_file(self.file)

    @cached_property
    def roles(self) -> ClassRoles:
        """Which classes are seen, for validation, unseen."""
        count = len(self.content.class_names)
        validation, unseen = (
            max(1, round(share * count)) for share in (self.config.validation_share, self.config.unseen_share)
        )
        return class_roles(count, validation, unseen, self.config.split_seed)

    def names_of_set(self, which: str) -> tuple[str, ...]:
        """Return the class names of a set."""
        return tuple(self.content.class_names[position] for position in self.roles.of(which))

    def encode_set(self, which: str) -> EncodedSet:
        """Choose the rows of a set."""
        content, positions = self.content, self.roles.of(which)
        learned = self._images(content.train, positions)
        training, images, shots = self._dealt(learned, self.names_of_set(which))
        if not len(images):
            raise UserError(
                f"{self.file}: no image of image_train is left for the memory of the {which} classes. Lower "
                "benchmark.training_share and benchmark.shots_share, or add images"
            )
        sentences, texts = self._texts(positions)
        return EncodedSet(
            class_names=self.names_of_set(which),
            training=learned.select(training if which == "seen" else training[:0]),
            queries=self._images(content.test, positions),
            images=learned.select(images),
            texts=texts,
            shots=learned.select(shots),
            prompts=lambda kind: self._prompts(kind, positions),
            items=MemoryItems(None, None, sentences),
        )

    def describe_data(self) -> list[DataItem]:
        """Say whether the file is there."""
        path = Path(self.config.file or "FILE").expanduser()
        if not path.is_file():
            return [DataItem(path, "features of images and texts: type paths.features=FILE", False)]
        seen, validation, unseen = map(len, self.roles)
        words = (f"{seen} seen, {validation} validation and {unseen} unseen classes", *self.content.remarks)
        return [DataItem(path, ", ".join(words), True)]

    # ------------------------------------------------------------------ inside

    def _check_roles(self) -> None:
        """Refuse sets that cannot be asked or learned from."""
        for split, which in (("train", "seen"), ("test", "seen"), ("test", "validation"), ("test", "unseen")):
            images: ImageFeatures = getattr(self.content, split)
            if not len(rows_of_classes(images.labels, self.roles.of(which), len(self.content.class_names))[0]):
                raise UserError(
                    f"{self.file}: image_{split} has no image of any of the {which} classes. Type another "
                    "benchmark.split_seed, or add images"
                )

    def _images(self, images: ImageFeatures, positions: Sequence[int]) -> ImageFeatures:
        """Return the plain views of some classes with labels in their order."""
        rows, labels = rows_of_classes(images.labels, positions, len(self.content.class_names))
        return ImageFeatures(images.features[rows, :1].float(), labels, torch.arange(len(rows)))

    def _dealt(self, images: ImageFeatures, names: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
        """Deal images out by the shares; the memory has as many of a class as the keys allow."""
        counts = torch.bincount(images.labels, minlength=len(names)).tolist()
        training, shots = (
            [int(share * count + 0.5) for count in counts]
            for share in (self.config.training_share, self.config.shots_share)
        )
        dealt = deal(images.labels, names, training, shots, self.config.split_seed, "features memory")
        kept = dealt.images
        if self.config.memory_images is not None:
            kept = kept[first_rows(images.labels[kept], self.config.memory_images)]
        return dealt.training, kept, dealt.shots

    def _texts(self, positions: Sequence[int]) -> tuple[tuple[str, ...], TextFeatures]:
        """Return the texts of some classes, as many of each as the keys allow, and their features."""
        content = self.content
        wanted = torch.tensor([kind in self.config.text_kinds for kind in content.text_kinds])
        rows, labels = rows_of_classes(content.text_classes, positions, len(content.class_names))
        rows, labels = rows[wanted[rows]], labels[wanted[rows]]
        bare = sorted(set(range(len(positions))) - set(labels.tolist()))
        if bare:
            name = content.class_names[positions[bare[0]]]
            raise UserError(
                f"{self.file}: class {name!r} has no text of the kinds benchmark.text_kinds={self.config.text_kinds}; "
                f"text_kind has: {', '.join(sorted(set(content.text_kinds)))}"
            )
        if self.config.max_sentences is not None:
            kept = first_rows(labels, self.config.max_sentences)
            rows, labels = rows[kept], labels[kept]
        sentences = tuple(content.text_sentences[row] for row in rows.tolist())
        return sentences, TextFeatures(content.text_features[rows], labels)

    def _prompts(self, kind: str, positions: Sequence[int]) -> TextFeatures:
        texts = OwnEncodedDataset(self.content, self.file).texts(kind)
        rows, labels = rows_of_classes(texts.classes, positions, len(self.content.class_names))
        return TextFeatures(texts.features[rows], labels)
