"""The cross-attention block of the Memory-Modular Learner: a query looks at its nearest memory items.

Kang et al., "Memory-Modular Classification: Learning to Generalize with Memory Replacement", TMLR 2025. For a query q
and k items with keys K and values V, one head of the whole width D:

    a = q + Attention(ln_q(q), ln_k(K), ln_v(V))        out = a + mlp(ln_2(a))

As there is one query and one head, neither keys nor values need to be projected. With z the items before the affine
part of their LayerNorm, which depends on no weight, and gamma, beta that part,

    score_j = <gamma_k * W_k^T u, z_j> / sqrt(D) + constant        u = W_q ln_q(q) + b_q
    Attention = W_o (W_v (gamma_v * sum_j w_j z_j + beta_v) + b_v) + b_o        w = softmax(score)

which costs a query 12 D^2 products instead of (10 + 2k) D^2, and agrees with the plain form to float32 rounding.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, linear

LAYER_NORM_EPS = 1e-5


def standardise(items: Tensor) -> Tensor:
    """Return memory items ``(..., D)`` with mean 0 and variance 1 each: their LayerNorm before its affine part."""
    return layer_norm(items, items.shape[-1:], eps=LAYER_NORM_EPS)


class Perceptron(nn.Module):
    """Two layers of widths 4D and D, between them CLIP's QuickGELU, u * sigmoid(1.702 u)."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(dimension, 4 * dimension)
        self.c_proj = nn.Linear(4 * dimension, dimension)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map ``(B, D)`` to ``(B, D)``."""
        hidden = self.c_fc(inputs)
        outputs: Tensor = self.c_proj(hidden * torch.sigmoid(1.702 * hidden))
        return outputs


class _Projection(NamedTuple):
    weight: Tensor
    bias: Tensor


class CrossAttentionBlock(nn.Module):
    """Refines queries with items of one modality; 12 D^2 + 17 D parameters.

    Args:
        dimension: D, length of a feature.
        generator: draws the start weights, as torch's layers would draw them.
    """

    def __init__(self, dimension: int, generator: torch.Generator) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(dimension, num_heads=1, batch_first=True)
        self.ln_q, self.ln_k, self.ln_v, self.ln_2 = (nn.LayerNorm(dimension, LAYER_NORM_EPS) for _ in range(4))
        self.mlp = Perceptron(dimension)
        self._draw(generator)

    @torch.no_grad()
    def _draw(self, generator: torch.Generator) -> None:
        nn.init.xavier_uniform_(self.attn.in_proj_weight, generator=generator)
        nn.init.kaiming_uniform_(self.attn.out_proj.weight, math.sqrt(5), generator=generator)
        for layer in (self.mlp.c_fc, self.mlp.c_proj):
            nn.init.kaiming_uniform_(layer.weight, math.sqrt(5), generator=generator)
            bound = 1 / math.sqrt(layer.in_features)
            layer.bias.uniform_(-bound, bound, generator=generator)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Refine each query with its own items.

        Args:
            queries: ``(B, D)``, as the encoder gives them.
            keys: :func:`standardise` of each query's items ``(B, k, D)``; their order does not matter.
            values: the same of what is read from them, mostly the keys themselves.

        Returns:
            Refined queries ``(B, D)``.
        """
        to_query, to_key, to_value = self._projections()
        pooled = torch.bmm(self._weights(queries, keys, to_query, to_key)[:, None], values)[:, 0]
        read = linear(self.ln_v.weight * pooled + self.ln_v.bias, *to_value)
        return self._finish(queries + self.attn.out_proj(read))

    def attention(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Return how much :meth:`forward` reads from each item of a query: ``(B, k)``, each row sums to 1.

        Args:
            queries: ``(B, D)``, as the encoder gives them.
            keys: :func:`standardise` of each query's items ``(B, k, D)``.
        """
        to_query, to_key, _ = self._projections()
        return self._weights(queries, keys, to_query, to_key)

    def _projections(self) -> list[_Projection]:
        """Return the projections to query, key and value; a second call in one step would cost a second gradient."""
        parts = zip(self.attn.in_proj_weight.chunk(3), self.attn.in_proj_bias.chunk(3), strict=True)
        return [_Projection(weight, bias) for weight, bias in parts]

    def _weights(self, queries: Tensor, keys: Tensor, to_query: _Projection, to_key: _Projection) -> Tensor:
        asked = linear(self.ln_q(queries), *to_query)
        towards_keys = asked @ to_key.weight
        # The same for all items of a query, so that softmax ignores it; with it, every parameter has a gradient.
        constant = towards_keys @ self.ln_k.bias + asked @ to_key.bias
        # A row times the items is three times as fast as the items times a column.
        scores = torch.bmm((self.ln_k.weight * towards_keys)[:, None], keys.mT)[:, 0] + constant[:, None]
        return torch.softmax(scores / math.sqrt(queries.shape[1]), dim=1)

    def plain(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Return what :meth:`forward` returns as the definition reads, from raw keys and values ``(B, k, D)``.

        Every item is projected, as in the released code; it is what the other form is measured and tested against.
        """
        asked = self.ln_q(queries)[:, None]
        read, _ = self.attn(asked, self.ln_k(keys), self.ln_v(values), need_weights=False)
        return self._finish(queries + read[:, 0])

    def _finish(self, attended: Tensor) -> Tensor:
        refined: Tensor = attended + self.mlp(self.ln_2(attended))
        return refined
