from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mmcl.errors import UserError
from mmcl.memory import prototypes as module
from mmcl.memory.prototypes import ClassRows, best, best_of_each, class_directions, prototypes

Rows = tuple[Tensor, Tensor]


def rows(seed: int, counts: list[int], dimension: int = 6) -> Rows:
    """Rows of each class around a direction of the class, in mixed order."""
    generator = torch.Generator().manual_seed(seed)
    classes = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    classes = classes[torch.randperm(len(classes), generator=generator)]
    means = torch.randn(len(counts), dimension, generator=torch.Generator().manual_seed(7))
    return 3 * means[classes] + torch.randn(len(classes), dimension, generator=generator), classes


def unit(vector: Tensor) -> Tensor:
    return vector / max(float(vector.norm()), 1e-12)


def by_definition(images: Rows, texts: Rows, count: int, top: int, shots: Rows | None) -> tuple[Tensor, Tensor]:
    """All pairs of each class, in float64."""
    image_side, text_side = [], []
    for number in range(count):
        seen = images if shots is None else shots
        of_images = [row.double() for row, label in zip(*seen, strict=True) if label == number]
        of_texts = [row.double() for row, label in zip(*texts, strict=True) if label == number]
        cosines = [[float(unit(image) @ unit(text)) for text in of_texts] for image in of_images]
        text_worth = [sum(line[place] for line in cosines) for place in range(len(of_texts))]
        text_order = sorted(range(len(of_texts)), key=lambda place: (-text_worth[place], place))
        image_order = sorted(range(len(of_images)), key=lambda place: (-sum(cosines[place]), place))
        text_side.append(unit(sum(of_texts[place] for place in text_order[:top])))
        kept = image_order[:top] if shots is None else image_order
        image_side.append(unit(sum(of_images[place] for place in kept)) if kept else text_side[-1])
    return torch.stack(image_side).float(), torch.stack(text_side).float()


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 10**6),
    st.lists(st.tuples(st.integers(0, 7), st.integers(1, 7), st.integers(0, 3)), min_size=1, max_size=4),
    st.integers(1, 5),
    st.booleans(),
)
def test_equal_the_definition(seed: int, counts: list[tuple[int, int, int]], top: int, few_shot: bool) -> None:
    images, texts, shots = (rows(seed + place, [count[place] for count in counts]) for place in range(3))
    shots = shots if few_shot else None
    found = prototypes(*images, *texts, len(counts), top, shots)
    expected = by_definition(images, texts, len(counts), top, shots)
    assert torch.allclose(found.images, expected[0], atol=1e-5)
    assert torch.allclose(found.texts, expected[1], atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from([1, 2, 3, 7, 16, 65, 129, 512]),
    st.booleans(),
    st.sampled_from([1, 2**12, 2**28]),
)
def test_a_class_gets_the_same_bits_in_any_company(seed: int, dimension: int, sort: bool, block_bytes: int) -> None:
    counts = ([5, 20, 9, 1, 0, 33], [7, 19, 3, 1, 8, 60])
    images, texts = rows(seed, counts[0], dimension), rows(seed + 1, counts[1], dimension)
    if sort:
        images, texts = (
            (kept[order], labels[order]) for kept, labels in (images, texts) for order in [labels.argsort()]
        )
    with pytest.MonkeyPatch.context() as patch:
        for name in ("_BLOCK_BYTES", "_CACHE_BYTES"):
            patch.setattr(module, name, block_bytes)
        together = prototypes(*images, *texts, 6, 4)
    for number in range(6):
        alone = [features[labels == number] for features, labels in (images, texts)]
        zeros = [torch.zeros(len(part), dtype=torch.int64) for part in alone]
        single = prototypes(alone[0], zeros[0], alone[1], zeros[1], 1, 4)
        assert torch.equal(single.images[0], together.images[number])
        assert torch.equal(single.texts[0], together.texts[number])


def test_a_class_without_images_takes_its_first_texts_for_both() -> None:
    texts = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    found = prototypes(texts[:0], torch.zeros(0, dtype=torch.int64), texts, torch.zeros(5, dtype=torch.int64), 1, 2)
    assert torch.allclose(found.texts[0], unit(texts[:2].mean(0)), atol=1e-6)
    assert torch.equal(found.images, found.texts)


@pytest.mark.parametrize("few_shot", [False, True])
def test_without_texts_the_first_images_or_all_shots_stand_for_both(few_shot: bool) -> None:
    images, shots = rows(0, [5, 3, 1]), rows(1, [4, 2, 3])
    none = images[0][:0], images[1][:0]
    found = prototypes(*images, *none, 3, 2, shots if few_shot else None)
    seen, top = (shots, 4) if few_shot else (images, 2)
    for number in range(3):
        mean = unit(seen[0][seen[1] == number][:top].mean(0))
        assert torch.allclose(found.images[number], mean, atol=1e-6)
    assert torch.equal(found.images, found.texts)


def test_half_rows_are_computed_in_float32() -> None:
    images, texts = rows(1, [9, 9]), rows(2, [9, 9])
    halves = [part.half() for part in (images[0], texts[0])]
    found = prototypes(halves[0], images[1], halves[1], texts[1], 2, 4)
    wide = prototypes(halves[0].float(), images[1], halves[1].float(), texts[1], 2, 4)
    assert found.images.dtype == torch.float32
    assert torch.equal(found.images, wide.images)
    assert torch.equal(found.texts, wide.texts)


def test_best_takes_the_first_of_equal_ones() -> None:
    assert best(torch.tensor([1.0, 2.0, 2.0, 0.0, 2.0]), 2).tolist() == [1, 2]


def test_best_of_each_class_stay_in_it() -> None:
    worth = torch.tensor([1.0, 3.0, 3.0, 9.0, -2.0, -1.0, -1.0])
    assert best_of_each(worth, torch.tensor([3, 0, 1, 3]), 2).tolist() == [1, 2, 3, 5, 6]


def test_directions_of_what_is_kept() -> None:
    items = ClassRows(torch.tensor([[3.0, 0.0], [0.0, 5.0], [1.0, 0.0]]), torch.tensor([1, 1, 0]))
    assert class_directions(items, torch.tensor([1, 2]), 3).tolist() == [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]


def test_a_class_without_text_is_refused() -> None:
    images, texts = rows(0, [2, 2, 2]), rows(1, [2, 0, 2])
    with pytest.raises(UserError, match="no text for class 1 of 3"):
        prototypes(*images, *texts, 3, 2)


def test_a_class_with_nothing_is_refused() -> None:
    images = rows(0, [2, 0, 2])
    with pytest.raises(UserError, match="no image for class 1 of 3: in a memory without texts"):
        prototypes(*images, images[0][:0], images[1][:0], 3, 2)


def test_a_class_beyond_the_last_is_refused() -> None:
    images, texts = rows(0, [2, 2, 2]), rows(1, [2, 2])
    with pytest.raises(UserError, match="expected 0 to 1"):
        prototypes(*images, *texts, 2, 2)
