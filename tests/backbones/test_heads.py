from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcl.backbones import GrowingLinear, align_weights


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 6), st.integers(0, 6), st.integers(0, 6), st.integers(0, 6))
def test_growing_keeps_the_old_corner(inputs: int, outputs: int, more_inputs: int, more_outputs: int) -> None:
    head = GrowingLinear(inputs, outputs)
    with torch.no_grad():
        head.bias.fill_(7.0)
    weight = head.weight.detach().clone()
    head.grow(outputs + more_outputs, inputs + more_inputs)
    assert head.weight.shape == (outputs + more_outputs, inputs + more_inputs)
    assert torch.equal(head.weight[:outputs, :inputs], weight)
    assert torch.equal(head.bias, torch.tensor([7.0] * outputs + [0.0] * more_outputs))
    fresh = head.weight[outputs:]
    assert fresh.numel() == 0 or fresh.abs().max() <= math.sqrt(3 / head.in_features)
    assert head(torch.zeros(2, head.in_features)).shape == (2, head.out_features)


def test_shrinking_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot grow"):
        GrowingLinear(4, 4).grow(3)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 1000))
def test_aligning_makes_mean_norms_equal_and_is_idempotent(old: int, new: int, seed: int) -> None:
    weight = torch.randn(old + new, 8, generator=torch.Generator().manual_seed(seed))
    aligned, _ = align_weights(weight, new)
    norms = aligned.norm(dim=1)
    assert torch.equal(aligned[:old], weight[:old])
    torch.testing.assert_close(norms[:old].mean(), norms[old:].mean())
    torch.testing.assert_close(align_weights(aligned, new)[1], torch.tensor(1.0))


@pytest.mark.parametrize("new_classes", [0, 4])
def test_aligning_needs_old_and_new_rows(new_classes: int) -> None:
    with pytest.raises(ValueError, match="old and new"):
        align_weights(torch.ones(4, 2), new_classes)
