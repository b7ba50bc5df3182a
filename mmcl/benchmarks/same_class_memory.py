"""A memory about the classes that are learned from: ten data sets of fine classes, in the folders of MML's code.

Kang et al., "Memory-Modular Classification: Learning to Generalize with Memory Replacement", TMLR 2025. Training and
test are about the same classes; the memory of the web stands beside both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from mmcl.benchmarks.base import BenchmarkConfig, DataItem
from mmcl.benchmarks.memory_dealing import Pool, deal, deal_pool
from mmcl.benchmarks.memory_folders import (
    PoolMemoryConfig,
    check_selection,
    class_set,
    folders_in,
    images_in,
    nothing_of,
    refuse_unknown_folders,
    web_images,
)
from mmcl.benchmarks.memory_images import MemoryImages
from mmcl.benchmarks.memory_sets import ClassSets
from mmcl.benchmarks.memory_splits import class_targets
from mmcl.benchmarks.memory_texts import check_labels_rule, read_wiki_words
from mmcl.config.schema import setting
from mmcl.errors import UserError, nearest

DATASETS = (
    "caltech-101",
    "oxford_pets",
    "oxford_flowers",
    "dtd",
    "fgvc_aircraft",
    "eurosat",
    "sun397",
    "ucf101",
    "stanford_cars",
    "food-101",
)
PARTS = "Expected train/<class>/<image> and val/<class>/<image>, labels.txt, wiki/, and memory/ for web images"


@dataclass
class SameClassMemoryConfig(PoolMemoryConfig):
    """Keys of memory benchmarks whose asked classes are those of training."""

    dataset: str = setting("Folder below data: caltech-101, oxford_pets, dtd, food-101 or another of the ten.")
    labels_rule: str = setting("How a line of labels.txt is split: official, or whole_name for names with blanks.")
    selection: str = setting("clean: training images held out choose the epoch; official: the asked ones.")
    validation_queries: int = setting("Training images of each class that choose the epoch, with selection=clean.")

    def __post_init__(self) -> None:
        """Refuse data sets and selections that do not exist."""
        super().__post_init__()
        check_selection(self.selection)
        check_labels_rule(self.labels_rule)
        if self.dataset not in DATASETS:
            hint = nearest(self.dataset, DATASETS)
            raise UserError(f"benchmark.dataset={self.dataset}: expected one of {', '.join(DATASETS)}.{hint}")
        if self.validation_queries < 1:
            raise UserError(f"benchmark.validation_queries={self.validation_queries}: expected at least 1")


class SameClassMemory(MemoryImages):
    """One data set in ``train/`` and ``val/``, which is the test; seen, validation and unseen classes are the same."""

    same_classes: ClassVar[bool] = True
    Config: ClassVar[type[BenchmarkConfig]] = SameClassMemoryConfig
    config: SameClassMemoryConfig

    @classmethod
    def told_by(cls, keys: Mapping[str, Any]) -> list[Path]:
        """Return what says which classes there are and what is said about them."""
        folder = Path(keys["data"]).expanduser() / Path(keys["dataset"]).expanduser()
        names = ("labels.txt", "wiki", "standard_label.json")
        return [folder / name for name in names if (folder / name).exists()]

    @property
    def folder(self) -> Path:
        """Folder of the data set."""
        return self.root / self.config.dataset

    def read_sets(self) -> ClassSets:
        """List the images and read the articles.

        Raises:
            UserError: a folder or file is missing or damaged, splits have other classes, or there are too few images.
        """
        config, seed = self.config, self.config.split_seed
        targets = class_targets(self.folder / "standard_label.json", folders_in(self.folder / "train", PARTS))
        ids = tuple(sorted(targets, key=targets.__getitem__))
        refuse_unknown_folders(self.folder / "val", ids, str(self.folder / "train"))
        labelled, asked = (images_in(self.folder, [f"{split}/{name}" for name in ids]) for split in ("train", "val"))
        held_out = None
        if config.selection == "clean":
            every = [config.validation_queries] * len(ids)
            dealt = deal(labelled.labels, ids, every, [0] * len(ids), seed, "validation")
            held_out, labelled = labelled.select(dealt.training), labelled.select(dealt.images)
        parts = deal_pool(Pool(ids, labelled, asked, web_images(self.folder / "memory", ids)), config.counts, seed)
        words = read_wiki_words(self.folder, ids, config.templates, config.memory_prompts, config.labels_rule)
        learned = class_set(words, parts, "seen")
        known = replace(learned, training=nothing_of(learned.training))
        return ClassSets(learned, known if held_out is None else replace(known, queries=held_out), known)

    def describe_data(self) -> list[DataItem]:
        """Say where images, articles and web images are expected."""
        wanted = {
            "train": "labelled images",
            "val": "images that are asked",
            "labels.txt": "id, article and name of each class, a line each",
            "wiki": "articles, desc_<article>.txt",
        }
        items = [
            DataItem(self.folder / name, meaning, (self.folder / name).exists()) for name, meaning in wanted.items()
        ]
        web = self.folder / "memory"
        meaning = "web images" if web.is_dir() else "web images are not there: labelled ones stand for them"
        return [*items, DataItem(web, meaning, True)]
