from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcl.benchmarks.shapes import Shapes, ShapesConfig
from mmcl.benchmarks.shapes_drawing import SHIFTS, draw_images
from mmcl.benchmarks.shapes_sentences import (
    COLOUR_TRAITS,
    SHAPE_TRAITS,
    captions,
    class_sentences,
    descriptions,
    vocabulary,
)
from mmcl.benchmarks.shapes_world import (
    CLASS_NAMES,
    COLOURS,
    HUES,
    SHAPES,
    Scenes,
    class_labels,
    collection_habits,
    draw_scenes,
    held_out_classes,
    rgb,
    web_habits,
)
from mmcl.errors import UserError

CONFIG = ShapesConfig(
    _target_="mmcl.benchmarks.shapes.Shapes",
    name="shapes",
    data="unused",
    view_seed=0,
    exact=False,
    workers=0,
    encode_batch_size=256,
    features_precision="float16",
    sets=["plain"],
    classes="all",
    train_per_class=3,
    validation_per_class=2,
    test_per_class=2,
    world_seed=0,
)
LABELS, INDICES = torch.arange(64), torch.arange(64) % 5


def scenes_of(labels: torch.Tensor, indices: torch.Tensor, draw_key: int = 7) -> Scenes:
    return draw_scenes(draw_key, labels, indices, collection_habits(0))


# The world


def test_held_out_classes_are_twenty_and_leave_each_colour_and_shape_in_five() -> None:
    held_out, seen = class_labels("unseen"), class_labels("seen")
    assert held_out == held_out_classes()
    assert (len(held_out), len(seen)) == (20, 44)
    assert sorted(held_out + seen) == list(class_labels("all")) == list(range(64))
    for words in (COLOURS, SHAPES):
        for word in words:
            assert sum(word in CLASS_NAMES[label].split() for label in seen) >= 5


def test_held_out_classes_stay_what_the_shipped_weights_have_not_seen() -> None:
    names = [CLASS_NAMES[label] for label in held_out_classes()]
    assert names[:4] == ["red circle", "red square", "red cross", "orange circle"]


@settings(max_examples=10, deadline=None)
@given(st.permutations(range(64)), st.integers(1, 64))
def test_an_image_is_the_same_in_every_batch(order: list[int], count: int) -> None:
    rows = torch.tensor(order[:count])
    alone = draw_images(scenes_of(LABELS[rows], INDICES[rows]), "plain")
    assert torch.equal(alone, draw_images(scenes_of(LABELS, INDICES), "plain")[rows])


def test_images_differ_by_key_and_by_index() -> None:
    images = draw_images(scenes_of(LABELS, INDICES), "plain")
    assert images.shape == (64, 3, 32, 32)
    assert images.dtype == torch.uint8
    for other in (scenes_of(LABELS, INDICES, draw_key=8), scenes_of(LABELS, INDICES + 1)):
        assert (draw_images(other, "plain") != images).flatten(1).any(1).all()


@pytest.mark.parametrize("shift", [name for name in SHIFTS if name != "plain"])
def test_shifts_alter_every_image(shift: str) -> None:
    scenes = scenes_of(LABELS, INDICES)
    plain, shifted = (draw_images(scenes, name) for name in ("plain", shift))
    assert shifted.shape == plain.shape
    assert (shifted != plain).flatten(1).any(1).all()


def test_inverting_lightness_keeps_hue_and_turns_back() -> None:
    pixels = torch.rand(4, 3, 32, 32)
    invert = SHIFTS["inverted"].pixels
    torch.testing.assert_close(invert(invert(pixels)), pixels)
    assert torch.equal(invert(pixels).argmax(1), pixels.argmax(1))


def test_shapes_are_drawn_in_their_colour() -> None:
    """Over many scenes, the mean hue inside of a shape is nearest to its own colour."""
    labels = torch.arange(len(COLOURS)).repeat_interleave(8) * len(SHAPES)  # circles
    scenes = draw_scenes(3, labels, torch.arange(8).repeat(len(COLOURS)), web_habits())
    anchors = rgb(HUES, torch.ones(8).double(), torch.ones(8).double()).float()
    anchors = torch.nn.functional.normalize(anchors - anchors.mean(1, keepdim=True), dim=1)
    ink = scenes.ink - scenes.ink.mean(1, keepdim=True)
    assert ((ink @ anchors.T).argmax(1) == scenes.colour).float().mean() > 0.9


def test_habits_make_a_class_alike_and_the_web_has_none() -> None:
    labels, indices = torch.zeros(200, dtype=torch.int64), torch.arange(200)
    shares = [
        draw_scenes(5, labels, indices, habits).texture.bincount(minlength=4).max() / 200
        for habits in (collection_habits(0), web_habits())
    ]
    assert shares[0] > 0.6
    assert shares[1] < 0.4
    assert not torch.equal(collection_habits(0).hue, collection_habits(1).hue)


# Sentences


