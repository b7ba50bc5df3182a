"""A memory of birds: CUB-200-2011, where some species are known from captions, descriptions or articles alone.

The classes are split as for MML (Kang et al., TMLR 2025): 150 are learned from, 50 are unseen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from mmcl.benchmarks.base import BenchmarkConfig, DataItem
from mmcl.benchmarks.clip_lists import CubLists, Place
from mmcl.benchmarks.clip_presence import present_rows
from mmcl.benchmarks.memory_dealing import ClassRoles, Pool, PoolParts, class_roles, deal_pool, roles_beside
from mmcl.benchmarks.memory_folders import (
    PoolMemoryConfig,
    check_selection,
    class_set,
    folders_in,
    images_in,
    of_classes,
    web_images,
)
from mmcl.benchmarks.memory_images import MemoryImages
from mmcl.benchmarks.memory_sets import ClassSet, ClassSets
from mmcl.benchmarks.memory_texts import (
    ClassWords,
    NamedClass,
    Words,
    check_labels_rule,
    read_own_sentences,
    read_wiki_words,
    sentence_lines,
)
from mmcl.config.schema import setting
from mmcl.errors import MissingFileError, UserError, nearest
from mmcl.images import FileImages
from mmcl.protocol import Samples

CLASS_SPLITS = ("auto", "folders", "seeded", "last")
TEXTS = ("captions", "descriptions", "wiki")
SPLIT_FOLDERS = ("Train_150", "Val_50")
CAPTION_FOLDERS = ("text", "text_c10")


@dataclass
class CubMemoryConfig(PoolMemoryConfig):
    """Keys of the memory benchmark of CUB-200-2011."""

    folder: str = setting("Folder below data: images/ with the official lists, or Train_150/ and Val_50/.")
    class_split: str = setting(
        "auto: by the folders Train_150 and Val_50 if they are there, else seeded; folders; seeded: unseen classes are "
        "drawn by split_seed; last: the last by number."
    )
    unseen_classes: int = setting("Classes that only a memory knows, where no folders say it. Published: 50.")
    selection: str = setting("clean: other classes than the unseen ones choose the epoch; official: the unseen ones.")
    validation_classes: int = setting("Classes of training held out to choose the epoch, with selection=clean.")
    text: str = setting(
        "Texts of the memory: captions (of labelled images, neither learned from nor asked), descriptions, or wiki."
    )
    descriptions: str | None = setting(
        "Of text=descriptions: JSON of sentences by class name, or folder of <class>.txt; null for none."
    )
    properties: str | None = setting(
        "Of text=descriptions: JSON of properties by class name, for classes without sentences; null for none."
    )
    labels_rule: str = setting("How labels.txt of text=wiki is split: official, or whole_name for names with blanks.")

    def __post_init__(self) -> None:
        """Refuse splits and texts that do not exist."""
        super().__post_init__()
        check_selection(self.selection)
        check_labels_rule(self.labels_rule)
        for name, known in (("class_split", CLASS_SPLITS), ("text", TEXTS)):
            value = getattr(self, name)
            if value not in known:
                raise UserError(f"benchmark.{name}={value}: expected one of {', '.join(known)}.{nearest(value, known)}")
        if self.text == "descriptions" and self.descriptions is None and self.properties is None:
            raise UserError("benchmark.text=descriptions needs a file. Type benchmark.descriptions=FILE")


class Birds(NamedTuple):
    """All classes: C ids, their labelled images and those that are asked (None: some of the labelled ones)."""

    class_ids: tuple[str, ...]
    labelled: Samples
    asked: Samples | None
    unseen: tuple[int, ...] | None


class CubMemory(MemoryImages):
    """CUB-200-2011 with a memory of ``memory/<class>/*.jpg``, or of labelled images where there is no such folder."""

    Config: ClassVar[type[BenchmarkConfig]] = CubMemoryConfig
    config: CubMemoryConfig

    @classmethod
    def told_by(cls, keys: Mapping[str, Any]) -> list[Path]:
        """Return what says which classes there are and what is said about them."""
        folder = Path(keys["data"]).expanduser() / Path(keys["folder"]).expanduser()
        names = (keys["descriptions"], keys["properties"], "labels.txt", "wiki", "text")
        return [folder / name for name in names if name is not None and (folder / name).exists()]

    @property
    def folder(self) -> Path:
        """Folder of the data set."""
        return self.root / Path(self.config.folder).expanduser()

    def read_sets(self) -> ClassSets:
        """List the images of all classes and read their texts.

        Raises:
            UserError: a folder or file is missing or damaged, or there are too few classes or images.
        """
        roles = self.roles
        return ClassSets(*(self._class_set(which, roles.of(which)) for which in roles._fields))

    @cached_property
    def birds(self) -> Birds:
        """All images, by the official lists or by the folders."""
        return self._by_folders() if self._has_split_folders else self._by_lists()

    @cached_property
    def roles(self) -> ClassRoles:
        """Which classes are seen, for validation, unseen."""
        config, count = self.config, len(self.birds.class_ids)
        unseen = self.birds.unseen
        if unseen is None and config.class_split == "last":
            unseen = tuple(range(max(count - config.unseen_classes, 0), count))
        if unseen is None:
            unseen = class_roles(count, 1, config.unseen_classes, config.split_seed).unseen
        if config.selection == "official":
            seen, held_out, _ = roles_beside(count, unseen, 1, config.split_seed)
            return ClassRoles(tuple(sorted((*seen, *held_out))), unseen, unseen)
        return roles_beside(count, unseen, config.validation_classes, config.split_seed)

    def describe_data(self) -> list[DataItem]:
        """Say where images and texts are expected, and how many there are."""
        told = [name for name in (self.config.descriptions, self.config.properties) if name is not None]
        spoken = [name for name in CAPTION_FOLDERS if (self.folder / name).is_dir()] or CAPTION_FOLDERS[:1]
        texts = {"captions": spoken[:1], "descriptions": told, "wiki": ("labels.txt", "wiki")}
        wanted = [self.folder / name for name in texts[self.config.text]]
        items = [DataItem(path, f"texts of benchmark.text={self.config.text}", path.exists()) for path in wanted]
        web = self.folder / "memory"
        words = "there" if web.is_dir() else "labelled images stand for them"
        try:
            sets = self.listed
        except UserError as error:
            return [DataItem(self.folder, str(error), False), *items]
        sizes = (f"{len(part.class_names)} {which} classes" for which, part in sets.items().items())
        return [DataItem(self.folder, f"birds: {', '.join(sizes)}; web images in {web}: {words}", True), *items]

    # ------------------------------------------------------------------ inside

    @property
    def _has_split_folders(self) -> bool:
        there = all((self.folder / name).is_dir() for name in SPLIT_FOLDERS)
        if self.config.class_split == "folders" and not there:
            raise MissingFileError(f"{self.folder} lacks the class folders in {' and '.join(SPLIT_FOLDERS)}.")
        return there and self.config.class_split in ("auto", "folders")

    def _by_folders(self) -> Birds:
        learned, unseen = (folders_in(self.folder / name, "Expected one for each class") for name in SPLIT_FOLDERS)
        twice = sorted(set(learned) & set(unseen))
        if twice:
            raise UserError(f"{self.folder}: the class {twice[0]!r} is in {' and in '.join(SPLIT_FOLDERS)}; keep one.")
        folder_of = {name: part for part, names in zip(SPLIT_FOLDERS, (learned, unseen), strict=True) for name in names}
        ids = tuple(sorted(folder_of))
        labelled = images_in(self.folder, [f"{folder_of[class_id]}/{class_id}" for class_id in ids])
        return Birds(ids, labelled, None, tuple(ids.index(name) for name in unseen))

    def _by_lists(self) -> Birds:
        listed = CubLists().read(Place(self.root, self.folder))
        folder_of: dict[int, str] = {}
        for part in (listed.train, listed.test):
            assert isinstance(part.images, FileImages)
            missing = (~present_rows(part)).nonzero().flatten().tolist()
            if missing:
                path = self.folder / part.images.paths[missing[0]]
                raise UserError(f"{path} is missing; {len(missing)} images of the lists are. Complete {self.folder}")
            for path_of, label in zip(part.images.paths, part.labels.tolist(), strict=True):
                folder_of.setdefault(label, Path(path_of).parent.name)
        bare = set(range(len(listed.class_names))) - set(folder_of)
        if bare:
            raise UserError(f"{self.folder / 'images.txt'} has no image of {listed.class_names[min(bare)]!r}.")
        return Birds(tuple(folder_of[label] for label in sorted(folder_of)), listed.train, listed.test, None)

    def _class_set(self, which: str, positions: tuple[int, ...]) -> ClassSet:
        birds = self.birds
        ids = tuple(birds.class_ids[position] for position in positions)
        labelled, asked = (
            None if part is None else of_classes(part, positions, len(birds.class_ids))
            for part in (birds.labelled, birds.asked)
        )
        assert labelled is not None
        counts = self.config.counts
        if asked is None and which != "seen":
            counts = counts._replace(training=0)
        parts = deal_pool(
            Pool(ids, labelled, asked, web_images(self.folder / "memory", ids)), counts, self.config.split_seed
        )
        return class_set(self._words(ids, labelled, parts), parts, which)

    def _words(self, ids: tuple[str, ...], labelled: Samples, parts: PoolParts) -> Words:
        config = self.config
        if config.text == "wiki":
            return read_wiki_words(self.folder, ids, config.templates, config.memory_prompts, config.labels_rule)
        named = [NamedClass(class_id, (bird_name(class_id),)) for class_id in ids]
        if config.text == "captions":
            own = self._captions(ids, labelled, parts)
        else:
            told = (None if name is None else self.folder / name for name in (config.descriptions, config.properties))
            own = read_own_sentences(named, *told)
        names = tuple(bird.names[0] for bird in named)
        return ClassWords(names, own, tuple(config.templates), config.memory_prompts)

    def _captions(self, ids: Sequence[str], labelled: Samples, parts: PoolParts) -> tuple[tuple[str, ...], ...]:
        """Read the captions of labelled images that are neither learned from nor asked.

        A caption describes one image: a query that finds its own would say nothing about others.
        """
        folder = next((self.folder / name for name in CAPTION_FOLDERS if (self.folder / name).is_dir()), None)
        if folder is None:
            raise MissingFileError(
                f"{self.folder / CAPTION_FOLDERS[0]} is missing. Expected <class>/<image>.txt with captions; or type "
                "benchmark.text=descriptions or wiki"
            )
        hidden = {*_paths(parts.training), *_paths(parts.queries)}
        own: list[list[str]] = [[] for _ in ids]
        for path, label in zip(_paths(labelled), labelled.labels.tolist(), strict=True):
            file = folder / ids[label] / f"{Path(path).stem}.txt"
            if path not in hidden and file.is_file():
                own[label] += sentence_lines(file)
        if not all(own):
            raise UserError(
                f"{folder / ids[own.index([])]} has no caption of an image that is neither learned from nor asked. "
                "Bring them, one <image>.txt each, or lower benchmark.training_queries"
            )
        return tuple(map(tuple, own))


def _paths(samples: Samples) -> tuple[str, ...]:
    assert isinstance(samples.images, FileImages)
    return samples.images.paths


def bird_name(class_id: str) -> str:
    """Return what a class folder calls its bird, ``012.Yellow_headed_Blackbird``, without number and underscores."""
    number, _, name = class_id.partition(".")
    return (name if number.isdecimal() and name else class_id).replace("_", " ")
