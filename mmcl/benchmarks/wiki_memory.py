"""A memory of web images and Wikipedia articles, with the folders and splits of MML's published code.

Kang et al., "Memory-Modular Classification: Learning to Generalize with Memory Replacement", TMLR 2025: ImageNet
classes that nothing was learned about are answered from what the web says. ``labels.txt`` and the articles,
``wiki/desc_<article>.txt``, lie beside the images.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from mmcl.benchmarks.base import BenchmarkConfig, DataItem
from mmcl.benchmarks.memory_dealing import Pool, deal_pool, first_of_classes
from mmcl.benchmarks.memory_folders import (
    PoolMemoryConfig,
    check_selection,
    class_set,
    folders_in,
    images_in,
    web_images,
)
from mmcl.benchmarks.memory_images import MemoryImages
from mmcl.benchmarks.memory_sets import ClassSet, ClassSets
from mmcl.benchmarks.memory_splits import WEB_SOURCES, class_halves, class_targets, read_web_list
from mmcl.benchmarks.memory_texts import check_labels_rule, read_wiki_words
from mmcl.config.schema import setting
from mmcl.errors import UserError, nearest
from mmcl.protocol import Samples
from mmcl.randomness import permutation

SOURCES = ("folders", *WEB_SOURCES, "training")
Folders = Mapping[str, str]
PARTS = "imagenet100 has train.X1 to train.X4 and val.X, a folder for each class in them"


@dataclass
class WikiMemoryConfig(PoolMemoryConfig):
    """Keys of memory benchmarks with articles."""

    folder: str = setting("Folder below data that has the images, labels.txt and wiki/.")
    labels_rule: str = setting("How a line of labels.txt is split: official, or whole_name for names with blanks.")
    web_source: str = setting(
        "Images of the memory: folders (memory/<class>/*.jpg), google or flickr (lists of WebVision v1), or training "
        "(labelled images of the same classes that are neither learned from nor asked)."
    )
    web_folder: str | None = setting("Folder of WebVision v1, below data; null where its lists are not used.")
    selection: str = setting("clean: other classes than the asked ones choose the epoch; official: the asked ones.")
    validation_classes: int = setting("Classes of training held out to choose the epoch, with selection=clean.")

    def __post_init__(self) -> None:
        """Refuse sources and selections that do not exist."""
        super().__post_init__()
        check_selection(self.selection)
        check_labels_rule(self.labels_rule)
        if self.web_source not in SOURCES:
            hint = nearest(self.web_source, SOURCES)
            raise UserError(f"benchmark.web_source={self.web_source}: expected one of {', '.join(SOURCES)}.{hint}")
        if self.web_source in WEB_SOURCES and self.web_folder is None:
            raise UserError(
                f"benchmark.web_source={self.web_source} needs WebVision v1. Type benchmark.web_folder=webvision"
            )


class Layout(NamedTuple):
    """Where the labelled images of classes lie: folder by class id, in the order of the labels.

    Attributes:
        seen: classes of training.
        validation: classes of validation; None where some of the seen ones are held out for it.
        unseen: classes that only a memory knows.
        asked: further folders of images that are asked, by class id; a class without one is asked about labelled ones.
        per_class: most labelled images of a class, the first ones by name; None for all.
    """

    seen: Folders
    validation: Folders | None
    unseen: Folders
    asked: Folders
    per_class: int | None


class WikiMemory(MemoryImages):
    """Classes in folders with articles; a subclass says which are seen."""

    Config: ClassVar[type[BenchmarkConfig]] = WikiMemoryConfig
    config: WikiMemoryConfig

    @abstractmethod
    def read_layout(self) -> Layout:
        """Find the class folders. Raises UserError where they are missing."""

    @classmethod
    def told_by(cls, keys: Mapping[str, Any]) -> list[Path]:
        """Return what says which classes there are and what is said about them."""
        folder = Path(keys["data"]).expanduser() / Path(keys["folder"]).expanduser()
        names = ("labels.txt", "wiki", *(f"{split}_label.json" for split in ("trn", "val", "tst")))
        return [folder / name for name in names if (folder / name).exists()]

    @property
    def folder(self) -> Path:
        """Folder of the data set."""
        return self.root / Path(self.config.folder).expanduser()

    @cached_property
    def layout(self) -> Layout:
        """What :meth:`read_layout` gave, with classes for validation.

        Raises:
            UserError: a class that is learned from is asked as unseen, or no class is left for training.
        """
        layout = self.read_layout()
        twice = sorted(set(layout.seen) & {*layout.unseen, *(layout.validation or ())})
        if twice:
            raise UserError(
                f"{self.folder}: class {twice[0]!r} is learned from ({layout.seen[twice[0]]}) and asked as unseen. "
                "Keep one of its folders"
            )
        if layout.validation is not None:
            return layout
        if self.config.selection == "official":
            return layout._replace(validation=layout.unseen)
        held_out = self.config.validation_classes
        if not 0 < held_out < len(layout.seen):
            raise UserError(
                f"benchmark.validation_classes={held_out}: expected 1 to {len(layout.seen) - 1}, out of the "
                f"{len(layout.seen)} classes of training"
            )
        drawn = permutation(len(layout.seen), self.config.split_seed, "validation classes")[:held_out].tolist()
        ids = list(layout.seen)
        chosen = {ids[place] for place in drawn}
        seen, validation = (
            {class_id: folder for class_id, folder in layout.seen.items() if (class_id in chosen) == wanted}
            for wanted in (False, True)
        )
        return layout._replace(seen=seen, validation=validation)

    def read_sets(self) -> ClassSets:
        """List the images of all classes and read their articles.

        Raises:
            UserError: a folder or file is missing or damaged, or a class has too few images.
        """
        layout = self.layout
        assert layout.validation is not None
        sets = {"seen": layout.seen, "validation": layout.validation, "unseen": layout.unseen}
        return ClassSets(**{which: self._class_set(which, folders) for which, folders in sets.items()})

    def describe_data(self) -> list[DataItem]:
        """Say where images, articles and web images are expected."""
        wanted = [
            (self.folder / "labels.txt", "id, article and name of each class, a line each"),
            (self.folder / "wiki", "articles, desc_<article>.txt"),
        ]
        if self.config.web_source == "folders":
            wanted.append((self.folder / "memory", "web images, <class>/*.jpg"))
        elif self.config.web_source != "training":
            name = f"info/train_filelist_{self.config.web_source}.txt"
            wanted += [(self._web_folder / part, "WebVision v1") for part in (name, "info/synsets.txt")]
        items = [DataItem(path, meaning, path.exists()) for path, meaning in wanted]
        try:
            layout = self.layout
        except UserError as error:
            return [DataItem(self.folder, str(error), False), *items]
        sizes = f"{len(layout.seen)} seen, {len(layout.validation or ())} validation, {len(layout.unseen)} unseen"
        return [DataItem(self.folder, f"images of {sizes} classes", True), *items]

    # ------------------------------------------------------------------ inside

    @property
    def _web_folder(self) -> Path:
        return self.root / Path(self.config.web_folder or "").expanduser()

    def _class_set(self, which: str, folders: Folders) -> ClassSet:
        config, ids = self.config, tuple(folders)
        labelled = first_of_classes(images_in(self.folder, list(folders.values())), self.layout.per_class)
        asked = None
        if all(class_id in self.layout.asked for class_id in ids):
            asked = images_in(self.folder, [self.layout.asked[class_id] for class_id in ids])
        counts = config.counts if which == "seen" else config.counts._replace(training=0)
        parts = deal_pool(Pool(ids, labelled, asked, self._web(ids)), counts, config.split_seed)
        words = read_wiki_words(self.folder, ids, config.templates, config.memory_prompts, config.labels_rule)
        return class_set(words, parts, which)

    def _web(self, ids: tuple[str, ...]) -> Samples | None:
        source = self.config.web_source
        if source == "training":
            return None
        if source in WEB_SOURCES:
            targets = {class_id: label for label, class_id in enumerate(ids)}
            return read_web_list(self._web_folder, source, targets, self.config.memory_images or 0)
        images = web_images(self.folder / "memory", ids)
        if images is None:
            raise UserError(
                f"{self.folder / 'memory'} is missing. Expected web images, memory/<class>/*.jpg; or type "
                "benchmark.web_source=training, or google with benchmark.web_folder=<WebVision v1>"
            )
        return images


# ---------------------------------------------------------------------- ImageNet-100


@dataclass
class ImageNet100WikiConfig(WikiMemoryConfig):
    """Keys of ImageNet-100 with articles."""

    unseen_part: str = setting("Which of the parts of 25 classes only a memory knows: X1, X2, X3 or X4.")


class ImageNet100Wiki(WikiMemory):
    """ImageNet-100 in ``train.X1`` to ``train.X4``: one part is unseen, ``val.X`` has test images of the seen ones."""

    Config: ClassVar[type[BenchmarkConfig]] = ImageNet100WikiConfig
    config: ImageNet100WikiConfig

    def read_layout(self) -> Layout:
        """Find the parts.

        Raises:
            UserError: a part is missing, or ``val.X`` lacks a class.
        """
        parts = sorted(path.name for path in self.folder.glob("train.X*") if path.is_dir())
        unseen = f"train.{self.config.unseen_part}"
        if unseen not in parts or len(parts) < 2:
            raise UserError(f"{self.folder / unseen} or all other parts are missing. {PARTS}")
        folders = {part: {name: f"{part}/{name}" for name in folders_in(self.folder / part, PARTS)} for part in parts}
        seen = {name: folder for part in parts if part != unseen for name, folder in folders[part].items()}
        tested = folders_in(self.folder / "val.X", PARTS)
        lacking = sorted(set(seen) - set(tested))
        if lacking:
            raise UserError(
                f"{self.folder / 'val.X'} lacks {len(lacking)} classes of training, {lacking[0]!r}. {PARTS}"
            )
        asked = {name: f"val.X/{name}" for name in tested if name in seen}
        return Layout(dict(sorted(seen.items())), None, folders[unseen], asked, None)


# ---------------------------------------------------------------------- ImageNet


@dataclass
class ImageNetUnseenConfig(WikiMemoryConfig):
    """Keys of ImageNet with unseen classes."""

    subset_seed: int | None = setting(
        "Splits a plain train/<wnid>/ as the published generator does: 750 classes to learn from, 250 unseen; 7 there. "
        "null reads train/, val/ and test/, each with classes of its own."
    )
    subset_images: int | None = setting("Most images of a class, the first ones by name; published: 130, null: all.")


class ImageNetUnseen(WikiMemory):
    """ImageNet classes that are disjoint between ``train/``, ``val/`` and ``test/``, or one tree split by a seed."""

    Config: ClassVar[type[BenchmarkConfig]] = ImageNetUnseenConfig
    config: ImageNetUnseenConfig

    def read_layout(self) -> Layout:
        """Find the splits; ``<split>_label.json`` may say which label each class has, and which belong to it.

        Raises:
            UserError: a folder is missing, or a list of labels is damaged.
        """
        if self.config.subset_seed is not None:
            names = folders_in(self.folder / "train", "Expected ImageNet's train/<wnid>/<image>")
            halves = class_halves(names, self.config.subset_seed)
            learned, held_out = ({name: f"train/{name}" for name in half} for half in halves)
            return Layout(learned, None, held_out, {}, self.config.subset_images)
        seen, validation = self._split("train", "trn"), self._split("val", "val")
        if not (self.folder / "test").is_dir():
            return Layout(seen, None, validation, {}, self.config.subset_images)
        unseen = self._split("test", "tst")
        own = None if set(validation) & set(unseen) else validation
        return Layout(seen, own, unseen, {}, self.config.subset_images)

    def _split(self, split: str, name: str) -> Folders:
        advice = (
            "Expected train/, val/ and test/ with class folders, or type benchmark.subset_seed=7 for a plain train/"
        )
        targets = class_targets(self.folder / f"{name}_label.json", folders_in(self.folder / split, advice))
        return {class_id: f"{split}/{class_id}" for class_id in sorted(targets, key=targets.__getitem__)}
