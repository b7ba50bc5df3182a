"""Sentences about classes: templates filled with class names, and longer descriptions from a prompt file."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from mmcl.errors import UserError, nearest
from mmcl.protocol import Sentences

KINDS = ("simple", "tip", "cupl", "tip_cupl", "full")
SIMPLE = ("a photo of a {}.",)
Descriptions = Mapping[str, Sequence[str]]


def full_templates() -> tuple[str, ...]:
    """Return the 80 templates that CLIP's authors wrote for ImageNet."""
    from open_clip import OPENAI_IMAGENET_TEMPLATES  # late: the import takes seconds

    return tuple(template("{}") for template in OPENAI_IMAGENET_TEMPLATES)


def spoken(class_name: str) -> str:
    """Return a class name as it stands in sentences: underscores become spaces."""
    return class_name.replace("_", " ")


def compose(class_names: Sequence[str], templates: Sequence[str], descriptions: Descriptions) -> Sentences:
    """Write the sentences of each class: its filled templates, then its descriptions.

    Args:
        class_names: C names; underscores become spaces.
        templates: such as ``"a photo of a {}."``; may be empty.
        descriptions: sentences by class name with spaces; empty for templates alone.

    Returns:
        P sentences grouped by class, in the order of the classes.
    """
    texts: list[str] = []
    classes: list[int] = []
    for label, name in enumerate(map(spoken, class_names)):
        own = [*(template.format(name) for template in templates), *descriptions.get(name, ())]
        texts += own
        classes += [label] * len(own)
    return Sentences(tuple(texts), torch.tensor(classes, dtype=torch.int64))


def sentences_of_kind(
    kind: str, class_names: Sequence[str], templates: Sequence[str], descriptions: Callable[[], Descriptions]
) -> Sentences:
    """Write the sentences of a kind of prompts, as in the text classifiers of DMN and its baselines.

    Args:
        kind: ``simple`` (one template for every data set), ``tip`` (the data set's templates), ``cupl`` (the
            descriptions), ``tip_cupl`` (both), ``full`` (the 80 templates of ImageNet for every data set).
        class_names: C names.
        templates: those of the data set.
        descriptions: reads the data set's descriptions; called only by kinds that use them.

    Raises:
        UserError: an unknown kind, or what ``descriptions`` raises.
    """
    if kind not in KINDS:
        raise UserError(f"method.prompts={kind}: expected one of {', '.join(KINDS)}.{nearest(kind, KINDS)}")
    if kind == "full":
        return compose(class_names, full_templates(), {})
    chosen = {"simple": SIMPLE, "cupl": ()}.get(kind, tuple(templates))
    return compose(class_names, chosen, descriptions() if kind.endswith("cupl") else {})


def read_json(path: Path) -> object:
    """Read a JSON file, compressed if it ends in ``.gz``.

    Raises:
        UserError: the file is missing, truncated or no JSON.
    """
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
            return json.load(file)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise UserError(f"cannot read {path}: {error}. Replace it by a good copy and run again.") from error


def read_descriptions(path: Path, class_names: Sequence[str]) -> Descriptions:
    """Read a prompt file: a list of sentences for each class name.

    Args:
        path: JSON, perhaps compressed: ``{"class name": ["sentence", ...]}``.
        class_names: classes that must have an entry, underscores read as spaces; other entries are left out.

    Raises:
        UserError: another form, or a class without sentences.
    """
    entries = read_json(path)
    if not isinstance(entries, dict):
        raise UserError(f"{path} holds a {type(entries).__name__}, expected an object of class names and sentences.")
    chosen: dict[str, list[str]] = {}
    for name in map(spoken, class_names):
        sentences = entries.get(name)
        if not sentences:
            hint = nearest(name, entries)
            raise UserError(
                f"{path} has no sentences for the class {name!r}.{hint} Add them under this name, "
                "or type method.prompts=tip, which needs no prompt file."
            )
        if not isinstance(sentences, list) or not all(isinstance(sentence, str) for sentence in sentences):
            raise UserError(f"{path}: the entry of {name!r} is no list of sentences; mend it or replace the file.")
        chosen[name] = sentences
    return chosen
