"""Classes of a user's own: what is read, and what is said where folders and texts do not fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmcl.benchmarks.own_classes import read_own_classes, read_texts
from mmcl.errors import UserError
from mmcl.images import FileImages


def texts_of(folder: Path, **texts: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in texts.items():
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    return folder


def images_of(folder: Path, *paths: str) -> Path:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()
    return folder


def test_rows_are_grouped_by_sorted_class(tmp_path: Path) -> None:
    texts = texts_of(tmp_path / "texts", oak="An oak.\n\n  It has lobes. \n", ash="An ash.")
    images = images_of(
        tmp_path / "images",
        "oak/b.JPG",
        "oak/a.png",
        "oak/old/c.jpeg",
        "oak/notes.txt",
        "oak/.hidden.png",
        "ash/x.webp",
    )
    classes = read_own_classes(images, texts, ())
    assert classes.names == ("ash", "oak")
    assert isinstance(classes.images.images, FileImages)
    assert classes.images.images.paths == ("ash/x.webp", "oak/a.png", "oak/b.JPG", "oak/old/c.jpeg")
    assert classes.images.labels.tolist() == [0, 1, 1, 1]
    assert classes.sentences.texts == ("An ash.", "An oak.", "It has lobes.")
    assert classes.sentences.classes.tolist() == [0, 1, 1]
    assert classes.without_images == []


def test_a_class_may_have_texts_alone_and_so_may_all(tmp_path: Path) -> None:
    texts = texts_of(tmp_path / "texts", ash="An ash.", elm="An elm.", oak="An oak.")
    images = images_of(tmp_path / "images", "ash/x.png")
    (tmp_path / "images" / "elm").mkdir()
    assert read_own_classes(images, texts, ()).without_images == ["elm", "oak"]
    assert read_own_classes(None, texts, ()).without_images == ["ash", "elm", "oak"]


def test_templates_stand_first_and_for_an_empty_text(tmp_path: Path) -> None:
    texts = texts_of(tmp_path / "texts", red_oak="It has lobes.", ash="")
    classes = read_own_classes(None, texts, ("a {}.", "the {}."))
    assert classes.sentences.texts == ("a ash.", "the ash.", "a red oak.", "the red oak.", "It has lobes.")


def test_articles_are_cut_into_sentences(tmp_path: Path) -> None:
    article = "Oaks are trees. They live\nlong.\n== Habitat ==\nIn e.g. forests.\n== References ==\nA book."
    read = read_texts(texts_of(tmp_path / "texts", oak=article, ash="Oaks are trees. They live long."))
    assert read == {
        "ash": ["Oaks are trees. They live long."],
        "oak": ["Oaks are trees.", "They live\nlong.", "In e.g. forests."],
    }


def test_json_says_the_same_as_files(tmp_path: Path) -> None:
    file = tmp_path / "texts.json"
    file.write_text(json.dumps({"oak": ["An oak.", "  It has lobes. ", " "], "ash": ["An ash."]}))
    assert read_texts(file) == read_texts(texts_of(tmp_path / "texts", oak="An oak.\nIt has lobes.", ash="An ash."))


@pytest.mark.parametrize("content", ["[1]", "{}", '{"oak": "An oak."}', '{"oak": [1]}', "{"])
def test_json_of_another_form_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "texts.json"
    file.write_text(content)
    with pytest.raises(UserError, match=r"texts\.json"):
        read_texts(file)


def test_a_folder_without_a_text_is_named_with_the_text_without_a_folder(tmp_path: Path) -> None:
    texts = texts_of(tmp_path / "texts", red_oak="An oak.", ash="An ash.")
    images = images_of(tmp_path / "images", "red oak/a.png", "ash/a.png")
    with pytest.raises(UserError, match="'red oak'.*'red_oak'.*Did you mean 'red_oak'"):
        read_own_classes(images, texts, ())


def test_what_is_missing_or_unreadable_is_named(tmp_path: Path) -> None:
    texts = texts_of(tmp_path / "texts", oak="An oak.", ash=" \n")
    with pytest.raises(UserError, match="no sentence about 'ash'"):
        read_own_classes(None, texts, ())
    (texts / "ash.txt").write_bytes(b"\xff\xfe\xe9")
    with pytest.raises(UserError, match=r"ash\.txt.*UTF-8"):
        read_own_classes(None, texts, ())
    (texts / "ash.txt").write_text("An ash.")
    with pytest.raises(UserError, match="nowhere: no such folder"):
        read_own_classes(tmp_path / "nowhere", texts, ())
    (tmp_path / "images" / "oak").mkdir(parents=True)
    with pytest.raises(UserError, match="has no image"):
        read_own_classes(tmp_path / "images", texts, ())
    for missing, said in (("none", "no such folder or file"), ("images", "no file that ends in .txt")):
        with pytest.raises(UserError, match=said):
            read_texts(tmp_path / missing)
    with pytest.raises(UserError, match="neither a folder nor a JSON"):
        read_texts(texts / "oak.txt")
