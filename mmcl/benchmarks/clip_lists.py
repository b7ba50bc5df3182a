"""Which images the CLIP data sets have, of which class and in which split: from their published lists and folders."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from mmcl.benchmarks.base import DataItem
from mmcl.benchmarks.listing import class_folders, list_folders
from mmcl.benchmarks.prompts import read_json
from mmcl.errors import UserError
from mmcl.images import FileImages
from mmcl.protocol import Samples

SPLITS = ("train", "val", "test")
VALIDATION_EVERY = 50
COOP = "https://github.com/KaiyangZhou/CoOp (DATASETS.md)"


class Place(NamedTuple):
    """Where a data set lies: ``data`` holds all of them, ``images`` is the folder that its paths are relative to."""

    data: Path
    images: Path

    def find(self, name: str, shared: str) -> Path | None:
        """Return a list or prompt file, perhaps with ``.gz`` behind its name.

        Looked for beside the images, in the folders above them up to ``data``, and in ``data/shared``.
        """
        above = [folder for folder in self.images.parents if folder.is_relative_to(self.data)]
        for folder in (self.images, *above, self.data / shared):
            for path in (folder / name, folder / f"{name}.gz"):
                if path.is_file():
                    return path
        return None


class Listed(NamedTuple):
    """A data set as its lists or folders give it; images need not be there.

    ``class_names`` has C names, labels are positions in it. ``unlabelled`` says why there is no training list, as
    the end of a sentence that begins with the data set's name; it is empty where there is one.
    """

    class_names: tuple[str, ...]
    train: Samples
    validation: Samples
    test: Samples
    unlabelled: str = ""


class Lists(Protocol):
    """How a data set says which images it has."""

    def files(self, place: Place) -> list[DataItem]:
        """Say which files and folders are needed beside the folder of images."""
        ...

    def read(self, place: Place) -> Listed:
        """Read the lists. Raises UserError where one is missing or of another form."""
        ...


@dataclass(frozen=True)
class SplitFile:
    """A split file of CoOp: ``{"train": [[path, label, class name], ...], "val": ..., "test": ...}``.

    Attributes:
        name: of the file, without ``.gz``.
        test_list: an official list that equals the file's test part; stands in for it where no labels are needed.
    """

    name: str
    test_list: str = ""

    def files(self, place: Place) -> list[DataItem]:
        """Name the split file, or what stands in for it."""
        found = place.find(self.name, "splits")
        if found is None and self.test_list and (stand_in := place.find(self.test_list, "splits")):
            return [DataItem(stand_in, f"test list; few-shot settings need {self.name} as well", True)]
        path = found or place.data / "splits" / self.name
        return [DataItem(path, f"training, validation and test list, from {COOP}", found is not None)]

    def read(self, place: Place) -> Listed:
        """Read the three lists, or the official test list alone."""
        path = place.find(self.name, "splits")
        if path is not None:
            return read_split_file(path, place.images)
        stand_in = place.find(self.test_list, "splits") if self.test_list else None
        if stand_in is None:
            raise UserError(
                f"{self.name} is missing. Get it from {COOP} and put it into {place.data / 'splits'} or "
                f"{place.images.parent}, as it is or compressed (.gz)."
            )
        reason = f"here without {self.name}, which lists its training images (from {COOP})"
        return read_scene_list(stand_in, place.images, reason)


@dataclass(frozen=True)
class AircraftLists:
    """The lists of FGVC-Aircraft: ``variants.txt`` and ``images_variant_<split>.txt`` beside ``images/``."""

    def files(self, place: Place) -> list[DataItem]:
        """Name the four lists."""
        lists = [(f"images_variant_{split}.txt", f"{split} list") for split in SPLITS]
        named = [(place.images / name, meaning) for name, meaning in [("variants.txt", "class names"), *lists]]
        return [DataItem(path, meaning, path.is_file()) for path, meaning in named]

    def read(self, place: Place) -> Listed:
        """Read the lists; the order of the variants is that of the labels."""
        names = _lines(place.images / "variants.txt")
        label_of = {name: label for label, name in enumerate(names)}
        parts = []
        for split in SPLITS:
            path = place.images / f"images_variant_{split}.txt"
            rows = [line.partition(" ") for line in _lines(path)]
            unknown = [name for _, _, name in rows if name not in label_of]
            if unknown:
                raise UserError(f"{path}: {unknown[0]!r} is not in variants.txt; replace both by good copies.")
            named = [(f"images/{image}.jpg", label_of[name]) for image, _, name in rows]
            parts.append(_samples(place.images, named))
        train, validation, test = parts
        return Listed(tuple(names), train, validation, test)


@dataclass(frozen=True)
class CubLists:
    """The lists of CUB-200-2011: images by number, their classes, and which of them train; no validation."""

    def files(self, place: Place) -> list[DataItem]:
        """Name the four lists."""
        names = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt")
        return [DataItem(place.images / name, "official list", (place.images / name).is_file()) for name in names]

    def read(self, place: Place) -> Listed:
        """Read the lists; class names lose their numbers and underscores."""
        root = place.images
        paths, labels, trains, classes = (_numbered(item.path) for item in self.files(place))
        names = tuple(classes[number].partition(".")[2].replace("_", " ") for number in sorted(classes))
        label_of = {str(number): label for label, number in enumerate(sorted(classes))}
        rows: dict[str, list[tuple[str, int]]] = {"0": [], "1": []}
        for number in sorted(paths):
            if labels.get(number) not in label_of or trains.get(number) not in rows:
                raise UserError(f"{root}: image {number} of images.txt has no class or split; bring whole lists.")
            rows[trains[number]].append((f"images/{paths[number]}", label_of[labels[number]]))
        train, none, test = (_samples(root, part) for part in (rows["1"], [], rows["0"]))
        return Listed(names, train, none, test)


@dataclass(frozen=True)
class ImageNetFolders:
    """ImageNet in ``train/<wnid>/`` and ``val/<wnid>/``: ``val`` is the test set.

    Every 50th training image of a class, in the order of the file names from the first on, is a validation image; the
    others are the pool of the few shots. Without ``train`` the set serves tests alone.
    """

    def files(self, place: Place) -> list[DataItem]:
        """Name both folders."""
        test, train = place.images / "val", place.images / "train"
        meaning = "training images, for settings with labelled images"
        return [DataItem(test, "test images", test.is_dir()), DataItem(train, meaning, train.is_dir())]

    def read(self, place: Place) -> Listed:
        """List the images of the 1000 classes."""
        wnids = imagenet_wnids()
        _refuse_unknown(place.images / "val", wnids)
        test = in_folders(place.images, "val", wnids)
        none = _samples(place.images, [])
        if not (place.images / "train").is_dir():
            reason = f"here without its training images, expected in {place.images / 'train'}"
            return Listed(imagenet_names(), none, none, test, reason)
        pool = in_folders(place.images, "train", wnids)
        held_out = _place_in_class(pool.labels) % VALIDATION_EVERY == 0
        train, validation = (_numbered_anew(pool.select(rows)) for rows in (~held_out, held_out))
        return Listed(imagenet_names(), train, validation, test)


@dataclass(frozen=True)
class WnidFolders:
    """A shifted test set of ImageNet in folders named by wnid: its classes are those that have a folder."""

    def files(self, place: Place) -> list[DataItem]:
        """Name nothing: the folder of images says all."""
        return []

    def read(self, place: Place) -> Listed:
        """List the folders; classes are in ascending ImageNet index."""
        folders = class_folders(place.images)
        wnids = imagenet_wnids()
        _refuse_unknown(place.images, wnids)
        index_of = {wnid: index for index, wnid in enumerate(wnids)}
        folders.sort(key=index_of.__getitem__)
        names = tuple(imagenet_names()[index_of[folder]] for folder in folders)
        return _shifted(names, place.images, folders)


@dataclass(frozen=True)
class NumberFolders:
    """ImageNet-V2 in folders ``0`` to ``999``: the number is the class."""

    def files(self, place: Place) -> list[DataItem]:
        """Name nothing: the folder of images says all."""
        return []

    def read(self, place: Place) -> Listed:
        """List the folders in the order of the numbers, not of the strings."""
        names = imagenet_names()
        return _shifted(names, place.images, [str(label) for label in range(len(names))])


def read_split_file(path: Path, images: Path) -> Listed:
    """Read a split file of CoOp.

    Args:
        path: the file.
        images: folder that the paths in it are relative to.

    Raises:
        UserError: another form, or labels that are not ``0..C-1`` with one name each.
    """
    content = read_json(path)
    advice = f"Replace it by the published file, from {COOP}."
    if not isinstance(content, dict) or any(split not in content for split in SPLITS):
        raise UserError(f"{path} is no object with {', '.join(SPLITS)}. {advice}")
    name_of: dict[int, str] = {}
    parts = []
    for split in SPLITS:
        for row in content[split]:
            if not (isinstance(row, list) and [type(entry) for entry in row] == [str, int, str]):
                raise UserError(f"{path}, {split}: {row!r} is not [path, label, class name]. {advice}")
            if name_of.setdefault(row[1], row[2]) != row[2]:
                raise UserError(f"{path}: label {row[1]} is both {name_of[row[1]]!r} and {row[2]!r}. {advice}")
        parts.append(_samples(images, [(row[0], row[1]) for row in content[split]]))
    if sorted(name_of) != list(range(len(name_of))):
        raise UserError(f"{path}: the labels do not run from 0 to {len(name_of) - 1} without a gap. {advice}")
    train, validation, test = parts
    return Listed(tuple(name_of[label] for label in sorted(name_of)), train, validation, test)


def read_scene_list(path: Path, images: Path, unlabelled: str) -> Listed:
    """Read an official test list of SUN397, lines such as ``/a/apse/indoor/sun_abc.jpg``.

    Classes are the sorted folders; the words of a name stand in reverse order of the folders: "indoor apse".
    """
    paths = [line.lstrip("/") for line in _lines(path)]
    folders = sorted({os.path.dirname(image) for image in paths})
    label_of = {folder: label for label, folder in enumerate(folders)}
    names = tuple(" ".join(reversed(folder.split("/")[1:])) for folder in folders)
    none = _samples(images, [])
    test = _samples(images, [(image, label_of[os.path.dirname(image)]) for image in paths])
    return Listed(names, none, none, test, unlabelled)


def imagenet_wnids() -> list[str]:
    """Return the 1000 sorted wnids: position is class."""
    from timm.data.imagenet_info import ImageNetInfo  # late: the import takes seconds

    wnids: list[str] = ImageNetInfo("imagenet-1k").label_names()  # type: ignore[no-untyped-call]
    return wnids


def imagenet_names() -> tuple[str, ...]:
    """Return the 1000 class names that CLIP's authors cleaned, in the order of the wnids; two occur twice."""
    from open_clip import IMAGENET_CLASSNAMES  # late: the import takes seconds

    return tuple(IMAGENET_CLASSNAMES)


