"""The attention that is shown is the one that the learner reads with."""

from __future__ import annotations

import torch
from torch.nn.functional import embedding, linear

from mmcl.methods.mml.retrieval import retrieved
from tests.methods.mml import cases


def test_weights_are_those_of_torch() -> None:
    learner, knowledge = cases.learner(), cases.memory(1)
    queries = cases.queries(2, knowledge)
    looked = retrieved(learner, queries, knowledge)
    sides = (
        (learner.attn_img, looked.image_rows, looked.image_weights, knowledge.images),
        (learner.attn_txt, looked.text_rows, looked.text_weights, knowledge.texts),
    )
    for block, rows, weights, items in sides:
        near = embedding(rows, items)
        with torch.no_grad():
            _, expected = block.attn(block.ln_q(queries.features)[:, None], block.ln_k(near), block.ln_v(near))
        assert cases.apart(weights, expected[:, 0]) < 1e-6
        assert cases.apart(weights.sum(dim=1), torch.ones(len(rows))) < 1e-6
    assert torch.equal(looked.image_rows, queries.near_images)
    assert torch.equal(looked.text_rows, queries.near_texts)


def test_forward_reads_with_these_weights_to_the_bit() -> None:
    learner, knowledge = cases.learner(), cases.memory(1)
    queries, block = cases.queries(2, knowledge), learner.attn_txt
    near = embedding(queries.near_texts, knowledge.standard_texts)
    weights = retrieved(learner, queries, knowledge).text_weights
    with torch.no_grad():
        pooled = torch.bmm(weights[:, None], near)[:, 0]
        to_value, bias = block.attn.in_proj_weight.chunk(3)[2], block.attn.in_proj_bias.chunk(3)[2]
        read = linear(block.ln_v.weight * pooled + block.ln_v.bias, to_value, bias)
        attended = queries.features + block.attn.out_proj(read)
        assert torch.equal(block(queries.features, near, near), attended + block.mlp(block.ln_2(attended)))


def test_a_modality_without_rows_has_no_weights() -> None:
    learner, knowledge = cases.learner().half(), cases.memory(1)
    queries = cases.queries(2, knowledge)
    bare = queries._replace(near_images=queries.near_images[:, :0])
    looked = retrieved(learner, bare, knowledge)
    assert looked.image_weights.shape == (7, 0)
    assert looked.text_weights.dtype == torch.float32
