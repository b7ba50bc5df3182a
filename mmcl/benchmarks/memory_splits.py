"""Which images are queries, shots and web images in the protocol of MML (Kang et al., TMLR 2025).

The published code draws from the global generator, so that its splits change with the encoder and with the number of
models that were built before; here every draw has its own key. The rules are the published ones otherwise.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from mmcl.benchmarks.prompts import read_json
from mmcl.errors import MissingFileError, UserError, nearest
from mmcl.images import FileImages
from mmcl.protocol import Samples
from mmcl.randomness import generator, permutation

HELD_OUT_EVERY = 4
WEB_SOURCES = ("google", "flickr")
WEBVISION = "Put WebVision v1 there: info/ with its lists, and the images"


class QueryShotRows(NamedTuple):
    """Rows of a split's images, int64, grouped by class: ``queries`` ``(Q,)`` are asked, ``shots`` ``(S,)`` are not."""

    queries: Tensor
    shots: Tensor


class ClassHalves(NamedTuple):
    """Sorted class ids: those that train, and those that only a memory knows."""

    train: tuple[str, ...]
    held_out: tuple[str, ...]


def class_targets(file: Path, folders: Sequence[str]) -> dict[str, int]:
    """Say which label each class of a split has.

    Args:
        file: JSON ``{"class id": label}``; where it is missing, position among the sorted folders is the label.
        folders: names of the class folders; those that the file leaves out do not belong to the split.

    Returns:
        Labels by class id, in the order of the file.

    Raises:
        UserError: another form, labels that are not 0 to C-1, each once, or a class without a folder.
    """
    if not file.is_file():
        return {name: label for label, name in enumerate(sorted(folders))}
    content = read_json(file)
    if not isinstance(content, dict) or any(type(label) is not int for label in content.values()):
        raise UserError(f'{file} is no object {{"class id": label}}. Mend it, or delete it to label sorted folders.')
    if not content or sorted(content.values()) != list(range(len(content))):
        raise UserError(f"{file}: the labels are not 0 to {len(content) - 1}, each once. Number the classes anew.")
    absent = [name for name in content if name not in set(folders)]
    if absent:
        hint = nearest(absent[0], folders)
        raise UserError(f"{file}: {len(absent)} of {len(content)} classes have no folder, {absent[0]!r}.{hint}")
    return content


def keyed_orders(labels: Tensor, class_ids: Sequence[str], *parts: int | str) -> list[Tensor]:
    """Draw in which order the images of each class are dealt out, whatever other classes there are.

    Args:
        labels: of a split's images, int64 ``(N,)``.
        class_ids: C ids in the order of the labels; each keys its class.
        parts: what else keys the draw, such as the seed and the split.

    Returns:
        A permutation of ``range(n)`` for each class, n its number of images.
    """
    counts = torch.bincount(labels, minlength=len(class_ids)).tolist()
    return [permutation(count, *parts, "dealing", class_id) for class_id, count in zip(class_ids, counts, strict=True)]


def query_shot_rows(
    labels: Tensor, orders: Sequence[Tensor], queries: int, shots: int, class_ids: Sequence[str] = ()
) -> QueryShotRows:
    """Deal the images of each class out: the first in its order are queries, the last are shots.

    Args:
        labels: int64 ``(N,)``, images of a class in the order of their sorted file names.
        orders: a permutation of ``range(n)`` for each of C classes, n its number of images.
        queries: most queries of a class; 0 for all that are not shots.
        shots: of each class.
        class_ids: names for the error message.

    Returns:
        The rows, class after class, each in its drawn order.

    Raises:
        UserError: a class has no image left for a query.
    """
    chosen: list[Tensor] = []
    kept: list[Tensor] = []
    for label, (rows, order) in enumerate(zip(_class_rows(labels, len(orders)), orders, strict=True)):
        rest = len(rows) - shots
        if rest < 1:
            name = f" ({class_ids[label]!r})" if class_ids else ""
            raise UserError(
                f"{shots} shots and a query of each class are asked for, but class {label}{name} has {len(rows)} "
                "images. Ask for fewer shots, or add images."
            )
        dealt = rows[order]
        chosen.append(dealt[: min(queries or rest, rest)])
        kept.append(dealt[rest:])
    return QueryShotRows(torch.cat(chosen), torch.cat(kept))


def first_rows(labels: Tensor, per_class: int) -> Tensor:
    """Return the first rows of each class, int64, grouped by class; MML's subset of ImageNet takes 130."""
    count = int(labels.max()) + 1 if len(labels) else 0
    return torch.cat([labels.new_empty(0), *(rows[:per_class] for rows in _class_rows(labels, count))])


def shuffled_classes(class_ids: Iterable[str], seed: int) -> list[str]:
    """Shuffle the sorted ids with Python's generator, as the published generator of subsets does with seed 7."""
    shuffled = sorted(class_ids)
    random.Random(seed).shuffle(shuffled)
    return shuffled


def class_halves(class_ids: Iterable[str], seed: int) -> ClassHalves:
    """Hold a quarter of the classes out, every fourth of :func:`shuffled_classes` from the first on: 250 of 1000."""
    shuffled = shuffled_classes(class_ids, seed)
    held_out = set(shuffled[::HELD_OUT_EVERY])
    train = (class_id for class_id in shuffled if class_id not in held_out)
    return ClassHalves(tuple(sorted(train)), tuple(sorted(held_out)))


