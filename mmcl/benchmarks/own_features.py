"""Precomputed features of any encoder as a benchmark: a file is a data set, a folder of files is a sequence of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from mmcl.benchmarks.base import BenchmarkConfig, DataItem
from mmcl.benchmarks.dataset_benchmark import WITHOUT_VALIDATION, FeatureTasks
from mmcl.benchmarks.few_shot import few_shot_rows
from mmcl.config.schema import setting
from mmcl.errors import UserError, nearest
from mmcl.features.own import KINDS, OwnFeatures, read_own_features
from mmcl.protocol import EncodedDataset, ImageFeatures, Sentences, TextFeatures

DEFAULT_LOGIT_SCALE = 100.0
SUFFIXES = (".npz", ".safetensors")
PROMPT_KINDS = {
    "simple": ("template",),
    "tip": ("template",),
    "cupl": ("description",),
    "tip_cupl": ("template", "description"),
    "full": KINDS,
}


class OwnEncodedDataset:
    """An :class:`~mmcl.protocol.EncodedDataset` over features that a user computed.

    Args:
        features: the content of the file.
        file: named in messages.
    """

    def __init__(self, features: OwnFeatures, file: Path) -> None:
        self.features, self.file = features, file

    def sentences(self, prompts: str) -> Sentences:
        """Return the texts of a kind of prompts; empty strings where the file has none.

        ``simple`` and ``tip`` are the templates, ``cupl`` the descriptions, ``tip_cupl`` both, ``full`` all texts.
        """
        rows = self._text_rows(prompts)
        texts = tuple(self.features.text_sentences[row] for row in rows.tolist())
        return Sentences(texts, self.features.text_classes[rows])

    def texts(self, prompts: str) -> TextFeatures:
        """Return the features of a kind of prompts."""
        rows = self._text_rows(prompts)
        return TextFeatures(self.features.text_features[rows], self.features.text_classes[rows])

    def train(self, shots: int, passes: int, interpolation: str = "bilinear") -> ImageFeatures:
        """Return ``shots`` training images of each class: ``(C * shots, 1 + passes, D)``.

        The file's augmentation passes come in turn and repeat where more are asked for; the plain view stands for
        them where it is alone. ``interpolation`` changes nothing: the views are in the file.
        """
        chosen = self._few(self.features.train, shots)
        there = chosen.features.shape[1] - 1
        views = [0] + [1 + number % there if there else 0 for number in range(passes)]
        return chosen.with_views(views)

    def validation(self, per_class: int | None, views: int) -> ImageFeatures:
        """Return validation images under ``views`` views."""
        images = self.features.validation
        if images is None:
            raise UserError(f"{self.file} has no image_validation to select by. Add it, or {WITHOUT_VALIDATION}")
        return self._views(images if per_class is None else self._few(images, per_class), views, "image_validation")

    def test(self, views: int) -> ImageFeatures:
        """Return the test images under ``views`` views."""
        return self._views(self.features.test, views, "image_test")

    def _text_rows(self, prompts: str) -> Tensor:
        if prompts not in PROMPT_KINDS:
            hint = nearest(prompts, PROMPT_KINDS)
            raise UserError(f"method.prompts={prompts}: expected one of {', '.join(PROMPT_KINDS)}.{hint}")
        wanted = PROMPT_KINDS[prompts]
        kinds, classes = self.features.text_kinds, self.features.text_classes
        missing = [kind for kind in wanted if kind not in kinds]
        if missing and prompts != "full":
            raise UserError(
                f"{self.file} has no text of kind {missing[0]} (text_kind has: {', '.join(sorted(set(kinds)))}), which "
                f"method.prompts={prompts} needs. Type method.prompts={self._served()}"
            )
        rows = torch.tensor([row for row, kind in enumerate(kinds) if kind in wanted])
        bare = sorted(set(range(len(self.features.class_names))) - set(classes[rows].tolist()))
        if bare:
            name = self.features.class_names[bare[0]]
            raise UserError(f"{self.file} has no text for class {name!r} under method.prompts={prompts}. Try full")
        return rows

    def _served(self) -> str:
        kinds = set(self.features.text_kinds)
        return next(name for name in ("tip", "cupl", "full") if name == "full" or set(PROMPT_KINDS[name]) <= kinds)

    def _few(self, images: ImageFeatures, shots: int) -> ImageFeatures:
        try:
            rows = few_shot_rows(images.labels, shots, self.features.class_names)
        except UserError as error:
            raise UserError(f"{self.file}: {error}") from error
        return images.select(rows)

    def _views(self, images: ImageFeatures, views: int, key: str) -> ImageFeatures:
        there = images.features.shape[1]
        if views > there:
            raise UserError(
                f"{self.file}: {key} has {there} views, but {views} are asked for. Type method.views={there}"
            )
        return images.with_views(slice(views))


@dataclass
class OwnFeaturesConfig(BenchmarkConfig):
    """Keys of the benchmark of a user's own features."""

    file: str | None = setting(
        "An npz or safetensors file of features, or a folder of them, a task each; given as paths.features=FILE."
    )
    logit_scale: float | None = setting("Factor of the cosine; null takes the file's, or 100 where it has none.")


