"""Classes of a user's own for a memory: folders of images, and sentences about each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torchvision.datasets.folder import IMG_EXTENSIONS

from mmcl.benchmarks.prompts import read_json, spoken
from mmcl.errors import MissingFileError, UserError, nearest
from mmcl.images import FileImages
from mmcl.protocol import Samples, Sentences
from mmcl.texts.wiki import article_text, parse_sections, split_sentences

TEXT_FORM = (
    "Expected a folder with a file <class>.txt for each class, a sentence a line, or a JSON file of lists of sentences "
    "by class."
)
IMAGE_FORM = "Expected a folder with <class>/<image> in it."
NAMED_CLASSES = 3


class OwnClasses(NamedTuple):
    """C classes; labels are positions in ``names``, rows are grouped by class.

    Attributes:
        names: C names, sorted.
        images: image files; a class may have none.
        sentences: every class has some.
    """

    names: tuple[str, ...]
    images: Samples
    sentences: Sentences

    @property
    def without_images(self) -> list[str]:
        """Names of the classes for which their texts have to stand."""
        counts = torch.bincount(self.images.labels, minlength=len(self.names)).tolist()
        return [name for name, count in zip(self.names, counts, strict=True) if not count]


def read_own_classes(images: Path | None, texts: Path, templates: Sequence[str]) -> OwnClasses:
    """List the images and read the sentences of classes.

    Args:
        images: folder with a folder of images for each class; those of a class without images may be missing. None
            where there are no images at all.
        texts: what :func:`read_texts` reads; it says which classes there are.
        templates: such as ``"a photo of a {}."``; their sentences stand before those that were read.

    Raises:
        UserError: a class without text, a class folder that no text is about, or files that cannot be read.
    """
    read = read_texts(texts)
    names = tuple(sorted(read))
    sentences = {name: [*(form.format(spoken(name)) for form in templates), *read[name]] for name in names}
    bare = [name for name in names if not sentences[name]]
    if bare:
        raise UserError(f"{texts} has no sentence about {_listed(bare)}: every class of a memory needs at least one")
    listed = {name: [] for name in names} if images is None else _image_files(images, names, texts)
    files = [(path, label) for label, name in enumerate(names) for path in listed[name]]
    labels = torch.tensor([label for _, label in files], dtype=torch.int64)
    return OwnClasses(
        names,
        Samples(FileImages(images or Path(), tuple(path for path, _ in files)), labels, torch.arange(len(files))),
        Sentences(
            tuple(text for name in names for text in sentences[name]),
            torch.tensor([label for label, name in enumerate(names) for _ in sentences[name]]),
        ),
    )


def read_texts(path: Path) -> dict[str, list[str]]:
    """Read sentences by class.

    Args:
        path: a folder of files ``<class>.txt`` in UTF-8, a sentence a line; a file with headings, lines that begin with
            ``==``, is an article and is cut into sentences as those of :mod:`mmcl.texts.wiki`. Or a JSON file, perhaps
            compressed: ``{"class": ["sentence", ...]}``.

    Returns:
        The sentences of each class, of some perhaps none.

    Raises:
        UserError: something is missing, of another form, or no UTF-8.
    """
    if path.is_dir():
        files = sorted(file for file in path.glob("[!.]*.txt") if file.is_file())
        if not files:
            raise UserError(f"{path} has no file that ends in .txt. {TEXT_FORM}")
        return {file.stem: _sentences_of(file) for file in files}
    if not path.is_file():
        raise MissingFileError(f"{path}: no such folder or file. {TEXT_FORM}")
    if ".json" not in path.suffixes:
        raise UserError(f"{path} is neither a folder nor a JSON file. {TEXT_FORM}")
    entries = read_json(path)
    if not isinstance(entries, Mapping) or not entries or not all(map(_are_sentences, entries.values())):
        raise UserError(f"{path} has another form. {TEXT_FORM}")
    return {name: [text.strip() for text in texts if text.strip()] for name, texts in entries.items()}


def _are_sentences(entry: object) -> bool:
    return isinstance(entry, list) and all(isinstance(text, str) for text in entry)


def _sentences_of(file: Path) -> list[str]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {file}: {error}. Save it as UTF-8, or bring a good copy") from error
    lines = [line for line in map(str.strip, text.splitlines()) if line]
    if any(line.startswith("==") for line in lines):
        return split_sentences(article_text(parse_sections(text)))
    return lines


def _image_files(root: Path, names: Sequence[str], texts: Path) -> dict[str, list[str]]:
    """Return the images of each class as paths below the folder, sorted."""
    if not root.is_dir():
        raise MissingFileError(f"{root}: no such folder. {IMAGE_FORM}")
    folders = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    unknown = [name for name in folders if name not in set(names)]
    if unknown:
        lonely = [name for name in names if name not in set(folders)]
        other = f", and {texts} names {_listed(lonely)}, which has no folder" if lonely else ""
        raise UserError(
            f"{root} has a folder {_listed(unknown)}, about which {texts} says nothing{other}."
            f"{nearest(unknown[0], names)} Give folder and text of a class the same name"
        )
    found = {name: _images_below(root, name) for name in names}
    if not any(found.values()):
        raise UserError(
            f"{root} has no image ({', '.join(IMG_EXTENSIONS)}). {IMAGE_FORM} For a memory of texts alone leave "
            "--images out"
        )
    return found


def _images_below(root: Path, name: str) -> list[str]:
    files = (root / name).rglob("[!.]*")
    return sorted(file.relative_to(root).as_posix() for file in files if file.suffix.lower() in IMG_EXTENSIONS)


def _listed(names: Sequence[str]) -> str:
    rest = len(names) - NAMED_CLASSES
    return ", ".join(map(repr, names[:NAMED_CLASSES])) + (f" and {rest} more" if rest > 0 else "")
