"""A file of features serves shots, passes, views and kinds of prompts, or says why not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mmcl.benchmarks.own_features import OwnEncodedDataset, OwnFeaturesBenchmark, OwnFeaturesConfig
from mmcl.errors import UserError
from mmcl.features.own import read_own_features
from tests.features.test_own import arrays, saved


def dataset(tmp_path: Path, **changes: np.ndarray) -> OwnEncodedDataset:
    path = saved(tmp_path, {**arrays(), **changes})
    return OwnEncodedDataset(read_own_features(path), path)


def test_passes_come_in_turn(tmp_path: Path) -> None:
    train = dataset(tmp_path).train(shots=2, passes=5)
    assert train.features.shape == (4, 6, 4)
    assert train.labels.tolist() == [0, 0, 1, 1]
    there = torch.from_numpy(arrays()["image_train"])[train.sources]
    assert torch.equal(train.features, there[:, [0, 1, 2, 1, 2, 1]])


def test_a_plain_view_alone_stands_for_passes(tmp_path: Path) -> None:
    train = dataset(tmp_path, image_train=np.ones((6, 4), np.float32)).train(shots=1, passes=2)
    assert train.features.shape == (2, 3, 4)


def test_kinds_of_prompts(tmp_path: Path) -> None:
    own = dataset(tmp_path)
    assert own.sentences("tip").texts == ("a cat", "a dög")
    assert own.sentences("cupl").texts == ("it purrs", "it barks")
    assert own.texts("tip_cupl").features.shape == (4, 4)
    assert own.texts("full").classes.tolist() == [0, 0, 1, 1]


def test_what_is_not_there(tmp_path: Path) -> None:
    own = dataset(tmp_path, text_kind=np.array(["template"] * 4))
    with pytest.raises(UserError, match=r"no text of kind description.*method\.prompts=tip$"):
        own.texts("cupl")
    with pytest.raises(UserError, match="Did you mean 'tip'"):
        own.texts("tipp")
    with pytest.raises(UserError, match=r"4 images of each class.*'cat'"):
        own.train(4, 0)
    with pytest.raises(UserError, match="image_test has 1 views, but 8 are asked for"):
        own.test(8)
    with pytest.raises(UserError, match="no image_validation"):
        own.validation(4, 1)
    with pytest.raises(UserError, match="no text for class 'cat'"):
        dataset(tmp_path, text_kind=np.array(["template", "caption", "template", "caption"])).texts("tip")


def test_validation_may_be_chosen_from(tmp_path: Path) -> None:
    images = np.ones((4, 2, 4), np.float32)
    own = dataset(tmp_path, image_validation=images, label_validation=np.array([0, 1, 1, 1]))
    assert own.validation(1, 2).labels.tolist() == [0, 1]
    assert own.validation(None, 1).features.shape == (4, 1, 4)


def test_the_benchmark_of_a_file(tmp_path: Path) -> None:
    path = saved(tmp_path, arrays())
    config = OwnFeaturesConfig("", "features", "", str(path), None)
    benchmark = OwnFeaturesBenchmark(config)
    assert benchmark.task_names == ["own"]
    assert benchmark.task(0).class_names == ("cat", "dög")
    assert (benchmark.dimension, benchmark.logit_scale) == (4, 50.0)
    assert benchmark.describe_data()[0].present
    config.file = None
    with pytest.raises(UserError, match=r"paths\.features=FILE"):
        OwnFeaturesBenchmark(config).setup()
