"""The stream in blocks against the memory that is written and read image by image."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

from mmcl.methods.dmn_projections import DmnProjections
from mmcl.methods.dmn_readout import Projection
from mmcl.methods.dmn_stream import BLOCK, DynamicMemory, plan_writes
from tests.methods.dmn_definition import DefinedMemory

DIMENSION, SHARPNESS, SCALE = 6, 5.5, 20.0


def drawn_stream(seed: int, images: int, classes: int, levels: int) -> tuple[Tensor, Tensor, Tensor]:
    """Draw features, labels (some classes much more often) and entropies of few values, so that they tie."""
    generator = torch.Generator().manual_seed(seed)
    features = normalize(torch.randn(images, DIMENSION, generator=generator) + 0.5, dim=1)
    labels = torch.rand(images, generator=generator).square().mul(classes).long()
    return features, labels, torch.randint(levels, (images,), generator=generator) / levels


def drawn_memory(classes: int, fixed: int, capacity: int, kind: str) -> tuple[DynamicMemory, Tensor, Projection]:
    projections = DmnProjections(classes, DIMENSION, "all", kind, shared=False, learn=False)
    for parameter in projections.parameters():
        parameter.data.normal_(0, 0.2)
    memory = DynamicMemory(classes, fixed, capacity, DIMENSION)
    slots = normalize(torch.randn(classes, fixed, DIMENSION) + 0.5, dim=2)
    memory.restart(slots, projections.current())
    return memory, slots, projections.current()


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    images=st.integers(1, 2 * BLOCK + 10),
    classes=st.integers(2, 4),
    fixed=st.integers(1, 3),
    capacity=st.integers(1, 4),
    levels=st.integers(1, 6),
    kind=st.sampled_from(["bias", "affine"]),
)
def test_blocks_are_the_stream_image_by_image(
    seed: int, images: int, classes: int, fixed: int, capacity: int, levels: int, kind: str
) -> None:
    torch.manual_seed(seed)
    features, labels, entropies = drawn_stream(seed, images, classes, levels)
    memory, slots, projection = drawn_memory(classes, fixed, capacity, kind)
    logits = memory.write_and_read(features, labels, entropies, projection, SHARPNESS, SCALE)
    defined, answers = DefinedMemory(slots, capacity), []
    for feature, label, entropy in zip(features, labels.tolist(), entropies.tolist(), strict=True):
        defined.write(feature, label, entropy)
        answers.append(defined.read(feature, projection, SHARPNESS, SCALE))
    torch.testing.assert_close(logits / SCALE, torch.stack(answers) / SCALE, rtol=1e-5, atol=1e-5)
    assert memory.counts.tolist() == [len(rows) for rows in defined.features]
    for label, rows in enumerate(defined.features):
        assert torch.equal(memory.written_features[label, : len(rows)], torch.stack([*rows, features[0]])[: len(rows)])
        assert memory.entropies[label].tolist() == defined.entropies[label] + [0.0] * (capacity - len(rows))


def test_where_the_stream_is_cut_does_not_matter() -> None:
    features, labels, entropies = drawn_stream(1, 3 * BLOCK, 5, 4)
    whole, slots, projection = drawn_memory(5, 2, 3, "bias")
    parts = DynamicMemory(5, 2, 3, DIMENSION)
    parts.restart(slots, projection)
    logits = whole.write_and_read(features, labels, entropies, projection, SHARPNESS, SCALE)
    pieces = zip(features.split(7), labels.split(7), entropies.split(7), strict=True)
    again = torch.cat([parts.write_and_read(*piece, projection, SHARPNESS, SCALE) for piece in pieces])
    torch.testing.assert_close(logits, again, rtol=1e-5, atol=1e-5)
    assert torch.equal(whole.counts, parts.counts)
    assert torch.equal(whole.features, parts.features)


@pytest.mark.parametrize("kind", ["bias", "affine"])
def test_a_stream_goes_on_from_its_state_bit_for_bit(kind: str) -> None:
    torch.manual_seed(2)
    features, labels, entropies = drawn_stream(2, 3 * BLOCK, 5, 40)
    memory, slots, projection = drawn_memory(5, 2, 6, kind)
    rest = slice(BLOCK + 9, None)
    memory.write_and_read(features[: rest.start], labels[: rest.start], entropies[: rest.start], projection, 5.5, 20.0)
    resumed = DynamicMemory(5, 2, 6, DIMENSION)
    resumed.restart(slots, projection)
    resumed.load_state_dict({name: part.clone() for name, part in memory.state_dict().items()})
    remaining = (features[rest], labels[rest], entropies[rest], projection, SHARPNESS, SCALE)
    assert torch.equal(memory.write_and_read(*remaining), resumed.write_and_read(*remaining))


def test_a_full_class_gives_up_its_last_largest_entropy_and_only_for_less() -> None:
    plan = plan_writes([0, 0, 0, 0, 1], [0.5, 0.9, 0.4, 0.4, 0.1], {0: [0.5, 0.5], 1: []}, capacity=2)
    assert plan.slots == [-1, -1, 1, 0, 0]
    assert plan.entropies == {0: [0.4, 0.4], 1: [0.1]}


def test_an_image_sees_itself() -> None:
    memory, _, projection = drawn_memory(3, 1, 2, "bias")
    nothing = DmnProjections(3, DIMENSION, "none", "bias", shared=False, learn=False).current()
    memory.restart(torch.nn.functional.one_hot(torch.tensor([[0], [1], [2]]), DIMENSION).float(), nothing)
    image = torch.nn.functional.one_hot(torch.tensor([4]), DIMENSION).float()
    logits = memory.write_and_read(image, torch.tensor([1]), torch.tensor([0.3]), nothing, 5.5, 1.0)
    assert logits[0, 1] > 0.99
    assert logits[0, [0, 2]].tolist() == [0.0, 0.0]
