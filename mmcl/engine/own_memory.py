"""Memories of a user's own classes for a finished run of MML: made, put in place of the one before, asked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from mmcl.benchmarks.own_classes import OwnClasses
from mmcl.engine.finished_run import FinishedRun
from mmcl.engine.retrieved import Surroundings, described
from mmcl.errors import MissingFileError, UserError
from mmcl.features.job import EncodingJob, Views
from mmcl.images import FileImages
from mmcl.memory.class_memory import ClassMemory, MemoryContent
from mmcl.memory.prototypes import ClassRows
from mmcl.methods.mml.remembered import Remembered
from mmcl.methods.mml.retrieval import retrieved
from mmcl.protocol import MemoryItems, Samples

CURRENT = "memory.safetensors"
FOLDER = "memories"
LARGEST_SOURCE = 90_000_000  # bytes; the head of a safetensors file may have 100 MB


@dataclass(frozen=True)
class Source:
    """Where the rows of a memory come from; it is kept in the memory's file.

    Attributes:
        classes: names.
        images: file of each row of the image memory.
        sentences: of each row of the text memory.
        folders: what the classes were read from.
        image_neighbours: images that a query sees.
        text_neighbours: sentences that a query sees.
    """

    classes: tuple[str, ...]
    images: tuple[str, ...]
    sentences: tuple[str, ...]
    folders: tuple[str, ...]
    image_neighbours: int
    text_neighbours: int


@dataclass(frozen=True)
class OwnMemory:
    """A memory with its file and what its rows are."""

    path: Path
    memory: ClassMemory
    source: Source

    @property
    def items(self) -> MemoryItems:
        """What the rows are."""
        return MemoryItems(None, _samples(self.source.images), self.source.sentences)

    @property
    def counts(self) -> list[tuple[str, int, int]]:
        """Name of each class with how many images and sentences it has."""
        rows = self.memory.content
        images, texts = (torch.bincount(part.classes, minlength=rows.class_count) for part in (rows.images, rows.texts))
        return list(zip(self.source.classes, images.tolist(), texts.tolist(), strict=True))


def build_memory(
    run: FinishedRun,
    classes: OwnClasses,
    folders: Sequence[Path],
    path: Path,
    neighbours: tuple[int | None, int | None] = (None, None),
    add_to: Path | None = None,
) -> OwnMemory:
    """Encode classes, each image and sentence once, and write them as a memory.

    Args:
        run: whose encoders see the classes.
        classes: images and sentences.
        folders: what they were read from, for people to look up.
        path: the file to write, whole or not at all.
        neighbours: images and sentences that a query sees; None takes the run's.
        add_to: memory whose classes come first; its file stays as it is.

    Raises:
        UserError: an image cannot be read, a class is there already, the memory has fewer rows than a query sees, or
            the disk is full.
    """
    memory = run.empty_memory()
    before = None if add_to is None else read_memory(run, add_to)
    if before is not None:
        known = sorted(set(before.source.classes) & set(classes.names))
        if known:
            raise UserError(f"{before.path} knows the class {known[0]!r} already: rename it, or leave it out")
        memory.union(before.memory)
    wanted = (run.keys.image_neighbours, run.keys.text_neighbours)
    far = [run_wide if own is None else own for own, run_wide in zip(neighbours, wanted, strict=True)]
    source = _source_of(classes, folders, far, None if before is None else before.source)
    _check_reach(source, path)
    if len(json.dumps(asdict(source))) > LARGEST_SOURCE:
        raise UserError("these texts are too long for the head of a file (90 MB): bring fewer sentences")
    memory.append(_encoded(run, classes), memory.encoder)
    memory.save(path, asdict(source))
    return OwnMemory(path, memory, source)


def replace_memory(run: FinishedRun, path: Path) -> OwnMemory:
    """Make a memory the one that the run answers from; if that fails, the one before stays.

    Raises:
        UserError: the file is no memory, damaged, of other encoders, or has fewer rows than a query sees.
    """
    new = read_memory(run, path)
    new.memory.save(run.folder / CURRENT, asdict(new.source))
    return new


def current_memory(run: FinishedRun) -> OwnMemory:
    """Read the memory that the run answers from.

    Raises:
        UserError: there is none yet, or what :func:`read_memory` raises.
    """
    path = run.folder / CURRENT
    if not path.is_file():
        raise MissingFileError(
            f"{run.folder} has no memory of own classes yet. Type: mmcl memory build {run.folder} --images DIR "
            f"--text DIR, then: mmcl memory replace {run.folder} FILE"
        )
    return read_memory(run, path)


def read_memory(run: FinishedRun, path: Path) -> OwnMemory:
    """Read a memory for a run.

    Raises:
        UserError: the file is missing, damaged, of other encoders, not made by :func:`build_memory`, or it has fewer
            rows than a query sees.
    """
    memory = run.empty_memory()
    recipe = memory.load(path)
    source = _read_source(recipe.get("source"), memory, path)
    _check_reach(source, path)
    return OwnMemory(path, memory, source)


def ask(run: FinishedRun, own: OwnMemory, images: Sequence[Path]) -> list[dict[str, Any]]:
    """Answer for images of a user from a memory, and say what was looked at; see :func:`described`.

    Raises:
        UserError: an image cannot be read.
    """
    asked = _samples([str(path.expanduser().absolute()) for path in images])
    with TemporaryDirectory() as folder:  # queries are not worth a place in the cache
        encoded = run.encoders(Path(folder)).images(EncodingJob("queries", asked, Views()))
        features = encoded.features[:, 0].float().to(run.device, copy=True)
    far = run.keys.neighbourhood._replace(images=own.source.image_neighbours, texts=own.source.text_neighbours)
    remembered = Remembered(own.memory, far, run.device)
    queries = remembered.queries(features, asked.labels.to(run.device))
    with torch.no_grad():
        scores = run.learner(queries, remembered.knowledge).float()
    items = own.items
    around = Surroundings(own.source.classes, own.memory.content, MemoryItems(asked, items.images, items.sentences))
    return described(scores, retrieved(run.learner, queries, remembered.knowledge), around, asked.sources)


def _encoded(run: FinishedRun, classes: OwnClasses) -> MemoryContent:
    encoders = run.encoders()
    texts = encoders.texts("own-memory-texts", classes.sentences, too_long="cut")
    images = ClassRows(torch.empty(0, encoders.dimension), classes.images.labels)
    if len(classes.images):
        encoded = encoders.images(EncodingJob("own-memory-images", classes.images, Views()))
        images = ClassRows(encoded.features[:, 0].float(), encoded.labels)
    return MemoryContent(images, ClassRows(texts.features, texts.classes), None, len(classes.names))


def _source_of(classes: OwnClasses, folders: Sequence[Path], far: Sequence[int], before: Source | None) -> Source:
    files = classes.images.images
    assert isinstance(files, FileImages)
    root = files.root.absolute()
    own = (
        classes.names,
        tuple(str(root / path) for path in files.paths),
        classes.sentences.texts,
        tuple(str(folder.absolute()) for folder in folders),
    )
    first = ((), (), (), ()) if before is None else (before.classes, before.images, before.sentences, before.folders)
    names, images, sentences, read = ((*one, *other) for one, other in zip(first, own, strict=True))
    return Source(names, images, sentences, read, image_neighbours=far[0], text_neighbours=far[1])


def _check_reach(source: Source, path: Path) -> None:
    """Refuse a memory with fewer rows than a query sees; one without images is asked by its texts alone."""
    sides = (
        (source.image_neighbours, len(source.images), "images", "--image-neighbours"),
        (source.text_neighbours, len(source.sentences), "sentences", "--text-neighbours"),
    )
    for far, count, words, option in sides:
        if far < 1:
            raise UserError(f"{path}: a query is to see {far} {words}: expected {option} 1 or more")
        if far > count > 0:
            raise UserError(
                f"{path}: a query is to see {far} {words} and the memory has {count}. Bring more, or build it with "
                f"{option} {count}"
            )


def _read_source(content: Any, memory: ClassMemory, path: Path) -> Source:
    """Read where rows come from, as far as it goes with the rows."""
    try:
        parts: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in content.items()
        }
        read = Source(**parts)
        if not all(type(far) is int for far in (read.image_neighbours, read.text_neighbours)):
            raise TypeError("neighbours are counted")
        rows = memory.content
        counts = (memory.class_count, len(rows.images.classes), len(rows.texts.classes))
        fits = counts == (len(read.classes), len(read.images), len(read.sentences))
    except (TypeError, AttributeError) as error:
        raise UserError(f"{path} was not made by: mmcl memory build. Make it anew") from error
    if not fits:
        raise UserError(f"{path} is damaged: its names are of other rows. Make it anew")
    return read


def _samples(paths: Sequence[str]) -> Samples:
    rows = torch.arange(len(paths))
    return Samples(FileImages(Path("/"), tuple(paths)), torch.zeros_like(rows), rows)
