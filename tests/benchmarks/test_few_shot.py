from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmcl.benchmarks.few_shot import few_shot_rows
from mmcl.errors import UserError


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(0, 3))
def test_the_choice_is_that_of_python_seeded_anew_for_every_class(labels: list[int], shots: int) -> None:
    classes = max(labels) + 1
    if min(labels.count(label) for label in range(classes)) < shots:
        with pytest.raises(UserError, match=f"{shots} images of each class"):
            few_shot_rows(torch.tensor(labels), shots)
        return
    expected = []
    for label in range(classes):
        rows = [row for row, of in enumerate(labels) if of == label]
        random.seed(0)
        expected += random.sample(rows, shots)
    assert few_shot_rows(torch.tensor(labels), shots).tolist() == expected


def test_the_choice_of_a_class_does_not_depend_on_the_others() -> None:
    alone = few_shot_rows(torch.zeros(30, dtype=torch.int64), 4)
    among = few_shot_rows(torch.tensor([0] * 30 + [1] * 9), 4)
    assert torch.equal(alone, among[:4])
    assert torch.equal(among, few_shot_rows(torch.tensor([0] * 30 + [1] * 9), 4))


def test_more_shots_than_images_name_the_class_and_what_is_possible() -> None:
    labels = torch.tensor([0, 0, 0, 1, 1])
    with pytest.raises(UserError, match=r"class 1 \('striped'\) has 2.*at most 2"):
        few_shot_rows(labels, 3, ["dotted", "striped"])


def test_a_named_class_without_images_is_refused() -> None:
    with pytest.raises(UserError, match=r"class 1 \('b'\) has 0"):
        few_shot_rows(torch.tensor([0, 0]), 1, ["a", "b"])


def test_no_shots_are_no_rows() -> None:
    assert few_shot_rows(torch.tensor([0, 1, 1]), 0).shape == (0,)
