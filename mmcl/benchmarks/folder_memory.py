"""A memory out of any class folders: images to learn from, images to ask about, and texts that the user brings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from mmcl.benchmarks.base import BenchmarkConfig, DataItem
from mmcl.benchmarks.memory_dealing import Pool, class_roles, deal_pool
from mmcl.benchmarks.memory_folders import (
    PoolMemoryConfig,
    class_set,
    folders_in,
    images_in,
    refuse_unknown_folders,
)
from mmcl.benchmarks.memory_images import MemoryImages
from mmcl.benchmarks.memory_sets import ClassSet, ClassSets
from mmcl.benchmarks.memory_texts import NO_PROMPTS, ClassWords, NamedClass, name_classes, read_own_sentences
from mmcl.config.schema import setting
from mmcl.errors import UserError


@dataclass
class FolderMemoryConfig(PoolMemoryConfig):
    """Keys of the memory benchmark made from any tree of class folders."""

    folder: str = setting("Data set's folder below data; the folders and files of the other keys are below it.")
    train: str = setting("Folder of labelled images, <class>/*: its folders are the classes.")
    test: str | None = setting("Folder of the images that are asked, <class>/*; null asks some of the labelled ones.")
    memory: str | None = setting("Folder of images for the memory, <class>/*; null keeps some of the labelled ones.")
    texts: str | None = setting(
        "Folder of <class>.txt, a sentence a line, or JSON of sentences by class name; null has the prompts alone."
    )
    properties: str | None = setting("JSON of properties by class name, for classes that texts lacks; null for none.")
    class_names: str | None = setting(
        "File of lines 'folder<TAB>name, other name'; null takes ImageNet's names of wnids, else the folders' names."
    )
    validation_classes: int = setting("Classes that choose the epoch, drawn by split_seed.")
    unseen_classes: int = setting("Classes that only a memory knows, drawn by split_seed.")

    def __post_init__(self) -> None:
        """Refuse a memory without texts."""
        super().__post_init__()
        if self.texts is None and self.properties is None and self.memory_prompts == NO_PROMPTS:
            raise UserError(
                "benchmark.texts=null goes with benchmark.memory_prompts=full, simple or tip: every class needs some "
                "text"
            )


class FolderMemory(MemoryImages):
    """Class folders with texts: the classes are drawn to be seen, for validation, or unseen.

    Without a folder of images for the memory it is made of the labelled ones, dealt alike for every class, so that an
    unseen class has as large a memory as a seen one.
    """

    Config: ClassVar[type[BenchmarkConfig]] = FolderMemoryConfig
    config: FolderMemoryConfig

    @classmethod
    def told_by(cls, keys: Mapping[str, Any]) -> list[Path]:
        """Return what says which classes there are and what is said about them."""
        folder = Path(keys["data"]).expanduser() / Path(keys["folder"]).expanduser()
        names = (keys["texts"], keys["properties"], keys["class_names"])
        return [folder / name for name in names if name is not None and (folder / name).exists()]

    @property
    def folder(self) -> Path:
        """Folder of the data set."""
        return self.root / Path(self.config.folder).expanduser()

    def read_sets(self) -> ClassSets:
        """List the images of all classes and read their texts.

        Raises:
            UserError: a folder or file is missing or damaged, test or memory have other classes, or there are too few.
        """
        config = self.config
        roles = class_roles(
            len(self.class_ids), config.validation_classes, config.unseen_classes, self.config.split_seed
        )
        for name in (config.test, config.memory):
            if name is not None:
                refuse_unknown_folders(self.folder / name, self.class_ids, str(self.folder / config.train))
        return ClassSets(*(self._class_set(which, roles.of(which)) for which in roles._fields))

    @cached_property
    def class_ids(self) -> tuple[str, ...]:
        """Names of the class folders, sorted."""
        return tuple(folders_in(self.folder / self.config.train, self._advice))

    def describe_data(self) -> list[DataItem]:
        """Say where images and texts are expected, and how many there are."""
        config = self.config
        wanted = (
            (config.train, "labelled images"),
            (config.test, "images that are asked"),
            (config.memory, "images for the memory"),
            (config.texts, "texts about the classes"),
            (config.properties, "properties of classes without texts"),
            (config.class_names, "class names"),
        )
        items = [
            DataItem(self.folder / name, meaning, (self.folder / name).exists())
            for name, meaning in wanted
            if name is not None
        ]
        return [*items, self._whole()] if all(item.present for item in items) else items

    # ------------------------------------------------------------------ inside

    def _whole(self) -> DataItem:
        """Say what there is once all of it is read."""
        try:
            sets = self.listed
        except UserError as error:
            return DataItem(self.folder, str(error), False)
        words = [
            f"{len(part.class_names)} {which} classes, {len(part.images)} images and {len(part.sentences.texts)} texts"
            for which, part in sets.items().items()
        ]
        return DataItem(self.folder, "; ".join(words), True)

    def _class_set(self, which: str, positions: tuple[int, ...]) -> ClassSet:
        ids = tuple(self.class_ids[position] for position in positions)
        classes = name_classes(ids, self._file(self.config.class_names))
        words = ClassWords(
            names=tuple(own.names[0] for own in classes),
            own=self._own_sentences(classes),
            templates=tuple(self.config.templates),
            prompts=self.config.memory_prompts,
        )
        asked, web = (
            None if name is None else images_in(self.folder, [f"{name}/{class_id}" for class_id in ids])
            for name in (self.config.test, self.config.memory)
        )
        labelled = images_in(self.folder, [f"{self.config.train}/{class_id}" for class_id in ids])
        parts = deal_pool(Pool(ids, labelled, asked, web), self.config.counts, self.config.split_seed)
        return class_set(words, parts, which)

    def _own_sentences(self, classes: tuple[NamedClass, ...]) -> tuple[tuple[str, ...], ...]:
        texts, properties = self._file(self.config.texts), self._file(self.config.properties)
        if texts is None and properties is None:
            return ((),) * len(classes)
        return read_own_sentences(classes, texts, properties)

    def _file(self, name: str | None) -> Path | None:
        return None if name is None else self.folder / Path(name).expanduser()

    @property
    def _advice(self) -> str:
        return (
            f"Expected: {self.folder / self.config.train}/<class>/<image>. If the data lies elsewhere, type "
            "paths.data=<folder> benchmark.folder=<folder below it>"
        )
