"""What a query looks at in a memory, and how much of it the learner reads."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import embedding

from mmcl.methods.mml.blocks import CrossAttentionBlock
from mmcl.methods.mml.learner import ClassKnowledge, MmlLearner, Queries
from mmcl.methods.mml.readout import Retrieved


@torch.no_grad()
def retrieved(learner: MmlLearner, queries: Queries, knowledge: ClassKnowledge) -> Retrieved:
    """Return the neighbours of queries with the attention that the learner pays to each.

    Args:
        learner: the blocks.
        queries: B queries with their places in the memory.
        knowledge: the memory that these are places in.
    """
    features = queries.features
    return Retrieved(
        queries.near_images,
        _attention(learner.attn_img, features, queries.near_images, knowledge.standard_images),
        queries.near_texts,
        _attention(learner.attn_txt, features, queries.near_texts, knowledge.standard_texts),
    )


def _attention(block: CrossAttentionBlock, features: Tensor, near: Tensor, items: Tensor) -> Tensor:
    if not near.shape[1]:
        return torch.zeros(near.shape, device=near.device)
    dtype = block.attn.in_proj_weight.dtype
    return block.attention(features.to(dtype), embedding(near, items).to(dtype)).float()
