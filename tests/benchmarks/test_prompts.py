from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from mmcl.benchmarks.clip_catalogue import CATALOGUE, SEVEN
from mmcl.benchmarks.prompts import full_templates, read_descriptions, sentences_of_kind
from mmcl.errors import UserError

NAMES = ("apple_pie", "tuna tartare")
TEMPLATES = ("a photo of {}, a type of food.", "{} on a plate.")
DESCRIPTIONS = {"tuna tartare": ["Raw tuna in cubes."], "apple pie": ["A pie.", "It has {braces}."]}


def texts(kind: str) -> list[tuple[int, str]]:
    sentences = sentences_of_kind(kind, NAMES, TEMPLATES, lambda: DESCRIPTIONS)
    return list(zip(sentences.classes.tolist(), sentences.texts, strict=True))


def test_kinds() -> None:
    assert texts("simple") == [(0, "a photo of a apple pie."), (1, "a photo of a tuna tartare.")]
    assert texts("tip")[:2] == [(0, "a photo of apple pie, a type of food."), (0, "apple pie on a plate.")]
    assert texts("cupl") == [(0, "A pie."), (0, "It has {braces}."), (1, "Raw tuna in cubes.")]
    assert [row for row in texts("tip_cupl") if row[0] == 0] == [*texts("tip")[:2], *texts("cupl")[:2]]
    assert len(texts("full")) == 2 * 80
    assert texts("full")[0] == (0, "a bad photo of a apple pie.")


def test_templates_alone_need_no_prompt_file() -> None:
    def absent() -> dict[str, list[str]]:
        raise UserError("absent")

    for kind in ("simple", "tip", "full"):
        sentences_of_kind(kind, NAMES, TEMPLATES, absent)
    for kind in ("cupl", "tip_cupl"):
        with pytest.raises(UserError, match="absent"):
            sentences_of_kind(kind, NAMES, TEMPLATES, absent)


def test_an_unknown_kind_names_the_nearest() -> None:
    with pytest.raises(UserError, match="method.prompts=tip_cup.*Did you mean 'tip_cupl'"):
        texts("tip_cup")


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_template_has_one_place_for_the_name(name: str) -> None:
    assert all(template.count("{}") == 1 for template in CATALOGUE[name].templates)


def test_the_seven_are_among_the_eighty() -> None:
    assert set(SEVEN) <= set(full_templates())


@pytest.mark.parametrize("compressed", [False, True])
def test_prompt_files_are_read_plain_and_compressed(compressed: bool, tmp_path: Path) -> None:
    path = tmp_path / ("prompts.json.gz" if compressed else "prompts.json")
    content = json.dumps({**DESCRIPTIONS, "soup": []}).encode()
    path.write_bytes(gzip.compress(content) if compressed else content)
    assert read_descriptions(path, NAMES) == DESCRIPTIONS


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"apple pie": ["A pie."], "tuna tartar": ["Raw."]},
            r"'tuna tartare'.*Did you mean 'tuna tartar'.*prompts=tip",
        ),
        ({**DESCRIPTIONS, "apple pie": []}, "no sentences for the class 'apple pie'"),
        ({**DESCRIPTIONS, "apple pie": "A pie."}, "entry of 'apple pie' is no list"),
        ({**DESCRIPTIONS, "apple pie": [1]}, "entry of 'apple pie' is no list"),
        (["A pie."], "holds a list"),
    ],
)
def test_a_prompt_file_of_another_form_is_named(content: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "CuPL_prompts_food101.json"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=message) as caught:
        read_descriptions(path, NAMES)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", gzip.compress(b"{}", mtime=0)[:-4]])
def test_a_damaged_prompt_file_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "prompts.json.gz"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"cannot read .*prompts.json.gz"):
        read_descriptions(path, NAMES)