def test_prompt_kinds_have_their_sentences() -> None:
    lengths = {"simple": 1, "tip": 5, "full": 14, "cupl": 8, "tip_cupl": 13}
    for kind, length in lengths.items():
        sentences = class_sentences((9, 2), kind)
        assert sentences.classes.tolist() == [0] * length + [1] * length
        assert len(set(sentences.texts)) == 2 * length
    assert class_sentences((9,), "simple").texts == ("a photo of a orange square.",)


def test_some_descriptions_name_neither_colour_nor_shape() -> None:
    for label, name in enumerate(CLASS_NAMES):
        named = [any(word in text.split() for word in name.split()) for text in descriptions(label)]
        assert sum(named) == 6
    assert len({text for label in range(64) for text in descriptions(label)}) == 64 * 8
    assert set(COLOUR_TRAITS) == set(COLOURS)
    assert set(SHAPE_TRAITS) == set(SHAPES)


def test_captions_depend_on_scene_and_epoch_and_keep_to_the_vocabulary() -> None:
    scenes = scenes_of(LABELS, INDICES)
    first = captions(scenes, 0)
    assert first == captions(scenes, 0)
    assert first != captions(scenes, 1)
    assert first[10:20] == captions(scenes_of(LABELS[10:20], INDICES[10:20]), 0)
    words = {word for epoch in range(5) for said in captions(scenes, epoch) for word in said.text.rstrip(".").split()}
    assert {word.strip(",") for word in words} <= set(vocabulary())


def test_captions_without_noise_name_colour_and_shape() -> None:
    scenes = scenes_of(LABELS, INDICES)
    for label, (text, colour, shape) in enumerate(captions(scenes, 0, described=0.0, unnamed=0.0)):
        assert CLASS_NAMES[label] in text
        assert (colour, shape) == divmod(label, len(SHAPES))


def test_captions_say_which_colour_and_shape_they_leave_out() -> None:
    for label, (text, colour, shape) in enumerate(captions(scenes_of(LABELS, INDICES), 0, described=0.0, unnamed=0.5)):
        said = [word for word in text.rstrip(".").split() if word in COLOURS + SHAPES]
        expected = [COLOURS[label // 8]] * (colour >= 0) + [SHAPES[label % 8]] * (shape >= 0)
        assert said == expected
        assert -1 in (colour, shape)


def test_unknown_prompt_kind_names_the_nearest() -> None:
    with pytest.raises(UserError, match="Did you mean 'cupl'"):
        class_sentences((0,), "cuple")


# The benchmark


def test_data_sets_are_grouped_by_class_and_splits_differ() -> None:
    dataset = Shapes(CONFIG).read_dataset("shapes")
    assert [len(part) for part in (dataset.train, dataset.validation, dataset.test)] == [192, 128, 128]
    assert dataset.class_names == CLASS_NAMES
    assert torch.equal(dataset.test.labels, torch.arange(64).repeat_interleave(2))
    assert torch.equal(dataset.test.sources, torch.arange(128))
    assert not torch.equal(dataset.validation.images, dataset.test.images)  # type: ignore[arg-type]
    assert dataset.unlabelled == ""


def test_more_images_of_a_class_leave_the_first_ones_as_they_are() -> None:
    few, many = (
        Shapes(replace(CONFIG, classes="unseen", test_per_class=count)).read_dataset("shapes").test.images
        for count in (2, 5)
    )
    assert torch.equal(few.view(20, 2, -1), many.view(20, 5, -1)[:, :2])  # type: ignore[union-attr]


def test_some_classes_are_a_part_of_all() -> None:
    whole, unseen = (Shapes(replace(CONFIG, classes=kind)).read_dataset("shapes") for kind in ("all", "unseen"))
    held_out = torch.tensor(held_out_classes())
    assert unseen.class_names == tuple(CLASS_NAMES[label] for label in held_out)
    kept = torch.isin(whole.test.labels, held_out)
    assert torch.equal(unseen.test.images, whole.test.images[kept])  # type: ignore[arg-type]
    assert unseen.sentences("cupl").texts[:8] == descriptions(int(held_out[0]))


def test_shifts_keep_labels_and_have_a_test_set_alone() -> None:
    benchmark = Shapes(replace(CONFIG, sets=["plain", "sketch", "blur"]))
    assert benchmark.dataset_names() == ["shapes", "shapes_sketch", "shapes_blur"]
    assert benchmark.task_names == benchmark.dataset_names()
    plain, sketch = (benchmark.read_dataset(name) for name in ("shapes", "shapes_sketch"))
    assert torch.equal(plain.test.labels, sketch.test.labels)
    assert not torch.equal(plain.test.images, sketch.test.images)  # type: ignore[arg-type]
    assert (len(sketch.train), len(sketch.validation)) == (0, 0)
    assert "shifted" in sketch.unlabelled


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sets": ["sketched"]}, "Did you mean 'sketch'"),
        ({"sets": []}, "benchmark.sets"),
        ({"sets": ["blur", "blur"]}, "none twice"),
        ({"classes": "unsee"}, "Did you mean 'unseen'"),
        ({"test_per_class": 0}, "benchmark.test_per_class=0"),
        ({"train_per_class": -1}, "benchmark.train_per_class=-1"),
    ],
)
def test_impossible_values_name_the_key(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        replace(CONFIG, **change)
