"""The block against its definition, and what must not matter to it."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import layer_norm

from mmcl.methods.mml.blocks import CrossAttentionBlock, standardise
from tests.methods.mml import cases


def by_loops(block: CrossAttentionBlock, query: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
    """Return the block's answer to one query ``(D,)`` and its items ``(k, D)``, item by item."""
    size = len(query)
    to_query, to_key, to_value = block.attn.in_proj_weight.view(3, size, size)
    query_bias, key_bias, value_bias = block.attn.in_proj_bias.view(3, size)
    asked = to_query @ block.ln_q(query) + query_bias
    scores = [asked @ (to_key @ block.ln_k(item) + key_bias) / math.sqrt(size) for item in items]
    total = sum(math.exp(score) for score in scores)
    read = sum(
        math.exp(score) / total * (to_value @ block.ln_v(item) + value_bias)
        for score, item in zip(scores, items, strict=True)
    )
    attended = query + block.attn.out_proj(read)
    hidden = block.mlp.c_fc(block.ln_2(attended))
    return attended + block.mlp.c_proj(hidden * (1 / (1 + torch.exp(-1.702 * hidden))))


@pytest.mark.parametrize("count", [1, 6])
def test_both_forms_are_the_definition(count: int) -> None:
    block, generator = cases.learner().attn_txt, cases.draws(5)
    queries, items = (torch.randn(*shape, 8, generator=generator) for shape in ((4,), (4, count)))
    with torch.no_grad():
        expected = torch.stack([by_loops(block, query, near) for query, near in zip(queries, items, strict=True)])
        standard = standardise(items)
        assert cases.apart(block(queries, standard, standard), expected) < 1e-5
        assert cases.apart(block.plain(queries, items, items), expected) < 1e-5


def test_gradients_of_both_forms_agree() -> None:
    generator = cases.draws(3)
    queries, items, towards = (torch.randn(*shape, 8, generator=generator) for shape in ((9,), (9, 5), (9,)))
    found = []
    for form in ("forward", "plain"):
        block = cases.learner().attn_img
        read = standardise(items) if form == "forward" else items
        (getattr(block, form)(queries, read, read) * towards).sum().backward()
        found.append({name: parameter.grad for name, parameter in block.named_parameters()})
    assert all(found[0][name] is not None for name in found[0])
    for name, gradient in found[1].items():
        assert gradient is not None
        assert found[0][name] is not None
        assert cases.apart(found[0][name], gradient) < 1e-5, name  # type: ignore[arg-type]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), count=st.integers(1, 9))
def test_order_of_neighbours_does_not_matter(seed: int, count: int) -> None:
    block, generator = cases.learner(seed).attn_txt, cases.draws(seed)
    queries, items = torch.randn(3, 8, generator=generator), standardise(torch.randn(3, count, 8, generator=generator))
    shuffled = items[:, torch.randperm(count, generator=generator)]
    assert cases.apart(block(queries, shuffled, shuffled), block(queries, items, items)) < 1e-5


def test_standard_items_with_the_affine_part_are_the_layer_norm() -> None:
    items, weight, bias = 3 + torch.randn(4, 6, 8), torch.randn(8), torch.randn(8)
    assert cases.apart(standardise(items) * weight + bias, layer_norm(items, (8,), weight, bias)) < 1e-6


def test_start_weights_are_those_of_torch_and_only_of_the_generator() -> None:
    block = CrossAttentionBlock(64, cases.draws(1))
    torch.manual_seed(7)
    same, other = CrossAttentionBlock(64, cases.draws(1)), CrossAttentionBlock(64, cases.draws(2))
    state, again, apart = (made.state_dict() for made in (block, same, other))
    assert all(torch.equal(state[name], again[name]) for name in state)
    drawn = ["attn.in_proj_weight", "attn.out_proj.weight"]
    drawn += [f"mlp.{layer}.{part}" for layer in ("c_fc", "c_proj") for part in ("weight", "bias")]
    bounds = [math.sqrt(6 / (4 * 64)), 1 / 8, 1 / 8, 1 / 8, 1 / 16, 1 / 16]
    for name, bound in zip(drawn, bounds, strict=True):
        assert not torch.equal(state[name], apart[name])
        assert 0.9 * bound < float(state[name].abs().max()) <= bound, name
    for name in set(state) - set(drawn):
        assert torch.equal(state[name], torch.full_like(state[name], float(name[:2] == "ln" and "weight" in name)))
    assert sum(value.numel() for value in state.values()) == 12 * 64**2 + 17 * 64
