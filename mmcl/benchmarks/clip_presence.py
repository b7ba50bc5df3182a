"""Whether the images that a list names are there: all of them, or those that a partial copy has."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from mmcl.benchmarks.clip_lists import Listed
from mmcl.errors import UserError
from mmcl.images import FileImages
from mmcl.protocol import Samples

PARTIAL = "type benchmark.partial=true to use the images and classes that are there"


def present_rows(samples: Samples) -> Tensor:
    """Say for each image whether its file is there, bool ``(N,)``; every folder is read once."""
    files = samples.images
    assert isinstance(files, FileImages)
    folders = [os.path.dirname(path) for path in files.paths]
    names = {folder: _names(files.root / folder) for folder in set(folders)}
    there = [os.path.basename(path) in names[folder] for path, folder in zip(files.paths, folders, strict=True)]
    return torch.tensor(there, dtype=torch.bool)


def count_present(listed: Listed, images: Sequence[int | None]) -> tuple[int, int]:
    """Return how many of the listed images are there, and how many there should be.

    Args:
        listed: what lists or folders name; a split without images is not counted.
        images: published numbers of training, validation and test images; None where any will do.
    """
    parts = [part for part in zip((listed.train, listed.validation, listed.test), images, strict=True) if len(part[0])]
    there = sum(int(present_rows(samples).sum()) for samples, _ in parts)
    return there, sum(len(samples) if published is None else published for samples, published in parts)


def whole(name: str, listed: Listed, classes: int, images: Sequence[int | None]) -> Listed:
    """Return a data set that is there as it was published.

    Args:
        name: of the data set, for messages.
        listed: what its lists or folders name.
        classes: published number of classes.
        images: published numbers of training, validation and test images; None where any will do.

    Raises:
        UserError: a file is missing, a class has no images, or the numbers are others than the published ones.
    """
    for part in (listed.test, listed.train, listed.validation):
        missing = (~present_rows(part)).nonzero().flatten()
        if len(missing):
            assert isinstance(part.images, FileImages)
            path = part.images.root / part.images.paths[int(missing[0])]
            raise UserError(
                f"{name}: {path} is missing; {len(missing)} of {len(part)} images of its list are. "
                f"Complete the folder, or {PARTIAL}."
            )
    has_images = _has_images(listed).tolist()
    if not all(has_images):
        label = has_images.index(False)
        which = f"class {label} ({listed.class_names[label]!r})"
        raise UserError(f"{name}: {which} has no training or no test images. Complete it, or {PARTIAL}.")
    _compare(name, listed, classes, images)
    return listed


def partly(name: str, listed: Listed) -> Listed:
    """Return the images that are there and the classes that have some, with labels and sources numbered anew.

    A class stays when it has test images and, where there is a training list, training images as well.

    Raises:
        UserError: nothing is left.
    """
    published = (listed.train, listed.validation, listed.test)
    train, validation, test = (part.select(present_rows(part)) for part in published)
    there = listed._replace(train=train, validation=validation, test=test)
    kept = _has_images(there)
    if not bool(kept.any()):
        raise UserError(f"{name}: no class has images. Bring the images of at least some classes.")
    label_of = kept.cumsum(0) - 1
    names = tuple(class_name for class_name, stays in zip(listed.class_names, kept.tolist(), strict=True) if stays)
    parts = (part.select(kept[part.labels]) for part in (train, validation, test))
    train, validation, test = (Samples(part.images, label_of[part.labels], torch.arange(len(part))) for part in parts)
    return Listed(names, train, validation, test, listed.unlabelled)


def _compare(name: str, listed: Listed, classes: int, images: Sequence[int | None]) -> None:
    counts = [("classes", len(listed.class_names), classes), ("test images", len(listed.test), images[2])]
    if not listed.unlabelled:
        counts += [
            ("training images", len(listed.train), images[0]),
            ("validation images", len(listed.validation), images[1]),
        ]
    for what, found, published in counts:
        if published is not None and found != published:
            raise UserError(f"{name}: {found} {what}, published are {published}. Bring the whole set, or {PARTIAL}.")


def _has_images(listed: Listed) -> Tensor:
    """Say for each class whether its test and, if there is one, its training list is not empty, bool ``(C,)``."""
    classes = len(listed.class_names)
    has = listed.test.labels.bincount(minlength=classes) > 0
    return has if listed.unlabelled else has & (listed.train.labels.bincount(minlength=classes) > 0)


def _names(folder: Path) -> set[str]:
    return set(os.listdir(folder)) if folder.is_dir() else set()
