"""Web images and articles in the published folders: parts of ImageNet-100, ImageNet split by a seed, same classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmcl.benchmarks.same_class_memory import SameClassMemory
from mmcl.benchmarks.wiki_memory import ImageNet100Wiki, ImageNetUnseen
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

NAMES = [f"n{number:02d}" for number in range(12)]
PARTS = {f"train.X{part + 1}": NAMES[3 * part : 3 * part + 3] for part in range(4)}
KEYS = {"training_queries": 3, "queries": 4, "shots": 2, "memory_images": 5, "memory_prompts": "simple"}


def ids_of(names: tuple[str, ...]) -> list[str]:
    return [name.removeprefix("the ") for name in names]


# ---------------------------------------------------------------------- ImageNet-100


def hundred(data: Path) -> Path:
    root = data / "imagenet100"
    for part, names in PARTS.items():
        write_images(root / part, names, 12)
    write_images(root / "val.X", NAMES, 3)
    write_images(root / "memory", NAMES, 6)
    write_articles(root, NAMES)
    return root


def wiki100(data: Path, **keys: Any) -> ImageNet100Wiki:
    made: ImageNet100Wiki = configured("imagenet100_wiki", data, **{**KEYS, "validation_classes": 2, **keys})
    return made


def test_a_part_is_unseen(tmp_path: Path) -> None:
    hundred(tmp_path)
    sets = wiki100(tmp_path).listed
    assert ids_of(sets.unseen.class_names) == PARTS["train.X2"]
    assert len(sets.validation.class_names) == 2
    assert sorted(ids_of((*sets.seen.class_names, *sets.validation.class_names))) == NAMES[:3] + NAMES[6:]
    for part in sets.items().values():
        check_labels(part, ids_of(part.class_names))
        assert len(part.images) == 5 * len(part.class_names)
    assert all(path.startswith("val.X/") for path in paths(sets.seen.queries))
    assert all(path.startswith("train.X2/") for path in paths(sets.unseen.queries))
    assert (len(sets.seen.training), len(sets.unseen.queries), len(sets.unseen.shots)) == (21, 12, 6)
    assert not len(sets.unseen.training)
    number = int(PARTS["train.X2"][1][1:])
    assert sentences_of(sets.unseen, 1) == ["a photo of a the n04 .n04 is one.", f"It has {number} legs."]


def test_published_choices(tmp_path: Path) -> None:
    hundred(tmp_path)
    sets = wiki100(tmp_path, selection="official", unseen_part="X4").listed
    assert sets.validation.class_names == sets.unseen.class_names
    assert ids_of(sets.unseen.class_names) == PARTS["train.X4"]
    assert ids_of(sets.seen.class_names) == NAMES[:9]


def test_training_images_may_be_the_memory(tmp_path: Path) -> None:
    hundred(tmp_path)
    sets = wiki100(tmp_path, web_source="training").listed
    assert all(path.startswith("train.X2/") for path in paths(sets.unseen.images))
    check_labels(sets.unseen, ids_of(sets.unseen.class_names))
    assert (len(sets.unseen.images), len(sets.unseen.queries)) == (15, 12)


def test_web_lists(tmp_path: Path) -> None:
    hundred(tmp_path)
    web = tmp_path / "webvision" / "info"
    write_text(web / "synsets.txt", "".join(f"{name} words\n" for name in NAMES))
    write_text(web / "train_filelist_google.txt", "".join(f"google/{row}.jpg {row % 12}\n" for row in range(48)))
    unseen = wiki100(tmp_path, web_source="google", web_folder="webvision", memory_images=2).listed.unseen
    assert [paths(unseen.images)[row] for row in (0, 1)] == ["google/3.jpg", "google/15.jpg"]
    assert unseen.images.labels.tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"unseen_part": "X5"}, "train.X5 or all other parts are missing. imagenet100 has"),
        ({"web_source": "folder"}, "Did you mean 'folders'"),
        ({"web_source": "google", "web_folder": None}, r"Type benchmark\.web_folder=webvision"),
        ({"validation_classes": 9}, "benchmark.validation_classes=9: expected 1 to 8"),
        ({"web_source": "training", "memory_images": None}, "benchmark.memory_images=null"),
        ({"shots": 12}, "no image of class 'n..' is left to ask about"),
    ],
)
def test_what_is_refused(keys: dict[str, Any], message: str, tmp_path: Path) -> None:
    hundred(tmp_path)
    with pytest.raises(UserError, match=message):
        wiki100(tmp_path, **keys).setup()


def test_missing_files_are_named(tmp_path: Path) -> None:
    root = hundred(tmp_path)
    assert all(item.present for item in wiki100(tmp_path).describe_data())
    (root / "wiki" / "desc_4.txt").unlink()
    with pytest.raises(UserError, match="desc_4.txt is missing"):
        wiki100(tmp_path).setup()
    write_text(root / "labels.txt", "n00 0 one\n")
    with pytest.raises(UserError, match=r"labels.txt has no line for"):
        wiki100(tmp_path).setup()
    write_images(root / "train.X2", ["n00"], 12)
    with pytest.raises(UserError, match=r"'n00' is learned from \(train.X1/n00\) and asked as unseen"):
        wiki100(tmp_path).setup()
    assert not wiki100(tmp_path).describe_data()[0].present
    (root / "memory").rename(root / "web")
    with pytest.raises(UserError, match="memory is missing. Expected web images"):
        wiki100(tmp_path, unseen_part="X3").setup()


# ---------------------------------------------------------------------- ImageNet


def unseen_of(data: Path, **keys: Any) -> ImageNetUnseen:
    own = {"web_source": "training", "web_folder": None, "validation_classes": 2, "memory_images": 2}
    made: ImageNetUnseen = configured("imagenet_unseen", data, **{**KEYS, **own, **keys})
    return made


def test_a_seed_splits_the_plain_tree(tmp_path: Path) -> None:
    root = tmp_path / "imagenet"
    write_images(root / "train", NAMES, 14)
    write_articles(root, NAMES)
    own = unseen_of(tmp_path, subset_images=11)
    assert (len(own.layout.seen), len(own.layout.validation or ()), len(own.layout.unseen)) == (7, 2, 3)
    for part in own.listed.items().values():
        check_labels(part, ids_of(part.class_names))
        assert max(int(path[-7:-4]) for samples in (part.queries, part.images) for path in paths(samples)) < 11


def test_the_seeded_split_is_the_published_one(tmp_path: Path) -> None:
    wanted = np.load(Path(__file__).parents[1] / "golden" / "mml" / "subset_c12.npz")
    write_images(tmp_path / "imagenet" / "train", wanted["class_ids"].tolist(), 0)
    layout = unseen_of(tmp_path, subset_seed=int(wanted["seed"]), selection="official").layout
    assert list(layout.seen) == wanted["train_classes"].tolist()
    assert list(layout.unseen) == wanted["val_classes"].tolist()


def test_splits_with_classes_of_their_own(tmp_path: Path) -> None:
    root = tmp_path / "imagenet"
    for split, names in (("train", NAMES[:6]), ("val", NAMES[6:9]), ("test", NAMES[9:])):
        write_images(root / split, names, 12)
    write_articles(root, NAMES)
    write_text(root / "tst_label.json", json.dumps({NAMES[11]: 0, NAMES[9]: 1}))
    sets = unseen_of(tmp_path, subset_seed=None).listed
    assert [ids_of(part.class_names) for part in sets.items().values()] == [NAMES[:6], NAMES[6:9], ["n11", "n09"]]
    check_labels(sets.unseen, ["n11", "n09"])
    assert sentences_of(sets.unseen, 0)[0] == "a photo of a the n11 .n11 is one."
    write_text(root / "trn_label.json", json.dumps({"n99": 0}))
    with pytest.raises(UserError, match="trn_label.json: 1 of 1 classes have no folder, 'n99'"):
        unseen_of(tmp_path, subset_seed=None).setup()


def test_without_test_classes_those_of_val_are_unseen(tmp_path: Path) -> None:
    root = tmp_path / "imagenet"
    for split, names in (("train", NAMES[:6]), ("val", NAMES[6:9])):
        write_images(root / split, names, 12)
    layout = unseen_of(tmp_path, subset_seed=None).layout
    assert list(layout.unseen) == NAMES[6:9]
    assert len(layout.validation or ()) == 2
    assert not set(layout.validation or ()) & {*layout.unseen, *layout.seen}


# ---------------------------------------------------------------------- the same classes


def dtd(data: Path, **keys: Any) -> SameClassMemory:
    own = {"dataset": "dtd", "validation_queries": 2, "queries": None}
    made: SameClassMemory = configured("same_class_memory", data, **{**KEYS, **own, **keys})
    return made


def same_classes(data: Path) -> Path:
    root = data / "dtd"
    write_images(root / "train", NAMES[:3], 12)
    write_images(root / "val", NAMES[:3], 4)
    write_articles(root, NAMES[:3])
    return root


def test_training_images_choose_the_epoch(tmp_path: Path) -> None:
    root = same_classes(tmp_path)
    sets = dtd(tmp_path).listed
    assert sets.seen.class_names == sets.validation.class_names == sets.unseen.class_names
    check_labels(sets.seen, NAMES[:3])
    assert all(path.startswith("val/") for path in paths(sets.seen.queries))
    assert len(sets.validation.queries) == 6
    used = {*paths(sets.seen.training), *paths(sets.seen.images), *paths(sets.seen.shots)}
    assert not used & set(paths(sets.validation.queries))
    assert all(path.startswith("train/") for path in paths(sets.validation.queries))
    official = dtd(tmp_path, selection="official").listed
    assert paths(official.validation.queries) == paths(official.seen.queries)
    write_images(root / "memory", NAMES[:3], 2)
    assert paths(dtd(tmp_path).listed.seen.images)[0] == "n00/n00_000.jpg"


def test_bad_data_sets_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Did you mean 'oxford_pets'"):
        dtd(tmp_path, dataset="oxford_pet")
    with pytest.raises(UserError, match=r"dtd/train is missing\. Expected"):
        dtd(tmp_path).setup()
    root = same_classes(tmp_path)
    assert all(item.present for item in dtd(tmp_path).describe_data())
    write_images(root / "val", ["n77"], 1)
    with pytest.raises(UserError, match="val/n77: .*train has no class 'n77'"):
        dtd(tmp_path).setup()
