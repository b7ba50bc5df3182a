"""The readout through inner products against the published vectors."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

from mmcl.methods.dmn_projections import KINDS, POSITIONS, DmnProjections
from mmcl.methods.dmn_readout import group_shots, make_slots, readout, slot_gram
from tests.methods.dmn_definition import defined_readout

CLASSES, SLOTS, DIMENSION, SCALE = 3, 4, 6, 20.0


def random_projections(position: str, kind: str, shared: bool = False, learn: bool = True) -> DmnProjections:
    projections = DmnProjections(CLASSES, DIMENSION, position, kind, shared, learn)
    for parameter in projections.parameters():
        parameter.data.normal_(0, 0.2)
    return projections


def random_units(*shape: int) -> Tensor:
    return normalize(torch.randn(shape), dim=-1)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**31),
    st.sampled_from(sorted(POSITIONS)),
    st.sampled_from(KINDS),
    st.booleans(),
    st.sampled_from([0.0, 1.0, 5.5, 20.0]),
    st.booleans(),
)
def test_readout_is_the_published_one(
    seed: int, position: str, kind: str, shared: bool, sharpness: float, few_channels: bool
) -> None:
    torch.manual_seed(seed)
    projections = random_projections(position, kind, shared).double()
    current = projections.current()
    features, slots = random_units(5, DIMENSION).double(), random_units(CLASSES, SLOTS, DIMENSION).double()
    valid = torch.rand(CLASSES, SLOTS) < 0.6
    valid[:, 0] = True
    channels = (torch.rand(DIMENSION) < 0.5).double() if few_channels else None
    mine = readout(features, make_slots(slots, current), valid, current, sharpness, SCALE, channels)
    defined = [defined_readout(feature, slots, valid, current, sharpness, SCALE, channels) for feature in features]
    torch.testing.assert_close(mine, torch.stack(defined), rtol=1e-5, atol=1e-5)
    active = [getattr(projections, place) for place in {*projections.places} - {"text"}]
    if active:
        gradients = [torch.autograd.grad(part.logsumexp(dim=1).sum(), active) for part in (mine, torch.stack(defined))]
        for fast, slow in zip(*gradients, strict=True):
            torch.testing.assert_close(fast, slow, rtol=1e-5, atol=1e-5)


def test_empty_slots_count_for_nothing_even_with_biases() -> None:
    torch.manual_seed(0)
    current = random_projections("all", "bias").current()
    features, slots = random_units(5, DIMENSION), random_units(CLASSES, SLOTS, DIMENSION)
    slots[:, 1:] = 0
    valid = torch.zeros(CLASSES, SLOTS, dtype=torch.bool)
    valid[:, 0] = True
    with_empty = readout(features, make_slots(slots, current), valid, current, 5.5, SCALE)
    alone = readout(features, make_slots(slots[:, :1], current), None, current, 5.5, SCALE)
    torch.testing.assert_close(with_empty, alone)
    nothing = random_projections("none", "bias").current()
    text_alone = readout(features, make_slots(slots, nothing), valid, nothing, 5.5, SCALE)
    torch.testing.assert_close(text_alone, SCALE * features @ slots[:, 0].T)


def test_a_gram_matrix_computed_before_serves_all_biases() -> None:
    slots = random_units(CLASSES, SLOTS, DIMENSION)
    gram = slot_gram(slots, random_projections("none", "bias").current())
    current = random_projections("all", "bias").current()
    for given_gram, own in zip(make_slots(slots, current, gram), make_slots(slots, current), strict=True):
        torch.testing.assert_close(given_gram, own)


@pytest.mark.parametrize("position", sorted(POSITIONS))
@pytest.mark.parametrize("shared", [False, True])
def test_only_what_acts_asks_for_a_gradient(position: str, shared: bool) -> None:
    projections = random_projections(position, "bias", shared)
    current = projections.current()
    features, slots = random_units(5, DIMENSION), random_units(CLASSES, SLOTS, DIMENSION)
    total = readout(features, make_slots(slots, current), None, current, 5.5, SCALE).square().sum()
    if projections.text_bias is not None:
        total = total + projections.text_bias.sum()
    asking = [name for name, parameter in projections.named_parameters() if parameter.requires_grad]
    if asking:
        total.backward()
    reached = [name for name, parameter in projections.named_parameters() if parameter.grad is not None]
    assert asking == reached
    assert bool(asking) == (position != "none")
    frozen = DmnProjections(CLASSES, DIMENSION, position, "bias", shared, learn=False)
    assert not any(parameter.requires_grad for parameter in frozen.parameters())


def test_shots_are_grouped_in_their_order() -> None:
    features = torch.randn(6, 2, DIMENSION)
    labels = torch.tensor([1, 0, 2, 0, 1, 2])
    shots = group_shots(features, labels, 3)
    assert shots.shape == (3, 2, 2, DIMENSION)
    torch.testing.assert_close(shots[1], normalize(features[[0, 4]], dim=2))
    torch.testing.assert_close(shots[0], normalize(features[[1, 3]], dim=2))