class OwnFeaturesBenchmark(FeatureTasks):
    """Data sets whose features a user computed with one encoder; see :mod:`mmcl.features.own` for the files."""

    Config: ClassVar[type[BenchmarkConfig]] = OwnFeaturesConfig
    config: OwnFeaturesConfig

    def __init__(self, config: OwnFeaturesConfig) -> None:
        super().__init__(config)
        if config.logit_scale is not None and not config.logit_scale > 0:
            raise UserError(f"benchmark.logit_scale={config.logit_scale}: expected a number above 0, or null")
        self._contents: list[OwnFeatures] = []

    def setup(self, stage: str | None = None) -> None:
        """Read the files; does nothing the second time.

        Raises:
            UserError: a file is damaged, or the files are not of one encoder.
        """
        if self._contents:
            return
        contents = [read_own_features(file) for file in self.files]
        first = contents[0]
        for file, content in zip(self.files, contents, strict=True):
            scales_differ = self.config.logit_scale is None and content.logit_scale != first.logit_scale
            if content.dimension != first.dimension or scales_differ:
                raise UserError(
                    f"{file} has features of length {content.dimension} and logit_scale {content.logit_scale}, "
                    f"{self.files[0]} of {first.dimension} and {first.logit_scale}: a folder is for one encoder"
                )
        self._contents = contents

    @property
    def files(self) -> list[Path]:
        """The files of features, by name."""
        if not self.config.file:
            raise UserError("benchmark=features needs a file. Type paths.features=FILE, an npz or safetensors file")
        path = Path(self.config.file).expanduser()
        if not path.is_dir():
            return [path]
        found = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
        if not found:
            raise UserError(f"{path} holds no {' or '.join(SUFFIXES)} file. Type paths.features=FILE")
        return found

    @property
    def contents(self) -> list[OwnFeatures]:
        """The content of each file."""
        self.setup()
        return self._contents

    @property
    def dimension(self) -> int:
        """Length D of a feature."""
        return self.contents[0].dimension

    @property
    def logit_scale(self) -> float:
        """Factor of the cosine."""
        return self.config.logit_scale or self.contents[0].logit_scale or DEFAULT_LOGIT_SCALE

    @property
    def task_names(self) -> list[str]:
        """Names of the files without their endings."""
        return [file.stem for file in self.files]

    def names_of(self, index: int) -> tuple[str, ...]:
        """Return the class names of a file."""
        return self.contents[index].class_names

    def encoded(self, index: int) -> EncodedDataset:
        """Return the data set of a file."""
        return OwnEncodedDataset(self.contents[index], self.files[index])

    def describe_data(self) -> list[DataItem]:
        """Say whether the file is there."""
        path = Path(self.config.file or "FILE").expanduser()
        if not path.exists():
            return [DataItem(path, "features: type paths.features=FILE", False)]
        words = [", ".join(content.remarks) or "features" for content in self.contents]
        return [DataItem(file, meaning, True) for file, meaning in zip(self.files, words, strict=True)]
