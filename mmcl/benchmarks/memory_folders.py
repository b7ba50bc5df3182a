"""Images of class folders for a memory, and sets of classes out of them."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS

from mmcl.benchmarks.listing import class_folders
from mmcl.benchmarks.memory_dealing import Counts, PoolParts, rows_of_classes
from mmcl.benchmarks.memory_images import MemoryImagesConfig
from mmcl.benchmarks.memory_sets import ClassSet
from mmcl.benchmarks.memory_splits import list_web_folders
from mmcl.benchmarks.memory_texts import Words, check_memory_prompts, check_templates
from mmcl.config.schema import setting
from mmcl.errors import MissingFileError, UserError, nearest
from mmcl.images import FileImages
from mmcl.protocol import Samples

log = logging.getLogger(__name__)

SELECTIONS = ("clean", "official")


@dataclass
class PoolMemoryConfig(MemoryImagesConfig):
    """Keys of memory benchmarks whose images are dealt out class by class."""

    templates: list[str] = setting("Templates of the tip prompts; {} stands for the class name.")
    memory_prompts: str = setting(
        "Prompts that the text memory has before the sentences of each class: full (80), simple, tip or none."
    )
    training_queries: int = setting("Labelled images of each class that a method learns from; at least 1.")
    queries: int | None = setting("Most images of a class that are asked; null asks all.")
    shots: int = setting("Labelled images of each class set aside for few_shot; 0 gives none.")

    def __post_init__(self) -> None:
        """Refuse numbers that no set can have, and templates without a name."""
        super().__post_init__()
        for name, least in (("training_queries", 1), ("queries", 1), ("shots", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserError(f"benchmark.{name}={value}: expected at least {least}")
        check_templates(self.templates)
        check_memory_prompts(self.memory_prompts)

    @property
    def counts(self) -> Counts:
        """How many images of a class are for what."""
        return Counts(self.training_queries, self.queries, self.memory_images, self.shots)


def images_in(root: Path, folders: Sequence[str]) -> Samples:
    """List the images of classes, each below ``root/<folder>``, by class and sorted by path; a class may have none.

    Args:
        root: paths are relative to it.
        folders: one of each class, in the order of the labels.
    """
    paths: list[str] = []
    labels: list[int] = []
    for label, folder in enumerate(folders):
        found = []
        for parent, _, names in os.walk(root / folder, followlinks=True):
            below = os.path.relpath(parent, root)
            found += [f"{below}/{name}" for name in names if is_image(name)]
        found.sort()
        paths += found
        labels += [label] * len(found)
    return Samples(FileImages(root, tuple(paths)), torch.tensor(labels, dtype=torch.int64), torch.arange(len(paths)))


def is_image(name: str) -> bool:
    """Say whether a file is an image by its name; hidden files are none."""
    return name.lower().endswith(IMG_EXTENSIONS) and not name.startswith(".")


def folders_in(folder: Path, advice: str) -> list[str]:
    """Return the names of the class folders, sorted.

    Raises:
        UserError: the folder is missing or has no folder inside; ``advice`` says what is expected.
    """
    if not folder.is_dir():
        raise MissingFileError(f"{folder} is missing. {advice}")
    try:
        return class_folders(folder)
    except UserError as error:
        raise UserError(f"{folder} has no class folders. {advice}") from error


def refuse_unknown_folders(folder: Path, class_ids: Sequence[str], where: str) -> None:
    """Refuse class folders that no class has: a memory or a test of other classes would be left out unseen.

    Raises:
        UserError: there is one; ``where`` says where the classes come from.
    """
    unknown = sorted(set(folders_in(folder, f"Expected class folders as in {where}")) - set(class_ids))
    if unknown:
        hint = nearest(unknown[0], class_ids)
        raise UserError(
            f"{folder / unknown[0]}: {where} has no class {unknown[0]!r} ({len(unknown)} such).{hint} Give both the "
            "same names, or move it away"
        )


def of_classes(samples: Samples, positions: Sequence[int], count: int) -> Samples:
    """Return the samples of some of ``count`` classes, by class, with their positions as new labels."""
    rows, labels = rows_of_classes(samples.labels, positions, count)
    part = samples.select(rows)
    return Samples(part.images, labels, part.sources)


def class_set(words: Words, parts: PoolParts, name: str) -> ClassSet:
    """Make a set of dealt images and the words about their classes.

    Args:
        words: of C classes.
        parts: images by use, labels in ``range(C)``.
        name: ``seen``, ``validation`` or ``unseen``; nothing is learned from images of the last two.

    Raises:
        UserError: the memory has no image at all.
    """
    counts = torch.bincount(parts.images.labels, minlength=len(words.names))
    warn_of_bare_classes(name, counts, words.names)
    return ClassSet(
        class_names=words.names,
        training=parts.training if name == "seen" else nothing_of(parts.training),
        queries=parts.queries,
        images=parts.images,
        sentences=words.memory(),
        shots=parts.shots,
        prompts=words.of_kind,
    )


def nothing_of(samples: Samples) -> Samples:
    """Return none of the samples."""
    return samples.select(samples.labels[:0])


def warn_of_bare_classes(name: str, counts: Tensor, class_names: Sequence[str]) -> None:
    """Say which classes the memory has no image of: their texts stand for them.

    Raises:
        UserError: it has none of any.
    """
    bare = (counts == 0).nonzero().flatten().tolist()
    if len(bare) == len(class_names):
        raise UserError(
            f"no image is left for the memory of the {name} classes. Ask for fewer training queries and shots, or "
            "bring images for the memory"
        )
    if bare:
        names = ", ".join(class_names[label] for label in bare[:3])
        log.warning(
            "the memory has no image of %d of %d %s classes (%s): their texts stand for them",
            len(bare),
            len(class_names),
            name,
            names,
        )


def check_selection(selection: str) -> None:
    """Refuse a way of choosing the epoch that does not exist."""
    if selection not in SELECTIONS:
        known = ", ".join(SELECTIONS)
        raise UserError(f"benchmark.selection={selection}: expected one of {known}.{nearest(selection, SELECTIONS)}")


def web_images(folder: Path, class_ids: Sequence[str]) -> Samples | None:
    """List the web images of classes below ``folder/<class id>/``; None where there is no such folder."""
    if not folder.is_dir():
        return None
    return list_web_folders(folder, {class_id: label for label, class_id in enumerate(class_ids)}, 0)
