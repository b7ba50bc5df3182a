"""A user's file of features: both formats, and each mistake named with its key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmcl.errors import UserError
from mmcl.features.own import read_own_features, write_own_features

Arrays = dict[str, Any]


def arrays() -> Arrays:
    draws = np.random.default_rng(0)
    return {
        "class_names": np.array(["cat", "dög"]),
        "image_train": draws.normal(size=(6, 3, 4)).astype(np.float32),
        "label_train": np.array([1, 0, 1, 0, 0, 1]),
        "image_test": draws.normal(size=(5, 4)).astype(np.float16),
        "label_test": np.array([0, 1, 0, 1, 1], np.int32),
        "text_feat": draws.normal(size=(4, 4)).astype(np.float32),
        "text_class": np.array([1, 0, 1, 0]),
        "text_sentence": np.array(["a dög", "a cat", "it barks", "it purrs"]),
        "text_kind": np.array(["template", "template", "description", "description"]),
        "logit_scale": np.array(50.0),
    }


def saved(tmp_path: Path, content: Arrays) -> Path:
    path = tmp_path / "own.npz"
    np.savez(path, **content)
    return path


def test_texts_are_grouped_by_class(tmp_path: Path) -> None:
    own = read_own_features(saved(tmp_path, arrays()))
    assert own.text_sentences == ("a cat", "it purrs", "a dög", "it barks")
    assert own.text_classes.tolist() == [0, 0, 1, 1]
    assert own.text_kinds == ("template", "description") * 2
    torch.testing.assert_close(own.text_features[0], torch.from_numpy(arrays()["text_feat"][1]))
    assert (own.dimension, own.logit_scale) == (4, 50.0)
    assert own.train.features.shape == (6, 3, 4)
    assert own.test.features.shape == (5, 1, 4)
    assert own.validation is None
    assert any("image_train: not of length 1" in remark for remark in own.remarks)


@pytest.mark.parametrize("ending", ["npz", "safetensors"])
def test_both_formats_keep_everything(tmp_path: Path, ending: str) -> None:
    content = arrays()
    content |= {"image_validation": content["image_test"], "label_validation": content["label_test"]}
    own = read_own_features(saved(tmp_path, content))
    path = tmp_path / f"copy.{ending}"
    write_own_features(path, own)
    copy = read_own_features(path)
    assert copy.class_names == own.class_names
    assert (copy.text_sentences, copy.text_kinds) == (own.text_sentences, own.text_kinds)
    assert copy.logit_scale == own.logit_scale
    for split in ("train", "test", "validation"):
        ours, theirs = getattr(own, split), getattr(copy, split)
        assert torch.equal(ours.features, theirs.features)
        assert torch.equal(ours.labels, theirs.labels)
    assert torch.equal(copy.text_features, own.text_features)
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted({"own.npz", path.name})


def spoiled(values: np.ndarray, place: tuple[int, ...], value: float) -> np.ndarray:
    values = values.copy()
    values[place] = value
    return values


MISTAKES: list[tuple[str, Any, str]] = [
    ("label_train", None, "label_train: the key is missing"),
    ("label_trian", np.array([1]), "label_trian: unknown key. Did you mean 'label_train'?"),
    ("image_train", np.ones((6, 3, 5), np.float32), "image_train: features have 5 numbers, but text_feat has 4"),
    ("image_train", np.ones((6, 3, 2, 4), np.float32), "image_train: shape"),
    ("image_train", np.ones((0, 4), np.float32), "image_train: shape"),
    ("image_train", np.ones((6, 4), np.int64), "image_train: type int64, expected a float type"),
    ("image_test", spoiled(arrays()["image_test"], (2, 1), np.nan), "image_test: row [2] is zero or holds"),
    ("text_feat", spoiled(arrays()["text_feat"], (3,), 0.0), "text_feat: row [3] is zero or holds"),
    ("label_test", np.array([0, 1, 0, 1, 2]), "label_test: labels run from 0 to 2, expected 0 to 1"),
    ("label_test", np.array([0, 1, 0, 1]), "label_test: shape (4,), expected (5,)"),
    ("label_test", np.array([0, 1, 0, 1, 1.0]), "label_test: type float64, expected integers"),
    ("text_class", np.array([1, 1, 1, 1]), "text_class: class 0 ('cat') has no text"),
    ("text_kind", np.array(["template", "templat", "caption", "caption"]), "text_kind: 'templat' is none of"),
    ("text_sentence", np.array(["one"]), "text_sentence: 1 strings, expected 4"),
    ("class_names", np.array([1, 2]), "class_names: type int64"),
    ("logit_scale", np.array(-1.0), "logit_scale: expected one number above 0"),
    ("image_validation", np.ones((2, 4), np.float32), "label_validation: the key is missing"),
]


@pytest.mark.parametrize(("key", "value", "words"), MISTAKES, ids=[words for *_, words in MISTAKES])
def test_each_mistake_is_named(tmp_path: Path, key: str, value: Any, words: str) -> None:
    content = {**arrays(), key: value}
    path = saved(tmp_path, {name: values for name, values in content.items() if values is not None})
    with pytest.raises(UserError) as error:
        read_own_features(path)
    assert words in str(error.value)
    assert str(path) in str(error.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    for name, content, words in (
        ("a.npz", b"no zip", "cannot be read"),
        ("a.safetensors", b"nothing of it", "cannot be read"),
        ("a.pt", b"", "expected a file that ends in .npz or .safetensors"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=words):
            read_own_features(tmp_path / name)
    with pytest.raises(UserError, match="there is no file"):
        read_own_features(tmp_path / "b.npz")