def noisy_labels(labels: Tensor, ratio: float, classes: int, *parts: int | str) -> Tensor:
    """Give a share of the images a random class, which may be the true one.

    The published helper changes nothing, by an oversight; this is what it is written for.

    Args:
        labels: int64 ``(N,)``.
        ratio: share of images, 0 to 1; ``int(ratio * N)`` of them are drawn.
        classes: number C of classes to draw from, all equally likely.
        parts: what keys the draws, such as the seed.

    Returns:
        Labels in ``range(C)``, int64 ``(N,)``.

    Raises:
        UserError: the share is not from 0 to 1.
    """
    if not 0.0 <= ratio <= 1.0:
        raise UserError(f"benchmark.label_noise={ratio}: expected a share of the images, 0 (none) to 1 (all).")
    rows = permutation(len(labels), *parts, "noisy rows")[: int(ratio * len(labels))].to(labels.device)
    drawn = torch.randint(classes, (len(rows),), generator=generator(*parts, "noisy labels"))
    return labels.index_copy(0, rows, drawn.to(labels.device))


def web_rows(
    lines: Iterable[str], synsets: Sequence[str], targets: Mapping[str, int], per_class: int, where: str
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Choose images from a list of WebVision: the first of each class.

    Args:
        lines: ``path label`` with the label a position in ``synsets``.
        synsets: ids of the web labels.
        targets: label of each class id that the memory has; others are passed over.
        per_class: most images of a class; 0 for all. MML takes 100, earlier 1000.
        where: name of the list in messages.

    Returns:
        Paths and labels in the order of the list.

    Raises:
        UserError: a line of another form, or a label without a synset.
    """
    wanted = {label: targets[synset] for label, synset in enumerate(synsets) if synset in targets}
    counts = dict.fromkeys(wanted.values(), 0)
    paths: list[str] = []
    labels: list[int] = []
    for number, line in enumerate(lines, start=1):
        path, _, web_label = line.strip().rpartition(" ")
        if not path and not web_label:
            continue
        if not path or not web_label.isdecimal() or int(web_label) >= len(synsets):
            raise UserError(f"{where}, line {number}: {line.strip()!r} is not 'path label' with a label of a synset.")
        target = wanted.get(int(web_label))
        if target is None or per_class and counts[target] >= per_class:
            continue
        counts[target] += 1
        paths.append(path.strip())
        labels.append(target)
    return tuple(paths), tuple(labels)


def read_web_list(root: Path, source: str, targets: Mapping[str, int], per_class: int) -> Samples:
    """List the web images of classes in WebVision v1, see :func:`web_rows`.

    Args:
        root: folder that has ``info/synsets.txt`` and ``info/train_filelist_<source>.txt``; paths are relative to it.
        source: ``google`` or ``flickr``, where the images were found.
        targets: label of each class id; the ids are synsets.
        per_class: most images of a class; 0 for all.

    Raises:
        UserError: an unknown source, a missing or damaged list, or a class that WebVision does not have.
    """
    if source not in WEB_SOURCES:
        hint = nearest(source, WEB_SOURCES)
        raise UserError(f"benchmark.web_source={source}: expected one of {', '.join(WEB_SOURCES)}.{hint}")
    known, listed = root / "info" / "synsets.txt", root / "info" / f"train_filelist_{source}.txt"
    for file in (known, listed):
        if not file.is_file():
            raise MissingFileError(f"{file} is missing. {WEBVISION}.")
    try:
        with known.open(encoding="utf-8") as lines:
            synsets = [line.split()[0] for line in lines if line.strip()]
        absent = [class_id for class_id in targets if class_id not in set(synsets)]
        if absent:
            raise UserError(
                f"{known} lacks {len(absent)} of {len(targets)} class ids, {absent[0]!r}; bring its synsets."
            )
        with listed.open(encoding="utf-8") as lines:
            paths, labels = web_rows(lines, synsets, targets, per_class, str(listed))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {root / 'info'}: {error}. {WEBVISION}.") from error
    if not paths:
        raise UserError(f"{listed} has no image of any of {len(targets)} classes. {WEBVISION}.")
    return _samples(root, paths, labels)


def list_web_folders(root: Path, targets: Mapping[str, int], per_class: int) -> Samples:
    """List the web images below ``root/<class id>/``: files that end in ``.jpg``, sorted.

    A class without images is left out; its texts stand for it.

    Args:
        root: folder of the class folders.
        targets: label of each class id; rows come in its order.
        per_class: most images of a class; 0 for all, as MML takes.

    Raises:
        UserError: there are no images at all.
    """
    paths: list[str] = []
    labels: list[int] = []
    for class_id, label in targets.items():
        found = sorted(file.name for file in (root / class_id).glob("[!.]*.jpg"))
        for name in islice(found, per_class or None):
            paths.append(f"{class_id}/{name}")
            labels.append(label)
    if not paths:
        raise MissingFileError(f"{root} has no <class id>/*.jpg of {len(targets)} classes. Put web images there.")
    return _samples(root, tuple(paths), labels)


def _class_rows(labels: Tensor, count: int) -> tuple[Tensor, ...]:
    """Return the rows of each of ``count`` classes in their order."""
    sizes = torch.bincount(labels, minlength=count).tolist()
    return torch.split(labels.argsort(stable=True), sizes)


def _samples(root: Path, paths: tuple[str, ...], labels: Sequence[int]) -> Samples:
    return Samples(FileImages(root, paths), torch.tensor(labels, dtype=torch.int64), torch.arange(len(paths)))
