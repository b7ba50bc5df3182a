"""Putting sets of classes together: what belongs to which class stays with it."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcl.benchmarks.memory_sets import (
    EncodedSet,
    first_classes,
    joined,
    relabelled_images,
    with_memory_of,
    without_images,
    without_texts,
)
from tests.methods.mml.memory_tasks import drawn_set


def rows_of(known: EncodedSet, label: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the image and text rows of a class."""
    return known.images.features[known.images.labels == label], known.texts.features[known.texts.classes == label]


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 100))
def test_sets_keep_their_classes_when_they_are_joined_and_cut(first: int, second: int, seed: int) -> None:
    sets = [drawn_set(seed, first), drawn_set(seed + 1, second)]
    union = joined(sets)
    assert union.class_names == sets[0].class_names + sets[1].class_names
    for label in range(first + second):
        part, own = (sets[0], label) if label < first else (sets[1], label - first)
        for found, expected in zip(rows_of(union, label), rows_of(part, own), strict=True):
            assert torch.equal(found, expected)
    assert torch.equal(union.prompts("full").classes, torch.arange(first + second))
    cut = first_classes(union, first)
    assert cut.class_names == sets[0].class_names
    assert torch.equal(cut.queries.features, sets[0].queries.features)
    assert len(cut.items.sentences) == len(cut.texts.classes)


def test_a_memory_may_be_taken_from_other_classes() -> None:
    asked, other = drawn_set(1, 3), drawn_set(2, 5)
    chosen = torch.tensor([4, 0, 2])
    wrong = with_memory_of(asked, other, chosen)
    assert torch.equal(wrong.queries.features, asked.queries.features)
    for label, source in enumerate(chosen.tolist()):
        for found, expected in zip(rows_of(wrong, label), rows_of(other, source), strict=True):
            assert torch.equal(found, expected)
    assert wrong.content(False).class_count == 3


def test_one_modality_can_be_left_out_and_prompts_stay() -> None:
    known = drawn_set(1, 3)
    assert len(without_images(known).images) == 0
    assert len(without_images(known).texts.classes) == len(known.texts.classes)
    assert len(without_texts(known).texts.classes) == 0
    assert len(without_texts(known).prompts("full").classes) == 3


def test_relabelled_images_lie_by_their_new_class() -> None:
    known = drawn_set(1, 3, per_class=2)
    labels = torch.tensor([2, 0, 1, 1, 0, 2])
    moved = relabelled_images(known, labels)
    assert moved.images.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert torch.equal(moved.images.features[0], known.images.features[1])
    assert torch.equal(moved.images.features[4], known.images.features[0])
