"""Blending without weights for each sample, against the definition that builds them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mmcl.methods.memory_head import MHLinear, blending
from tests.methods.memory_head.heads import defined_output, head

RULES = [(None, None), (None, "ad_hoc_WTA"), ("WTA", "ad_hoc_WTA"), ("WTA", "grad_WTA")]
HEADS = st.fixed_dictionaries(
    {
        "delta": st.integers(1, 6),
        "distance": st.sampled_from(["cosine", "euclidean", "dot_scaled"]),
        "shared_keys": st.booleans(),
        "bias": st.booleans(),
        "layer_norm": st.booleans(),
        "layer_norm_by": st.sampled_from(["variance", "deviation"]),
        "detach_gradients": st.booleans(),
    }
)


def gradients(made: MHLinear, inputs: Tensor, outputs: Tensor) -> list[Tensor]:
    weights = torch.linspace(-1, 1, outputs.numel()).view_as(outputs)
    wanted = [inputs, *made.parameters()]
    return list(torch.autograd.grad((outputs * weights).sum(), wanted, materialize_grads=True))


def same(made: MHLinear, inputs: Tensor) -> None:
    outputs, defined = made(inputs), defined_output(made, inputs)
    torch.testing.assert_close(outputs, defined, rtol=1e-5, atol=1e-5)
    ours, theirs = gradients(made, inputs, outputs), gradients(made, inputs, defined)
    for fast, slow in zip(ours, theirs, strict=True):
        torch.testing.assert_close(fast.to_dense(), slow, rtol=1e-5, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), HEADS, st.sampled_from(RULES), st.integers(1, 4))
def test_all_units_at_once(seed: int, options: dict[str, Any], rules: tuple[Any, Any], samples: int) -> None:
    made = head(seed, upd_m=rules[0], upd_k=rules[1], **options)
    same(made, torch.randn(samples, 5, requires_grad=True))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), HEADS, st.sampled_from(RULES), st.integers(1, 9), st.booleans())
def test_unit_by_unit(seed: int, options: dict[str, Any], rules: tuple[Any, Any], samples: int, sparse: bool) -> None:
    options |= {"shared_keys": True, "delta": min(options["delta"], 5)}
    made = head(seed, upd_m=rules[0], upd_k=rules[1], sparse_gradients=sparse, **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blending, "GROUP_COST", 0)
        assert blending.grouping_pays(samples, made.M, made.delta)
        same(made, torch.randn(samples, 5, requires_grad=True))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 6), st.booleans(), st.booleans())
def test_only_winners_learn(seed: int, delta: int, shared: bool, layer_norm: bool) -> None:
    made = head(seed, delta=delta, shared_keys=shared, layer_norm=layer_norm, upd_m="WTA", upd_k="ad_hoc_WTA")
    made(torch.randn(4, 5)).square().sum().backward()
    assert made.chosen is not None
    won = torch.zeros(made.M.shape[:2], dtype=torch.bool)
    for bank in range(won.shape[0]):
        won[bank, made.chosen[:, bank, 0]] = True
    assert made.M.grad is not None
    assert (made.M.grad != 0).any(dim=2).equal(won)


def test_a_sparse_gradient_has_the_rows_of_winners(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blending, "GROUP_COST", 0)
    made = head(sparse_gradients=True, upd_m="WTA", upd_k="ad_hoc_WTA")
    for _ in range(2):  # the second pass is added to the first
        made(torch.randn(3, 5)).sum().backward()
    assert made.chosen is not None
    assert made.M.grad is not None
    assert made.M.grad.is_sparse
    with torch.sparse.check_sparse_tensor_invariants():
        rows = made.M.grad.coalesce().indices()[1]
    assert set(made.chosen[:, 0, 0].tolist()) <= set(rows.tolist())
    assert len(rows) < made.key_mem_units


def test_grouping_is_for_few_of_many_large_units() -> None:
    assert blending.grouping_pays(1, torch.empty(1, 100, 51300, device="cpu"), 2)
    assert not blending.grouping_pays(128, torch.empty(1, 10, 7690), 1)
    assert not blending.grouping_pays(1, torch.empty(100, 100, 513), 2), "banks of their own"


def test_derivatives_unit_by_unit() -> None:
    torch.manual_seed(0)
    units = torch.randn(1, 4, 3 * 6, dtype=torch.float64, requires_grad=True)
    inputs = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    shares = torch.rand(5, 1, 2, dtype=torch.float64, requires_grad=True)
    chosen = torch.stack([torch.randperm(4)[:2] for _ in range(5)])[:, None]

    def blend(*tensors: Tensor) -> Tensor:
        return blending._BlendByUnit.apply(*tensors, chosen, False, False)  # type: ignore[no-any-return]

    assert torch.autograd.gradcheck(blend, (inputs, units, shares))
