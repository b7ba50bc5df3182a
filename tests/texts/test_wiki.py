from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmcl.errors import MissingFileError, UserError
from mmcl.texts.wiki import (
    ClassTexts,
    article_text,
    decode_article,
    parse_sections,
    prompt_text,
    read_article,
    read_class_texts,
    sentence_rows,
    split_sentences,
)

TEXTS = st.text(alphabet="aAzZ .?!_1é鸟\n\t", max_size=40)
WORDS = st.text(alphabet="aA .=é", min_size=1, max_size=6).map(lambda word: word.strip(" =")).filter(bool)


def squeezed(text: str) -> str:
    return "".join(text.split())


@given(TEXTS)
def test_sentences_together_are_the_text(text: str) -> None:
    sentences = split_sentences(text)
    assert squeezed("".join(sentences)) == squeezed(text)
    assert all(sentence and sentence == sentence.strip() for sentence in sentences)


@given(TEXTS)
def test_sentences_end_where_the_rule_says(text: str) -> None:
    pieces, start = [], 0
    for place in range(1, len(text)):
        before, after = text[:place], text[place]
        word, capital = r"\w\.\w.$", r"[A-Z]\.$"
        ends = before[-1] in ".?" and (after.isspace() or "A" <= after <= "Z")
        if ends and not re.search(word, before) and not re.search(capital, before):
            pieces.append(text[start:place])
            start = place
    assert split_sentences(text) == [piece.strip() for piece in [*pieces, text[start:]] if piece.strip()]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two", ["One.", "Two"]),
        ("Go!Stay! Is it?It is.", ["Go!Stay! Is it?", "It is."]),
        ("See e.g. A or the U.S. B.", ["See e.g. A or the U.S. B."]),
        ("J. Alder met Dr. Who", ["J. Alder met Dr.", "Who"]),
        ("3.5 kg. then more.", ["3.5 kg.", "then more."]),
        ("end.\n\n", ["end."]),
        ("", []),
    ],
)
def test_sentences(text: str, expected: list[str]) -> None:
    assert split_sentences(text) == expected


@given(st.dictionaries(WORDS, st.lists(WORDS, max_size=3), max_size=4), st.lists(WORDS, max_size=3))
def test_sections_are_those_that_were_written(written: dict[str, list[str]], lead: list[str]) -> None:
    text = "\n \n".join(lead)
    for heading, lines in written.items():
        text += f"\n== {heading} ==\n\n" + " \n".join(lines)
    expected = {"summary": "\n".join(lead), **{heading: "\n".join(lines) for heading, lines in written.items()}}
    assert list(parse_sections(text).items()) == list(expected.items())


def test_a_heading_that_comes_again_replaces_the_text_and_keeps_its_place() -> None:
    text = "lead\n== A ==\nold\n=== B ===\nb\n==A==\nnew\n== summary ==\nanother lead"
    assert list(parse_sections(text).items()) == [("summary", "another lead"), ("A", "new"), ("B", "b")]


def test_lists_of_sources_are_left_out_but_not_what_is_below_them() -> None:
    text = "lead\n== References ==\nr\n=== Books ===\nb\n== See also ==\n== external links ==\ne\n== Bibliography ==\nx"
    assert article_text(parse_sections(text)) == "lead\nb\n\ne"


def test_other_characters_than_line_ends_end_no_line() -> None:
    assert parse_sections("a\u2028== b\x85c") == {"summary": "a\u2028== b\x85c"}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gbk"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_articles_are_decoded(encoding: str, end: str) -> None:
    text = "大鸟是一种鸟。\n== 分布 ==\nIt lives here.\n"
    assert decode_article(text.replace("\n", end).encode(encoding), "f") == text


def test_an_article_in_another_encoding_is_named(tmp_path: Path) -> None:
    path = tmp_path / "desc_7.txt"
    path.write_bytes("é\n".encode("utf-16"))
    with pytest.raises(UserError, match="desc_7.txt is neither UTF-8 nor GBK"):
        read_article(path)


def test_a_blank_follows_the_name_in_prompts() -> None:
    assert prompt_text("tench", ("a photo of a {}.", "the {} here.")) == "a photo of a tench .\nthe tench  here."


def test_rows_have_the_label_of_their_text() -> None:
    assert sentence_rows(["A. B. C.", "", "D."], [2, 0, 1], None) == (("A. B. C.", "D."), (2, 1))
    assert sentence_rows(["One. Two. Six.", "Ten."], [1, 0], 2) == (("One.", "Two.", "Ten."), (1, 1, 0))
    with pytest.raises(UserError, match="max_sentences=0"):
        sentence_rows(["A."], [0], 0)


def write(root: Path, articles: dict[str, bytes]) -> tuple[Path, Path]:
    (root / "wiki").mkdir()
    (root / "labels.txt").write_text("a 5 ant\nb 7 big_bee\nc 6 cat\n")
    for name, content in articles.items():
        (root / "wiki" / f"desc_{name}.txt").write_bytes(content)
    return root / "labels.txt", root / "wiki"


def test_classes_are_labelled_by_their_target_not_by_their_place(tmp_path: Path) -> None:
    labels, wiki = write(tmp_path, {"5": b"Ants dig.", "7": b"Bees fly. They sting.", "6": b""})
    read = read_class_texts(labels, wiki, {"b": 2, "a": 0, "c": 1}, ["a {}."], rule="official", limit=None)
    assert read == ClassTexts(
        ("a big bee .", "Bees fly.", "They sting.", "a ant .", "Ants dig.", "a cat ."),
        (2, 2, 2, 0, 0, 1),
        ("ant", "cat", "big bee"),
    )
    short = read_class_texts(labels, wiki, {"b": 0}, ["a {}."], rule="official", limit=2)
    assert short == (("a big bee .", "Bees fly."), (0, 0), ("big bee",))


def test_missing_articles_are_counted_before_any_is_read(tmp_path: Path) -> None:
    labels, wiki = write(tmp_path, {"7": b"\xff"})
    with pytest.raises(MissingFileError, match="desc_5.txt and 1 more are missing"):
        read_class_texts(labels, wiki, {"a": 0, "b": 1, "c": 2}, [], rule="official", limit=None)
    with pytest.raises(MissingFileError, match="desc_5.txt is missing"):
        read_class_texts(labels, wiki, {"a": 0}, [], rule="official", limit=None)
    with pytest.raises(UserError, match="desc_7.txt is neither"):
        read_class_texts(labels, wiki, {"b": 0}, [], rule="official", limit=None)


def test_texts_need_no_torch() -> None:
    code = "import sys, mmcl.texts.wiki; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
