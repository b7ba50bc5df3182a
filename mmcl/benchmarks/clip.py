"""Benchmarks on which CLIP is adapted: eleven data sets, four shifts of ImageNet, CUB, and any folder of images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torchvision

from mmcl.benchmarks.base import DataItem
from mmcl.benchmarks.clip_catalogue import CATALOGUE, ClipDataset
from mmcl.benchmarks.clip_lists import Listed, Place, in_folders
from mmcl.benchmarks.clip_presence import count_present, partly, whole
from mmcl.benchmarks.dataset_benchmark import DatasetBenchmark, DatasetBenchmarkConfig, ImageTextDataset
from mmcl.benchmarks.download import fetch_folder
from mmcl.benchmarks.listing import class_folders
from mmcl.benchmarks.prompts import SIMPLE, Descriptions, read_descriptions, sentences_of_kind
from mmcl.config.schema import setting
from mmcl.errors import MissingFileError, UserError, nearest
from mmcl.protocol import Samples, Sentences


@dataclass
class ClipConfig(DatasetBenchmarkConfig):
    """Keys of the benchmarks made of published data sets."""

    datasets: list[str] = setting("Data sets in the order of the tasks.")
    download: bool = setting("Fetch absent images through torchvision where it can; false never uses the network.")
    partial: bool = setting("Take the listed images and classes that are there; false refuses an incomplete copy.")

    def __post_init__(self) -> None:
        """Refuse data sets that are not in the catalogue, or none."""
        super().__post_init__()
        for name in self.datasets:
            if name not in CATALOGUE:
                hint = nearest(name, CATALOGUE)
                raise UserError(f"benchmark.datasets: unknown {name!r}.{hint} Known: {', '.join(CATALOGUE)}.")
        if not self.datasets or len(set(self.datasets)) < len(self.datasets):
            raise UserError(f"benchmark.datasets={self.datasets}: expected at least one, none twice.")


class ClipBenchmark(DatasetBenchmark):
    """Published data sets, one task each, with their lists, class names, templates and prompt files."""

    Config: ClassVar[type[ClipConfig]] = ClipConfig
    config: ClipConfig

    def dataset_names(self) -> list[str]:
        """Return the data sets in the order of the tasks."""
        return list(self.config.datasets)

    def describe_data(self) -> list[DataItem]:
        """List folders, lists and prompt files of each data set, and how many of the listed images are there."""
        return [item for name in self.config.datasets for item in self._items(CATALOGUE[name])]

    def prepare_data(self) -> None:
        """Fetch absent images where that is allowed.

        Raises:
            UserError: folders of images are missing; all of them are named.
        """
        missing = []
        for name in self.config.datasets:
            entry = CATALOGUE[name]
            if not self._place(entry).images.is_dir() and self.config.download and entry.torchvision:
                self._fetch(entry)
            if not self._place(entry).images.is_dir():
                missing.append(self._advice(entry))
        if missing:
            raise UserError("\n".join(missing))

    def read_dataset(self, name: str) -> ImageTextDataset:
        """Read the lists of a data set and check that its images are there.

        Raises:
            UserError: a folder, list or image is missing, or a list is damaged.
        """
        entry = CATALOGUE[name]
        place = self._place(entry)
        if not place.images.is_dir():
            raise UserError(self._advice(entry))
        listed = entry.lists.read(place)
        listed = partly(name, listed) if self.config.partial else whole(name, listed, entry.classes, entry.images)

        def sentences(kind: str) -> Sentences:
            return sentences_of_kind(
                kind, listed.class_names, entry.templates, lambda: descriptions_of(entry, place, listed.class_names)
            )

        return _dataset(name, listed, sentences, entry.alteration)

    def _place(self, entry: ClipDataset) -> Place:
        folders = [self.root / folder for folder in entry.folders]
        return Place(self.root, next((folder for folder in folders if folder.is_dir()), folders[0]))

    def _items(self, entry: ClipDataset) -> list[DataItem]:
        place = self._place(entry)
        lists = entry.lists.files(place)
        prompts = place.find(entry.prompt_file, "cupl")
        meaning = f"{entry.name}: sentences, for method.prompts=cupl and tip_cupl only"
        items = [
            DataItem(place.images, f"{entry.name}: images, from {entry.source}", place.images.is_dir()),
            *(item._replace(meaning=f"{entry.name}: {item.meaning}") for item in lists),
            DataItem(prompts or self.root / "cupl" / entry.prompt_file, meaning, prompts is not None),
        ]
        return [*items, self._count(entry, place)] if place.images.is_dir() else items

    def _count(self, entry: ClipDataset, place: Place) -> DataItem:
        try:
            there, total = count_present(entry.lists.read(place), entry.images)
        except UserError as error:
            return DataItem(place.images, f"{entry.name}: {error}", False)
        enough = there > 0 if self.config.partial else there == total
        return DataItem(place.images, f"{entry.name}: {there} of {total} images", enough)

    def _fetch(self, entry: ClipDataset) -> None:
        source = getattr(torchvision.datasets, entry.torchvision)
        top = self.root / Path(entry.fetched).parts[0]
        fetch_folder(top, lambda root: source(root, download=True), self._advice(entry))

    def _advice(self, entry: ClipDataset) -> str:
        places = " or ".join(str(self.root / folder) for folder in entry.folders)
        fetch = ", type benchmark.download=true (move an incomplete folder away first)" if entry.torchvision else ""
        return (
            f"{entry.name}: expected its images in {places}. Get them from {entry.source}{fetch}, or type "
            "paths.data=<folder> if they lie elsewhere."
        )


@dataclass
class ClipImageFolderConfig(DatasetBenchmarkConfig):
    """Keys of the benchmark made from any tree of class folders."""

    folder: str = setting("Data set's folder below data: train/<class>/*, perhaps val/<class>/*, test/<class>/*.")
    templates: list[str] = setting("Templates of the tip prompts; {} stands for the class name.")

    def __post_init__(self) -> None:
        """Refuse templates that have no place for the name."""
        super().__post_init__()
        for template in self.templates:
            if template.count("{}") != 1:
                raise UserError(f"benchmark.templates: {template!r} needs one {{}} where the class name goes.")


class ClipImageFolder(DatasetBenchmark):
    """Any tree of class folders: names of the classes are those of the folders in ``test``, underscores as spaces.

    Without ``train`` it serves zero-shot settings. A prompt file is ``CuPL_prompts_<name>.json`` beside the splits.
    """

    Config: ClassVar[type[ClipImageFolderConfig]] = ClipImageFolderConfig
    config: ClipImageFolderConfig

    @property
    def folder(self) -> Path:
        """Folder of the data set."""
        return self.root / Path(self.config.folder).expanduser()

    def dataset_names(self) -> list[str]:
        """Return the one data set."""
        return [self.config.name]

    def describe_data(self) -> list[DataItem]:
        """Say where the splits and the prompt file are expected."""
        meanings = {"test": "test images", "train": "training images, for settings with labelled images"}
        items = [(self.folder / split, meaning) for split, meaning in meanings.items()]
        prompts = Place(self.root, self.folder).find(self._prompt_file(), "cupl")
        meaning = "sentences, for method.prompts=cupl and tip_cupl only"
        expected = DataItem(prompts or self.folder / self._prompt_file(), meaning, prompts is not None)
        return [*(DataItem(path, meaning, path.is_dir()) for path, meaning in items), expected]

    def read_dataset(self, name: str) -> ImageTextDataset:
        """List the images of the splits.

        Raises:
            UserError: ``test`` is missing, or a class of it has no training images where there are some.
        """
        if not (self.folder / "test").is_dir():
            raise UserError(
                f"{self.folder / 'test'} is missing. Expected: test/<class>/<image>, train/<class>/<image>."
            )
        names = tuple(class_folders(self.folder / "test"))
        train, validation, test = (self._split(split, names) for split in ("train", "val", "test"))
        reason = "" if len(train) else f"here without training images, expected in {self.folder / 'train'}"
        listed = Listed(names, train, validation, test, reason)
        listed = whole(name, listed, len(names), (None, None, None))

        def sentences(kind: str) -> Sentences:
            return sentences_of_kind(kind, names, self.config.templates or SIMPLE, lambda: self._descriptions(names))

        return _dataset(name, listed, sentences, "augmix")

    def _split(self, split: str, names: Sequence[str]) -> Samples:
        folder = self.folder / split
        unknown = sorted(set(class_folders(folder)) - set(names)) if folder.is_dir() else []
        if unknown:
            raise UserError(
                f"{folder / unknown[0]}: test has no class {unknown[0]!r}. Add test images or move it away."
            )
        return in_folders(self.folder, split, names)

    def _prompt_file(self) -> str:
        return f"CuPL_prompts_{self.config.name}.json"

    def _descriptions(self, names: Sequence[str]) -> Descriptions:
        path = Place(self.root, self.folder).find(self._prompt_file(), "cupl")
        if path is None:
            advice = "Write it: a list of sentences for each class name, as JSON"
            raise MissingFileError(_no_prompts(self.folder / self._prompt_file(), advice))
        return read_descriptions(path, names)


def descriptions_of(entry: ClipDataset, place: Place, class_names: Sequence[str]) -> Descriptions:
    """Read the prompt file of a data set; raises UserError where it is missing or lacks a class."""
    path = place.find(entry.prompt_file, "cupl")
    if path is None:
        advice = f"{entry.prompt_advice} and put it there under this name, as it is or compressed (.gz)"
        raise MissingFileError(_no_prompts(place.data / "cupl" / entry.prompt_file, advice))
    return read_descriptions(path, class_names)


def _no_prompts(path: Path, advice: str) -> str:
    return f"the prompt file {path} is missing. {advice}, or type method.prompts=tip, which needs no prompt file."


def _dataset(name: str, listed: Listed, sentences: Callable[[str], Sentences], alteration: str) -> ImageTextDataset:
    return ImageTextDataset(
        name=name,
        class_names=listed.class_names,
        train=listed.train,
        validation=listed.validation,
        test=listed.test,
        sentences=sentences,
        alteration=alteration,
        unlabelled=listed.unlabelled,
    )
