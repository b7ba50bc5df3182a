"""Which image files a split has and of which class: from a tree of class folders or from list files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torchvision.datasets.folder import IMG_EXTENSIONS

from mmcl.errors import UserError
from mmcl.images import FileImages
from mmcl.protocol import Samples


def class_folders(folder: Path) -> list[str]:
    """Return the names of the class folders, sorted: position is label.

    Raises:
        UserError: the folder is missing or has no folder inside.
    """
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        reason = error.strerror
        raise UserError(f"cannot read the folder {folder}: {reason}. {expected_layout(folder.parent)}") from error
    names = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise UserError(f"{folder} has no class folders. {expected_layout(folder.parent)}")
    return names


def list_folders(root: Path, split: str, names: Sequence[str]) -> Samples:
    """List the images below ``root/split/<class>/``, by class, sorted by path.

    Args:
        root: folder of the data set.
        split: ``train``, ``val`` or ``test``.
        names: class folders in the order of the labels.

    Raises:
        UserError: a class has no folder or no images.
    """
    paths: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(names):
        found = _images_below(root, f"{split}/{name}")
        if not found:
            raise UserError(
                f"the class {name!r} has no images in {root / split / name}. "
                f"Add images ({', '.join(IMG_EXTENSIONS)}), or delete the class from every split."
            )
        paths += found
        labels += [label] * len(found)
    return Samples(FileImages(root, tuple(paths)), torch.tensor(labels), torch.arange(len(paths)))


def read_list(root: Path, file_name: str) -> Samples:
    """Read a list file: one image a line, its path below ``root``, a blank, its label from 0.

    Raises:
        UserError: a line of another form, or a label without images.
    """
    file = root / file_name
    paths: list[str] = []
    labels: list[int] = []
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {file}: {error}. {expected_layout(root)}") from error
    for number, line in enumerate(lines, start=1):
        path, _, label = line.strip().rpartition(" ")
        if not path and not label:
            continue
        if not path or not label.isdecimal():
            raise UserError(f"{file}, line {number}: {line!r} is not 'path label' with a label from 0.")
        paths.append(path.strip())
        labels.append(int(label))
    absent = sorted(set(range(max(labels, default=0) + 1)) - set(labels))
    if absent:
        raise UserError(f"{file}: the class {absent[0]} has no images. Labels run from 0 without a gap.")
    return Samples(FileImages(root, tuple(paths)), torch.tensor(labels), torch.arange(len(paths)))


def list_lines(samples: Samples, folder: Path | None) -> list[str]:
    """Return the lines of a list file for images in files, which :func:`read_list` reads.

    Args:
        samples: images in files.
        folder: where the list shall lie, which paths are relative to; None is the data set's own folder.

    Raises:
        UserError: the images lie in memory, or the name of a file has a line break.
    """
    files = samples.images
    if not isinstance(files, FileImages):
        raise UserError("the images are held in memory; type benchmark.in_memory=false to list their files.")
    start = ""
    if folder is not None and folder.resolve() != files.root.resolve():
        start = f"{Path(os.path.relpath(files.root.resolve(), folder.resolve())).as_posix()}/"
    lines = [f"{start}{path} {label}" for path, label in zip(files.paths, samples.labels.tolist(), strict=True)]
    broken = [line for line in lines if len(line.splitlines()) != 1]
    if broken:
        raise UserError(f"{broken[0]!r} in {files.root} has a line break in its name; rename the file.")
    return lines


def listed_class_names(samples: Samples) -> list[str]:
    """Name each class of a list file by the folder of its first image, or by its label if these repeat."""
    assert isinstance(samples.images, FileImages)
    first: dict[int, str] = {}
    for path, label in zip(samples.images.paths, samples.labels.tolist(), strict=True):
        first.setdefault(label, Path(path).parent.name)
    names = [first[label] for label in sorted(first)]
    return names if len(set(names)) == len(names) and all(names) else [str(label) for label in sorted(first)]


def _images_below(root: Path, folder: str) -> list[str]:
    """Return the paths of the images below ``root/folder``, relative to ``root``, sorted."""
    found = []
    for parent, _, files in os.walk(root / folder, followlinks=True):
        relative = Path(parent).relative_to(root).as_posix()
        found += [f"{relative}/{name}" for name in files if name.lower().endswith(IMG_EXTENSIONS)]
    return sorted(found)


def expected_layout(root: Path) -> str:
    """Say in words what a data set's folder must hold, and what to type if it lies elsewhere."""
    return (
        f"Expected: {root}/train/<class>/<image> and {root}/val/<class>/<image>, or {root}/train.txt and "
        f"{root}/val.txt with lines 'path label'. If the data lies elsewhere, type paths.data=<folder> "
        f"benchmark.folder=<folder below it>."
    )
