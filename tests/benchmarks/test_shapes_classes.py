"""The shapes class by class: the images of the shapes world, in class order."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mmcl.benchmarks.shapes_classes import ShapesClasses, ShapesClassesConfig
from mmcl.benchmarks.shapes_world import CLASS_NAMES
from mmcl.errors import UserError

CONFIG = ShapesClassesConfig(
    _target_="mmcl.benchmarks.shapes_classes.ShapesClasses",
    name="shapes_classes",
    data="unused",
    base=0,
    increment=8,
    order_seed=1993,
    class_order=None,
    exact=False,
    workers=0,
    steps_per_block=50,
    train_per_class=2,
    test_per_class=1,
    world_seed=0,
)


def test_tasks_go_through_all_shapes() -> None:
    benchmark = ShapesClasses(CONFIG)
    assert benchmark.task_sizes == [8] * 8
    assert sorted(benchmark.class_names) == sorted(CLASS_NAMES)
    last = benchmark.task(7)
    assert (len(last.train), len(last.past()), len(last.test)) == (16, 112, 64)
    assert last.train.images.shape == (16, 3, 32, 32)  # type: ignore[union-attr]


def test_an_image_does_not_depend_on_how_many_there_are() -> None:
    few, more = (ShapesClasses(replace(CONFIG, train_per_class=count)).task(0).train for count in (2, 3))
    for label in range(8):
        assert torch.equal(few.images[few.labels == label], more.images[more.labels == label][:2])


def test_splits_and_worlds_differ() -> None:
    benchmark = ShapesClasses(replace(CONFIG, train_per_class=1))
    task = benchmark.task(0)
    assert not torch.equal(task.train.images, task.test.images)  # type: ignore[arg-type]
    other = ShapesClasses(replace(CONFIG, train_per_class=1, world_seed=1)).task(0)
    assert not torch.equal(task.train.images, other.train.images)  # type: ignore[arg-type]


@pytest.mark.parametrize("key", ["train_per_class", "test_per_class"])
def test_empty_splits_are_refused(key: str) -> None:
    with pytest.raises(UserError, match=f"benchmark.{key}=0: expected at least 1"):
        replace(CONFIG, **{key: 0})  # type: ignore[arg-type]
