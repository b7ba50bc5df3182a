"""A file of features as class-incremental tasks, with or without texts in it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmcl.benchmarks.class_features import ClassFeaturesBenchmark, ClassFeaturesConfig
from mmcl.errors import UserError
from tests.features.test_own import Arrays, arrays, saved

CONFIG = ClassFeaturesConfig(
    _target_="",
    name="class_features",
    data="unused",
    base=0,
    increment=1,
    order_seed=0,
    class_order=[1, 0],
    exact=False,
    workers=0,
    steps_per_block=50,
    file=None,
    final_norm="kept",
)
TEXTS = ("text_feat", "text_class", "text_sentence", "text_kind", "logit_scale")


def without_texts() -> Arrays:
    return {name: values for name, values in arrays().items() if name not in TEXTS}


@pytest.mark.parametrize("content", [arrays(), without_texts()], ids=["with texts", "without"])
def test_the_plain_views_become_tasks(content: Arrays, tmp_path: Path) -> None:
    benchmark = ClassFeaturesBenchmark(replace(CONFIG, file=str(saved(tmp_path, content))))
    assert (benchmark.dimension, benchmark.image_bytes, benchmark.task_sizes) == (4, 16, [1, 1])
    assert benchmark.class_names == ["dög", "cat"]
    task = benchmark.task(0)
    dogs = np.flatnonzero(content["label_train"] == 1)
    assert torch.equal(task.train.images, torch.from_numpy(content["image_train"][dogs, 0]))  # type: ignore[arg-type]
    assert task.train.labels.tolist() == [0, 0, 0]
    assert benchmark.task(1).test.images.dtype == torch.float32  # type: ignore[union-attr]
    assert benchmark.describe_data()[0].present


def test_training_serves_them_as_they_are(tmp_path: Path) -> None:
    benchmark = ClassFeaturesBenchmark(replace(CONFIG, file=str(saved(tmp_path, without_texts())), increment=2))
    train = benchmark.task(0).train
    benchmark.serve_training(train, 4, (0, 0, "main"))
    loader: Any = benchmark.train_dataloader()
    served = [batch for block in loader for batch in benchmark.on_after_batch_transfer(block, 0)]
    rows = torch.cat([batch.sources for batch in served]).argsort()
    expected = train.images[train.sources.argsort()]
    assert torch.equal(torch.cat([batch.images for batch in served])[rows], expected)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_test": np.ones((5, 3), np.float32)}, "image_test: features have 3 numbers, but image_train has 4"),
        ({"label_test": np.array([0, 1, 0, 1, 2])}, "label_test: labels run from 0 to 2"),
        ({"image_trian": np.ones(3)}, "image_trian: unknown key.* Did you mean 'image_train'"),
    ],
)
def test_mistakes_are_named_with_their_key(change: Arrays, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        ClassFeaturesBenchmark(replace(CONFIG, file=str(saved(tmp_path, {**without_texts(), **change})))).setup()


def test_no_file_says_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"paths\.features=FILE.*mmcl features export"):
        ClassFeaturesBenchmark(CONFIG).setup()
    benchmark = ClassFeaturesBenchmark(replace(CONFIG, file=str(tmp_path / "none.npz")))
    assert not benchmark.describe_data()[0].present
    with pytest.raises(UserError, match=r"there is no file .*none\.npz"):
        benchmark.setup()


def test_a_fresh_norm_brings_every_feature_to_mean_0_and_variance_1(tmp_path: Path) -> None:
    config = replace(CONFIG, file=str(saved(tmp_path, without_texts())), final_norm="fresh")
    images = ClassFeaturesBenchmark(config).task(0).train.images
    assert isinstance(images, torch.Tensor)
    torch.testing.assert_close(images.mean(dim=1), torch.zeros(len(images)), atol=1e-4, rtol=0)
    torch.testing.assert_close(images.var(dim=1, correction=0), torch.ones(len(images)), atol=1e-2, rtol=0)


def test_another_norm_is_refused() -> None:
    with pytest.raises(UserError, match="expected fresh or kept"):
        replace(CONFIG, final_norm="batch")
