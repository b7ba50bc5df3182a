"""What the classes of a folder are called, and the sentences that users bring about them, for the text memory."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import torch

from mmcl.benchmarks.clip_lists import imagenet_names, imagenet_wnids
from mmcl.benchmarks.prompts import SIMPLE, full_templates, read_json, sentences_of_kind, spoken
from mmcl.errors import MissingFileError, UserError, nearest
from mmcl.protocol import Sentences
from mmcl.texts.labels import LABEL_RULES
from mmcl.texts.wiki import ClassTexts, decode_article, read_class_texts

WNID = re.compile(r"n\d{8}")
NO_PROMPTS = "none"
MEMORY_PROMPTS = (NO_PROMPTS, "simple", "tip", "full")
TEXTS = (
    "Bring a folder with a file <class>.txt for each class, a sentence a line, or a JSON file "
    '{"class name": ["sentence", ...]}'
)


class NamedClass(NamedTuple):
    """A class by the name of its folder, and what it is called: the first of ``names`` stands in sentences."""

    class_id: str
    names: tuple[str, ...]


class Words(Protocol):
    """What is said about C classes."""

    @property
    def names(self) -> tuple[str, ...]:
        """C names."""
        ...

    def memory(self) -> Sentences:
        """Return the sentences of the memory, grouped by class."""
        ...

    def of_kind(self, kind: str) -> Sentences:
        """Return the sentences of a kind of prompts. Raises UserError where there are none."""
        ...


class ClassWords(NamedTuple):
    """What is said about C classes in sentences of the user's.

    Attributes:
        names: C names.
        own: the sentences about each class, without any template.
        templates: of the ``tip`` prompts.
        prompts: kind of prompts whose sentences the memory has before the own ones; ``none`` for the own ones alone.
    """

    names: tuple[str, ...]
    own: tuple[tuple[str, ...], ...]
    templates: tuple[str, ...]
    prompts: str

    def memory(self) -> Sentences:
        """Return the sentences of the memory, grouped by class."""
        return self.own_sentences() if self.prompts == NO_PROMPTS else self._behind(self.of_kind(self.prompts))

    def of_kind(self, kind: str) -> Sentences:
        """Return the sentences of a kind of prompts; the own sentences are what ``cupl`` stands for.

        Raises:
            UserError: an unknown kind, or a class without own sentences where they are asked for.
        """
        if not kind.endswith("cupl"):
            return sentences_of_kind(kind, self.names, self.templates, dict)
        if not all(self.own):
            name = self.names[self.own.index(())]
            raise UserError(f"method.prompts={kind}: there are no sentences about {name!r}. Type method.prompts=full")
        if kind == "cupl":
            return self.own_sentences()
        return self._behind(sentences_of_kind("tip", self.names, self.templates, dict))

    def own_sentences(self) -> Sentences:
        """Return the own sentences, grouped by class."""
        classes = [label for label, own in enumerate(self.own) for _ in own]
        return Sentences(tuple(text for own in self.own for text in own), torch.tensor(classes, dtype=torch.int64))

    def _behind(self, first: Sentences) -> Sentences:
        """Put the own sentences of each class behind others of it."""
        own = self.own_sentences()
        texts, classes = (*first.texts, *own.texts), torch.cat([first.classes, own.classes])
        order = classes.argsort(stable=True)
        return Sentences(tuple(texts[row] for row in order.tolist()), classes[order])


class WikiWords(NamedTuple):
    """What is said about C classes in articles, as MML has it: ``texts`` with the prompts, ``templates`` of ``tip``."""

    texts: ClassTexts
    templates: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """C names, from the label file."""
        return self.texts.names

    def memory(self) -> Sentences:
        """Return prompts and sentences of the articles, grouped by class in the order of the labels."""
        classes = torch.tensor(self.texts.classes, dtype=torch.int64)
        order = classes.argsort(stable=True)
        return Sentences(tuple(self.texts.sentences[row] for row in order.tolist()), classes[order])

    def of_kind(self, kind: str) -> Sentences:
        """Return the sentences of a kind of prompts.

        Raises:
            UserError: an unknown kind, or one with descriptions: articles are too long for a classifier of texts.
        """
        if kind.endswith("cupl"):
            raise UserError(f"method.prompts={kind}: articles give no short descriptions. Type method.prompts=full")
        return sentences_of_kind(kind, self.names, self.templates, dict)


def read_wiki_words(
    folder: Path, class_ids: Sequence[str], templates: Sequence[str], prompts: str, rule: str
) -> WikiWords:
    """Read ``labels.txt`` and the articles ``wiki/desc_<article>.txt`` of classes.

    Args:
        folder: has both.
        class_ids: C ids in the order of the labels.
        templates: of the ``tip`` prompts.
        prompts: kind of prompts that stand before each article, as in ``MEMORY_PROMPTS``.
        rule: how a line of the label file is split, key of ``mmcl.texts.labels.LABEL_RULES``.

    Raises:
        UserError: a file is missing or cannot be decoded, or a class is not in the label file.
    """
    before = {"full": full_templates(), "simple": SIMPLE, "tip": tuple(templates)}.get(prompts, ())
    targets = {class_id: label for label, class_id in enumerate(class_ids)}
    texts = read_class_texts(folder / "labels.txt", folder / "wiki", targets, before, rule=rule, limit=None)
    return WikiWords(texts, tuple(templates))


def check_labels_rule(rule: str) -> None:
    """Refuse a way of splitting lines that does not exist."""
    if rule not in LABEL_RULES:
        known = ", ".join(LABEL_RULES)
        raise UserError(f"benchmark.labels_rule={rule}: expected one of {known}.{nearest(rule, LABEL_RULES)}")


def check_templates(templates: Sequence[str]) -> None:
    """Refuse templates that have no place for the name, or none at all."""
    for template in templates:
        if template.count("{}") != 1:
            raise UserError(f"benchmark.templates: {template!r} needs one {{}} where the class name goes")
    if not templates:
        raise UserError("benchmark.templates=[]: expected at least one, such as 'a photo of a {}.'")


def check_memory_prompts(kind: str) -> None:
    """Refuse a kind of prompts that no memory has."""
    if kind not in MEMORY_PROMPTS:
        known = ", ".join(MEMORY_PROMPTS)
        raise UserError(f"benchmark.memory_prompts={kind}: expected one of {known}.{nearest(kind, MEMORY_PROMPTS)}")


def name_classes(class_ids: Sequence[str], file: Path | None) -> tuple[NamedClass, ...]:
    """Say what classes are called: by a file, by ImageNet's wnids, or as their folders are, underscores as blanks.

    Args:
        class_ids: names of the folders.
        file: lines ``folder<TAB>name, another name``; a blank may stand for the tab, and lines about others are passed
            over. None without one.

    Returns:
        The classes in the same order; ImageNet classes have the name that CLIP's authors gave them among theirs.

    Raises:
        UserError: the file is missing, cannot be read, or lacks a class.
    """
    known: dict[str, str] = {}
    if any(WNID.fullmatch(class_id) for class_id in class_ids):
        known = dict(zip(imagenet_wnids(), imagenet_names(), strict=True))
    listed = {} if file is None else _names_in(file)
    named = []
    for class_id in class_ids:
        names = [*listed.get(class_id, ()), *([known[class_id]] if class_id in known else [])]
        if file is not None and class_id not in listed:
            raise UserError(
                f"{file} has no line for the class folder {class_id!r}.{nearest(class_id, listed)} Expected lines "
                "'folder<TAB>name, another name'"
            )
        named.append(NamedClass(class_id, tuple(dict.fromkeys(names)) or (spoken(class_id),)))
    return tuple(named)


def read_own_sentences(
    classes: Sequence[NamedClass], source: Path | None, fallback: Path | None
) -> tuple[tuple[str, ...], ...]:
    """Read the sentences about each class.

    Args:
        classes: C classes.
        source: a folder of ``<class>.txt`` with a sentence a line, by folder name or by any name of the class; or a
            JSON file of sentences by class name, perhaps compressed. None where the fallback is all.
        fallback: a JSON file of properties by class name, ``{"class name": ["a long tail", ...]}``, for classes that
            the source lacks: "crane, a long tail." None without one.

    Raises:
        UserError: a file is missing or of another form, cannot be decoded, or a class has no sentence.
    """
    found = _read(source, classes)
    spare = [()] * len(classes) if all(found) else _read(fallback, classes)
    described = [
        sentences or tuple(f"{own.names[0]}, {words.rstrip('.')}." for words in properties)
        for own, sentences, properties in zip(classes, found, spare, strict=True)
    ]
    bare = [own for own, sentences in zip(classes, described, strict=True) if not sentences]
    if bare:
        called = " or ".join(repr(name) for name in dict.fromkeys((bare[0].class_id, *bare[0].names)))
        raise UserError(
            f"{source or fallback} has no sentence for {len(bare)} of {len(classes)} classes, such as {called}. {TEXTS}"
        )
    return tuple(described)


def _names_in(file: Path) -> dict[str, tuple[str, ...]]:
    names = {}
    for line in _decoded(file).split("\n"):
        class_id, _, words = line.strip().partition("\t" if "\t" in line else " ")
        names[class_id] = tuple(name for part in words.split(",") if (name := spoken(part.strip())))
    return {class_id: own for class_id, own in names.items() if own}


def _read(source: Path | None, classes: Sequence[NamedClass]) -> list[tuple[str, ...]]:
    if source is None:
        return [()] * len(classes)
    return [_from_folder(source, own) for own in classes] if source.is_dir() else _from_json(source, classes)


def _from_folder(folder: Path, own: NamedClass) -> tuple[str, ...]:
    files = [folder / f"{name}.txt" for name in (own.class_id, *own.names)]
    file = next((file for file in files if file.is_file()), None)
    return () if file is None else sentence_lines(file)


def sentence_lines(file: Path) -> tuple[str, ...]:
    """Read a file with a sentence a line, UTF-8 or GBK; empty lines are passed over.

    Raises:
        UserError: the file is missing or cannot be decoded.
    """
    return tuple(sentence for line in _decoded(file).split("\n") if (sentence := line.strip()))


def _from_json(file: Path, classes: Sequence[NamedClass]) -> list[tuple[str, ...]]:
    if not file.is_file():
        raise MissingFileError(f"{file} is missing. {TEXTS}")
    entries = read_json(file)
    if not isinstance(entries, dict):
        raise UserError(f"{file} holds a {type(entries).__name__}. {TEXTS}")
    by_name = {_plain(name): sentences for name, sentences in entries.items()}
    found = []
    for own in classes:
        words = (_plain(name) for name in (own.class_id, *own.names))
        sentences: object = next((by_name[word] for word in words if word in by_name), [])
        if not isinstance(sentences, list) or not all(isinstance(sentence, str) for sentence in sentences):
            raise UserError(f"{file}: the entry of {own.names[0]!r} is no list of sentences. {TEXTS}")
        found.append(tuple(sentence for sentence in sentences if sentence.strip()))
    return found


def _plain(name: str) -> str:
    """Return a name without case, blanks and signs: "Black-footed Albatross" and "black_footed_albatross" are one."""
    return re.sub(r"[\W_]+", "", name.lower())


def _decoded(file: Path) -> str:
    try:
        return decode_article(file.read_bytes(), str(file))
    except OSError as error:
        raise MissingFileError(f"cannot read {file}: {error.strerror}. {TEXTS}") from error
