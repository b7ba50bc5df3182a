"""Any class folders with texts become sets of classes, or the reader says what is wrong with them."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from mmcl.benchmarks.folder_memory import FolderMemory
from mmcl.config.compose import compose_run
from mmcl.config.identity import identity
from mmcl.errors import UserError
from mmcl.features.job import EncodingJob
from mmcl.memory.class_memory import ClassMemory
from mmcl.protocol import ImageFeatures, Sentences, TextFeatures
from tests.benchmarks.memory_trees import check_labels, configured, paths, sentences_of, write_images, write_text

CLASSES = [f"bird_{letter}" for letter in "abcdefgh"]
KEYS = {
    "folder": "birds",
    "validation_classes": 2,
    "unseen_classes": 3,
    "training_queries": 3,
    "queries": 2,
    "shots": 2,
    "memory_prompts": "simple",
}


def tree(data: Path) -> Path:
    root = data / "birds"
    write_images(root / "train", CLASSES, 9, "JPEG")
    write_images(root / "test", CLASSES, 3)
    for name in CLASSES:
        write_text(root / "texts" / f"{name}.txt", f"The {name} sings.\n\nIt flies.\n")
    return root


def benchmark(data: Path, **keys: Any) -> FolderMemory:
    made: FolderMemory = configured("folder_memory", data, **{**KEYS, **keys})
    return made


class LengthEncoders:
    """Features that say how long a path or sentence is."""

    dimension = 2
    digest = "length"

    def images(self, job: EncodingJob) -> ImageFeatures:
        lengths = torch.tensor([[len(path), 1.0] for path in paths(job.samples)])
        return ImageFeatures(lengths[:, None], job.samples.labels, job.samples.sources)

    def texts(self, name: str, sentences: Sentences, too_long: str = "refuse") -> TextFeatures:
        return TextFeatures(torch.tensor([[len(text), 1.0] for text in sentences.texts]), sentences.classes)


def test_every_class_and_image_has_one_use(tmp_path: Path) -> None:
    tree(tmp_path)
    sets = benchmark(tmp_path).listed.items()
    assert [len(part.class_names) for part in sets.values()] == [3, 2, 3]
    assert sorted(name for part in sets.values() for name in part.class_names) == [
        name.replace("_", " ") for name in CLASSES
    ]
    for which, part in sets.items():
        check_labels(part, [name.replace(" ", "_") for name in part.class_names])
        for samples, wanted in zip((part.queries, part.images, part.shots), (2, 4, 2), strict=True):
            assert torch.bincount(samples.labels).tolist() == [wanted] * len(part.class_names)
        assert len(part.training) == (3 * len(part.class_names) if which == "seen" else 0)
        name = part.class_names[1]
        sung = f"The {name.replace(' ', '_')} sings."
        assert sentences_of(part, 1) == [f"a photo of a {name}.", sung, "It flies."]
        assert part.prompts("cupl").texts[2:4] == (sung, "It flies.")


def test_tasks_are_made_of_the_sets(tmp_path: Path) -> None:
    tree(tmp_path)
    own = benchmark(tmp_path)
    own.connect(LengthEncoders())
    for index in range(len(own.task_names)):
        task = own.task(index)
        ClassMemory(task.encoder, 4).replace(task.memory, task.encoder)
        assert (task.training is None) == (index > 0)
        assert len(task.encoded.texts("full")) == 2


def test_a_folder_of_memory_images_serves_all_sets(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tree(tmp_path)
    write_images(root / "web", CLASSES[1:], 4, "png")
    with caplog.at_level(logging.WARNING):
        sets = benchmark(tmp_path, memory="web", memory_images=3).listed.items()
    assert "no image of 1 of" in caplog.text
    assert "bird a" in caplog.text
    for part in sets.values():
        assert all(path.startswith("web/") for path in paths(part.images))
        assert torch.bincount(part.images.labels).max() == 3
    (root / "web" / "bird_x").mkdir()
    with pytest.raises(UserError, match=r"web/bird_x: .*train has no class 'bird_x'.*Did you mean 'bird_"):
        benchmark(tmp_path, memory="web").setup()


def test_without_a_test_folder_labelled_images_are_asked(tmp_path: Path) -> None:
    tree(tmp_path)
    part = benchmark(tmp_path, test=None, memory_images=2).listed.unseen
    check_labels(part, [name.replace(" ", "_") for name in part.class_names])
    assert torch.bincount(part.queries.labels).tolist() == [2] * 3
    assert torch.bincount(part.images.labels).tolist() == [2] * 3


def test_names_and_sentences_from_files(tmp_path: Path) -> None:
    root = tree(tmp_path)
    write_text(root / "names.txt", "".join(f"{name}\tgreat {name}, Avis-{name}\n" for name in CLASSES))
    told = {f"avis {name.upper()}": [f"{name} is a bird."] for name in CLASSES[1:]}
    write_text(root / "told.json", json.dumps(told))
    write_text(root / "properties.json", json.dumps({"great bird a": ["a long tail", "two wings"]}))
    keys = {"texts": "told.json", "class_names": "names.txt", "memory_prompts": "none"}
    sets = benchmark(tmp_path, **keys, properties="properties.json").listed.items()
    found = {name: sentences_of(part, label) for part in sets.values() for label, name in enumerate(part.class_names)}
    assert found["great bird a"] == ["great bird a, a long tail.", "great bird a, two wings."]
    assert found["great bird c"] == ["bird_c is a bird."]
    with pytest.raises(UserError, match=r"told.json has no sentence for 1 of .* classes, such as 'bird_a' or 'great"):
        benchmark(tmp_path, **keys).setup()


def test_wnids_have_their_names(tmp_path: Path) -> None:
    wnids = ["n01440764", "n01443537", "n01484850"]
    write_images(tmp_path / "birds" / "train", wnids, 9)
    part = {"texts": None, "test": None, "memory_images": 2, "validation_classes": 1, "unseen_classes": 1}
    sets = benchmark(tmp_path, **part).listed.items()
    assert sorted(name for known in sets.values() for name in known.class_names) == [
        "goldfish",
        "great white shark",
        "tench",
    ]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"folder": "fish"}, r"fish/train is missing\. Expected.*benchmark\.folder"),
        ({"test": "nowhere"}, "nowhere is missing. Expected class folders as in"),
        ({"texts": "nowhere.json"}, "nowhere.json is missing. Bring a folder"),
        ({"class_names": "nowhere.txt"}, "cannot read .*nowhere.txt"),
        ({"unseen_classes": 6}, "8 classes are too few"),
        ({"queries": 0}, "benchmark.queries=0"),
        ({"templates": ["a bird"]}, "benchmark.templates: 'a bird'"),
        ({"templates": []}, "at least one"),
        ({"memory_prompts": "fulll"}, "Did you mean 'full'"),
        ({"texts": None, "memory_prompts": "none"}, "every class needs some text"),
        ({"training_queries": 9, "shots": 0}, "no image is left for the memory of the seen classes"),
    ],
)
def test_what_is_refused(keys: dict[str, Any], message: str, tmp_path: Path) -> None:
    tree(tmp_path)
    with pytest.raises(UserError, match=message):
        benchmark(tmp_path, **keys).setup()


def test_damaged_texts_are_named(tmp_path: Path) -> None:
    root = tree(tmp_path)
    (root / "texts" / "bird_c.txt").write_bytes(b"\xff\xff\x80")
    with pytest.raises(UserError, match="bird_c.txt is neither UTF-8 nor GBK"):
        benchmark(tmp_path).setup()
    (root / "texts" / "bird_c.txt").unlink()
    with pytest.raises(UserError, match="no sentence for 1 of . classes, such as 'bird_c' or 'bird c'"):
        benchmark(tmp_path).setup()


def test_the_folder_is_described(tmp_path: Path) -> None:
    root = tree(tmp_path)
    items = benchmark(tmp_path).describe_data()
    assert all(item.present for item in items)
    assert "3 unseen classes, 12 images and 9 texts" in items[-1].meaning
    (root / "texts" / "bird_c.txt").unlink()
    items = benchmark(tmp_path).describe_data()
    assert not items[-1].present
    assert "bird_c" in items[-1].meaning
    assert not benchmark(tmp_path, test="nowhere").describe_data()[1].present


@pytest.mark.real
@pytest.mark.skipif("MMCL_DATA" not in os.environ, reason="set MMCL_DATA to the folder of the data sets")
def test_tiny_imagenet() -> None:
    sets = configured("tinyimagenet100_memory", Path(os.environ["MMCL_DATA"])).listed
    assert [len(part.class_names) for part in sets.items().values()] == [60, 15, 25]
    assert (len(sets.seen.training), len(sets.unseen.queries), len(sets.unseen.images)) == (960, 625, 1250)
    assert torch.bincount(sets.unseen.sentences.classes).min() > 80


def test_what_texts_say_is_part_of_a_run(tmp_path: Path) -> None:
    root = tree(tmp_path)
    typed = ["+method=mml", "benchmark=folder_memory", "backbone=mini_clip", f"paths.data={tmp_path}"]
    typed.append(f"benchmark.folder={root.name}")
    before = identity(compose_run(typed))
    assert identity(compose_run(typed)) == before
    file = next(path for path in sorted((root / "texts").iterdir()) if path.suffix == ".txt")
    file.write_text(file.read_text() + "It is something else.\n")
    assert identity(compose_run(typed)) != before