def in_folders(root: Path, split: str, folders: Sequence[str]) -> Samples:
    """List the images below ``root/split/<folder>/``, sorted by class and path; a missing folder has none."""
    there = [label for label, folder in enumerate(folders) if (root / split / folder).is_dir()]
    if not there:
        return _samples(root, [])
    samples = list_folders(root, split, [folders[label] for label in there])
    return Samples(samples.images, torch.tensor(there)[samples.labels], samples.sources)


def _shifted(names: tuple[str, ...], root: Path, folders: list[str]) -> Listed:
    none = _samples(root, [])
    return Listed(names, none, none, in_folders(root, ".", folders), "a shifted test set of imagenet")


def _samples(root: Path, rows: Sequence[tuple[str, int]]) -> Samples:
    labels = torch.tensor([label for _, label in rows], dtype=torch.int64)
    return Samples(FileImages(root, tuple(path for path, _ in rows)), labels, torch.arange(len(rows)))


def _numbered_anew(samples: Samples) -> Samples:
    """Make sources positions in the split again, after rows were left out."""
    return Samples(samples.images, samples.labels, torch.arange(len(samples)))


def _place_in_class(labels: Tensor) -> Tensor:
    """Return the position of each row among the rows of its class; labels ``(N,)`` are sorted."""
    counts = torch.bincount(labels)
    return torch.arange(len(labels)) - (counts.cumsum(0) - counts)[labels]


def _refuse_unknown(folder: Path, wnids: Sequence[str]) -> None:
    unknown = sorted(set(class_folders(folder)) - set(wnids))
    if unknown:
        raise UserError(f"{folder / unknown[0]}: {unknown[0]!r} is no ImageNet class (wnid). Move it away.")


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}. Bring the data set's official list.") from error
    return [line.strip() for line in lines if line.strip()]


def _numbered(path: Path) -> dict[int, str]:
    """Read lines ``number text``."""
    rows = [line.partition(" ") for line in _lines(path)]
    wrong = [number for number, _, text in rows if not number.isdecimal() or not text]
    if wrong:
        raise UserError(f"{path}: the line of {wrong[0]!r} is not 'number text'; bring the official list.")
    return {int(number): text.strip() for number, _, text in rows}
