"""CUB-200-2011 as a memory: its splits, captions that belong to labelled images alone, and other texts."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from mmcl.benchmarks.cub_memory import CubMemory, bird_name
from mmcl.errors import UserError
from tests.benchmarks.memory_trees import (
    check_labels,
    configured,
    paths,
    sentences_of,
    write_articles,
    write_images,
    write_text,
)

BIRDS = [
    f"{number:03d}.Grey_{word}" for number, word in enumerate(("Ani", "Auk", "Bunting", "Crow", "Duck", "Egret"), 1)
]
KEYS = {
    "unseen_classes": 2,
    "validation_classes": 1,
    "training_queries": 2,
    "shots": 1,
    "memory_prompts": "none",
}


def tree(data: Path) -> Path:
    """Six birds with six labelled and two test images each, and a caption of every image."""
    root = data / "CUB_200_2011"
    write_images(root / "images", BIRDS, 8)
    images = [f"{bird}/{bird}_{number:03d}.jpg" for bird in BIRDS for number in range(8)]
    lists = {
        "images": images,
        "image_class_labels": [str(row // 8 + 1) for row in range(len(images))],
        "train_test_split": [str(int(row % 8 < 6)) for row in range(len(images))],
    }
    for name, column in lists.items():
        write_text(root / f"{name}.txt", "".join(f"{row} {word}\n" for row, word in enumerate(column, 1)))
    write_text(root / "classes.txt", "".join(f"{number} {bird}\n" for number, bird in enumerate(BIRDS, 1)))
    for image in images:
        write_text(root / "text" / f"{image[:-4]}.txt", f"caption of {image}\n")
    return root


def benchmark(data: Path, **keys: Any) -> CubMemory:
    made: CubMemory = configured("cub200", data, **{**KEYS, **keys})
    return made


def folder_of(name: str) -> str:
    return next(bird for bird in BIRDS if bird_name(bird) == name)


def test_official_lists_and_captions(tmp_path: Path) -> None:
    tree(tmp_path)
    sets = benchmark(tmp_path).listed.items()
    assert [len(part.class_names) for part in sets.values()] == [3, 1, 2]
    for part in sets.values():
        birds = [folder_of(name) for name in part.class_names]
        check_labels(part, birds)
        kept = {*paths(part.images), *paths(part.shots)}
        told = {text.removeprefix("caption of ") for text in part.sentences.texts}
        assert told == {path.removeprefix("images/") for path in kept}
        assert len(part.training) == (2 * len(birds) if part is sets["seen"] else 0)
        assert all(int(path[-7:-4]) >= 6 for path in paths(part.queries))
        assert all(birds[0] in text for text in sentences_of(part, 0))
        assert part.prompts("tip").texts[0] == f"a photo of a {part.class_names[0]}, a type of bird."


def test_the_epoch_may_be_chosen_by_the_unseen_classes(tmp_path: Path) -> None:
    tree(tmp_path)
    own = benchmark(tmp_path, selection="official", class_split="last")
    sets = own.listed
    assert own.birds.class_ids == tuple(BIRDS)
    assert sets.unseen.class_names == ("Grey Duck", "Grey Egret") == sets.validation.class_names
    assert len(sets.seen.class_names) == 4


def test_split_folders_decide(tmp_path: Path) -> None:
    root = tree(tmp_path)
    for part, birds in (("Train_150", BIRDS[1:]), ("Val_50", BIRDS[:1])):
        write_images(root / part, birds, 7)
    write_images(root / "memory", BIRDS, 3)
    sets = benchmark(tmp_path, queries=3).listed
    assert sets.unseen.class_names == ("Grey Ani",)
    check_labels(sets.seen, [folder_of(name) for name in sets.seen.class_names])
    assert all(path.startswith("Val_50/") for path in (*paths(sets.unseen.queries), *paths(sets.unseen.shots)))
    assert (len(sets.unseen.queries), len(sets.unseen.shots), len(sets.unseen.images)) == (3, 1, 3)
    asked = {Path(path).stem for path in paths(sets.unseen.queries)}
    assert len(sets.unseen.sentences.texts) == 7 - 3
    assert not any(stem in text for stem in asked for text in sets.unseen.sentences.texts)
    write_images(root / "Val_50", BIRDS[1:2], 1)
    with pytest.raises(UserError, match="'002.Grey_Auk' is in Train_150 and in Val_50"):
        benchmark(tmp_path).setup()
    with pytest.raises(UserError, match="lacks the class folders in Train_150 and Val_50"):
        benchmark(tmp_path / "other", class_split="folders").setup()


def test_other_texts(tmp_path: Path) -> None:
    root = tree(tmp_path)
    write_text(root / "told.json", json.dumps({f"grey-{bird[9:].lower()}": ["It is grey."] for bird in BIRDS}))
    described = benchmark(tmp_path, text="descriptions", descriptions="told.json").listed.unseen
    assert described.sentences.texts == ("It is grey.",) * 2
    properties = benchmark(tmp_path, text="descriptions", properties="told.json").listed.unseen
    assert properties.sentences.texts[0] == f"{properties.class_names[0]}, It is grey."
    write_articles(root, BIRDS)
    wiki = benchmark(tmp_path, text="wiki", class_split="last").listed.unseen
    assert wiki.class_names == ("the 005.Grey Duck", "the 006.Grey Egret")
    assert sentences_of(wiki, 1) == ["006.", "Grey_Egret is one.", "It has 5 legs."]
    with pytest.raises(UserError, match="articles give no short descriptions"):
        wiki.prompts("cupl")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"class_split": "folder"}, "Did you mean 'folders'"),
        ({"text": "caption"}, "Did you mean 'captions'"),
        ({"text": "descriptions"}, r"Type benchmark\.descriptions=FILE"),
        ({"text": "wiki"}, "labels.txt is missing"),
        ({"selection": "oficial"}, "Did you mean 'official'"),
        ({"labels_rule": "whole"}, "benchmark.labels_rule=whole"),
        ({"unseen_classes": 6}, "6 classes are too few"),
        ({"folder": "nowhere"}, "cannot read .*images.txt"),
    ],
)
def test_what_is_refused(keys: dict[str, Any], message: str, tmp_path: Path) -> None:
    tree(tmp_path)
    with pytest.raises(UserError, match=message):
        benchmark(tmp_path, **keys).setup()


def test_incomplete_copies_are_named(tmp_path: Path) -> None:
    root = tree(tmp_path)
    for file in (root / "text" / BIRDS[2]).iterdir():
        file.unlink()
    with pytest.raises(UserError, match="003.Grey_Bunting has no caption"):
        benchmark(tmp_path).setup()
    (root / "images" / BIRDS[0] / f"{BIRDS[0]}_000.jpg").unlink()
    with pytest.raises(UserError, match="001.Grey_Ani_000.jpg is missing; 1 images"):
        benchmark(tmp_path).setup()
    assert not benchmark(tmp_path).describe_data()[0].present


def test_the_folder_is_described(tmp_path: Path) -> None:
    tree(tmp_path)
    items = benchmark(tmp_path).describe_data()
    assert all(item.present for item in items)
    assert "3 seen classes, 1 validation classes, 2 unseen classes" in items[0].meaning


@pytest.mark.real
@pytest.mark.skipif("MMCL_DATA" not in os.environ, reason="set MMCL_DATA to the folder of the data sets")
def test_real_birds() -> None:
    sets = configured("cub200", Path(os.environ["MMCL_DATA"]), unseen_classes=3, validation_classes=2).listed
    for part in sets.items().values():
        check_labels(part, [folder for folder in dict.fromkeys(Path(path).parent.name for path in paths(part.queries))])
        assert len(part.images) >= 14 * len(part.class_names)  # of 29 or 30 labelled ones
        assert len(part.sentences.texts) > 250 * len(part.class_names)
