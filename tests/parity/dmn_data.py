"""Golden checks of DMN's data protocol: which few images are chosen, and which sentences are written."""

from __future__ import annotations

import os
from pathlib import Path

from torch import from_numpy

from mmcl.benchmarks.clip_catalogue import CATALOGUE
from mmcl.benchmarks.clip_lists import Place, imagenet_names
from mmcl.benchmarks.few_shot import few_shot_rows
from mmcl.benchmarks.prompts import KINDS, read_descriptions, sentences_of_kind, spoken
from tests.parity import Golden, close, parity

OURS = {
    "I": "imagenet",
    "DTD": "dtd",
    "eurosat": "eurosat",
    "Aircraft": "fgvc_aircraft",
    "Caltech101": "caltech101",
}


@parity("fewshot_sampling")
def fewshot_sampling(golden: Golden) -> None:
    sets = [key.split("__")[0] for key in golden if key.endswith("__train_labels")]
    assert sets
    for name in sets:
        labels = from_numpy(golden[f"{name}__train_labels"].astype("int64"))
        for shots in (1, 2, 4, 8, 16):
            close(few_shot_rows(labels, shots), golden[f"{name}__chosen_{shots}"], tolerance=0)


@parity("prompts")
def prompts(golden: Golden) -> None:
    checked = {tuple(key.split("__")[:2]) for key in golden if key.endswith("__prompts")}
    assert {kind for _, kind in checked} <= set(KINDS)
    for name, kind in checked:
        templates = CATALOGUE[OURS[name]].templates
        expected = golden[f"{name}__{kind}__prompts"].tolist()
        classes = golden[f"{name}__{kind}__prompt_class"].tolist()
        class_names = golden[f"{name}__classnames"].tolist()
        described = _tails(expected, classes, class_names, len(templates))
        sentences = sentences_of_kind(kind, class_names, templates, lambda described=described: described)
        assert list(sentences.texts) == expected
        assert sentences.classes.tolist() == classes
        if kind == "tip_cupl" and "MMCL_DATA" in os.environ:
            _compare_the_users_file(name, class_names, described)
    if "I__classnames" in golden:
        assert list(imagenet_names()[:3]) == golden["I__classnames"].tolist()


def _tails(texts: list[str], classes: list[int], class_names: list[str], templates: int) -> dict[str, list[str]]:
    """Return what follows the templates of each class: its sentences from the prompt file."""
    rows = {label: [text for text, c in zip(texts, classes, strict=True) if c == label] for label in set(classes)}
    return {spoken(class_names[label]): own[templates:] for label, own in rows.items()}


def _compare_the_users_file(name: str, class_names: list[str], described: dict[str, list[str]]) -> None:
    entry = CATALOGUE[OURS[name]]
    root = Path(os.environ["MMCL_DATA"])
    path = Place(root, root / entry.folders[0]).find(entry.prompt_file, "cupl")
    if path is not None:  # the user's to bring
        assert read_descriptions(path, class_names) == described
