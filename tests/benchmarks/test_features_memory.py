"""A file of features becomes seen, validation and unseen classes with memories, or the reader says why not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmcl.benchmarks.features_memory import FeaturesMemory
from mmcl.errors import UserError
from mmcl.memory.class_memory import ClassMemory
from tests.benchmarks.memory_trees import configured

CLASSES, TRAIN, TEST = 10, 8, 3


def arrays() -> dict[str, Any]:
    """Ten classes; the first number of a feature is its class, the second its row."""
    train, test, texts = (np.arange(CLASSES * per) % CLASSES for per in (TRAIN, TEST, 3))

    def features(labels: np.ndarray) -> np.ndarray:
        return np.stack([labels + 1.0, np.arange(len(labels)) + 1.0, labels + 2.0], 1).astype(np.float32)

    return {
        "class_names": np.array([f"class {number}" for number in range(CLASSES)]),
        "image_train": features(train),
        "label_train": train,
        "image_test": np.repeat(features(test)[:, None], 2, 1),
        "label_test": test,
        "text_feat": features(texts),
        "text_class": texts,
        "text_sentence": np.array([f"text {row} of {label}" for row, label in enumerate(texts)]),
        "text_kind": np.array(["template"] * CLASSES + ["description"] * 2 * CLASSES),
    }


def benchmark(tmp_path: Path, content: dict[str, Any] | None = None, **keys: Any) -> FeaturesMemory:
    path = tmp_path / "own.npz"
    np.savez(path, **(arrays() if content is None else content))
    return configured("features_memory", tmp_path, **{"file": str(path), **keys})


def test_sets_share_no_class_and_no_image(tmp_path: Path) -> None:
    own = benchmark(tmp_path)
    sets = {which: own.encode_set(which) for which in ("seen", "validation", "unseen")}
    assert [len(part.class_names) for part in sets.values()] == [5, 2, 3]
    assert len({name for part in sets.values() for name in part.class_names}) == CLASSES
    for part in sets.values():
        roles = [part.training, part.images, part.shots]
        rows = [row for images in roles for row in images.features[:, 0, 1].tolist()]
        assert len(set(rows)) == len(rows)
        truth = [int(name.split()[1]) for name in part.class_names]
        for images in (*roles, part.queries):
            assert images.features[:, 0, 0].tolist() == [truth[label] + 1 for label in images.labels.tolist()]
            assert images.features.shape[1:] == (1, 3)
        assert part.texts.features[:, 0].tolist() == [truth[label] + 1 for label in part.texts.classes.tolist()]
        assert len(part.queries) == TEST * len(part.class_names)
    assert torch.bincount(sets["seen"].training.labels).tolist() == [3] * 5
    assert torch.bincount(sets["unseen"].images.labels).tolist() == [3] * 3
    assert torch.bincount(sets["unseen"].shots.labels).tolist() == [2] * 3
    assert not len(sets["unseen"].training)


def test_the_first_task_brings_training_and_all_can_be_remembered(tmp_path: Path) -> None:
    own = benchmark(tmp_path)
    first = own.task(0)
    assert first.training is not None
    assert first.validation is not None
    assert own.task_names[:2] == ["seen", "unseen"]
    for index in range(len(own.task_names)):
        task = own.task(index)
        ClassMemory(task.encoder, 4).replace(task.memory, task.encoder)
        assert len(task.encoded.test(1)) == TEST * len(task.class_names)
    assert own.task(1).training is None
    assert first.items.sentences[0].startswith("text")


def test_limits_and_kinds_of_text(tmp_path: Path) -> None:
    part = benchmark(tmp_path, memory_images=2, max_sentences=1).encode_set("unseen")
    assert torch.bincount(part.images.labels).tolist() == [2] * 3
    assert torch.bincount(part.texts.classes).tolist() == [1] * 3
    described = benchmark(tmp_path, text_kinds=["description"]).encode_set("unseen")
    assert torch.bincount(described.texts.classes).tolist() == [2] * 3
    assert torch.bincount(described.prompts("tip").classes).tolist() == [1] * 3
    assert described.prompts("full").features.shape == (9, 3)


def test_another_file_is_another_encoder(tmp_path: Path) -> None:
    first = benchmark(tmp_path).encoder_digest
    assert benchmark(tmp_path).encoder_digest == first
    assert benchmark(tmp_path, {**arrays(), "logit_scale": np.array(7.0)}).encoder_digest != first


def test_a_class_without_images_has_its_texts(tmp_path: Path) -> None:
    content = arrays()
    bare = benchmark(tmp_path).roles.unseen[0]
    kept = content["label_train"] != bare
    content["image_train"], content["label_train"] = content["image_train"][kept], content["label_train"][kept]
    own = benchmark(tmp_path, content, evaluations=["unseen"])
    assert torch.bincount(own.encode_set("unseen").images.labels, minlength=3).tolist() == [0, 3, 3]
    prototypes = ClassMemory("", 4)
    prototypes.replace(own.task(0).memory, "")
    assert torch.equal(prototypes.prototypes.images[0], prototypes.prototypes.texts[0])


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="benchmark.unseen_share=1.2"):
        benchmark(tmp_path, unseen_share=1.2)
    with pytest.raises(UserError, match="training_share and benchmark.shots_share leave nothing"):
        benchmark(tmp_path, training_share=0.8)
    with pytest.raises(UserError, match="Did you mean 'caption'"):
        benchmark(tmp_path, text_kinds=["captions"])
    with pytest.raises(UserError, match="own.npz: class 'class [0-9]' has no text of the kinds"):
        benchmark(tmp_path, text_kinds=["caption"]).task(0)
    with pytest.raises(UserError, match="own.npz: no image of image_train is left for the memory"):
        benchmark(tmp_path, training_share=0.49, shots_share=0.5).task(0)
    with pytest.raises(UserError, match=r"paths\.features=FILE"):
        benchmark(tmp_path, file=None).setup()
    content = arrays()
    kept = content["label_test"] == 0
    content["image_test"], content["label_test"] = content["image_test"][kept], content["label_test"][kept]
    with pytest.raises(UserError, match="image_test has no image of any of the"):
        benchmark(tmp_path, content).setup()


def test_the_file_is_described(tmp_path: Path) -> None:
    item = benchmark(tmp_path).describe_data()[0]
    assert item.present
    assert "5 seen, 2 validation and 3 unseen classes" in item.meaning
    assert not benchmark(tmp_path, file="nowhere.npz").describe_data()[0].present
