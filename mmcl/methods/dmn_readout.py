"""The readout of DMN: one memory of slots turned into a classifier for each image (Zhang et al., CVPR 2024).

Published as vectors: for the query v and the slots m_cj of class c, with ``unit`` scaling to length 1,

    q = unit(v + mean_c b_q[c])        k_cj = unit(m_cj + b_k[c])        u_cj = unit(m_cj + b_v[c])
    a_cj = exp(-beta (1 - <q, k_cj>))  g_c = unit(sum_j a_cj u_cj)       logit_c = s <unit(g_c + b_o[c]), v>

Computed here through inner products alone: with ``w_cj = a_cj / |m_cj + b_v[c]|`` and the Gram matrix of a class's
slots, the length of ``sum_j w_cj (m_cj + b_v[c])`` and its products with v and b_o need no vector of length D for each
pair of image and class. The slots stay as they are, and the one large product is that of slots and queries. The values
agree with the published form to float32 rounding.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize


class Projection(NamedTuple):
    """Residual projections of query, key, value and output.

    ``query_bias (D,)`` is the mean over classes; ``key_bias``, ``value_bias`` and ``output_bias`` are ``(C, D)``. A
    matrix ``(D, D)`` projects x to ``x + x @ matrix``; None leaves x as it is. Zeros and None project nothing.
    """

    query_bias: Tensor
    key_bias: Tensor
    value_bias: Tensor
    output_bias: Tensor
    query_matrix: Tensor | None = None
    key_matrix: Tensor | None = None
    value_matrix: Tensor | None = None

    def of_classes(self, classes: Tensor) -> Projection:
        """Return the projection of some classes, int64 ``(T,)``."""
        key, value, output = (bias[classes] for bias in (self.key_bias, self.value_bias, self.output_bias))
        return self._replace(key_bias=key, value_bias=value, output_bias=output)


class Slots(NamedTuple):
    """Slots grouped by class, with the inner products that the readout asks for.

    ``features (C, S, D)`` as stored; ``gram (C, S, S)`` of the values; and for each slot ``(C, S)``: ``key_norms`` and
    ``value_norms`` (lengths of the biased keys and values), ``key_query`` (key with the query bias), ``value_value``
    and ``value_output`` (value with value bias and output bias). Keys and values are before their bias.
    """

    features: Tensor
    gram: Tensor
    key_norms: Tensor
    value_norms: Tensor
    key_query: Tensor
    value_value: Tensor
    value_output: Tensor


def _project(vectors: Tensor, matrix: Tensor | None) -> Tensor:
    return vectors if matrix is None else vectors + vectors @ matrix


def _project_back(vectors: Tensor, matrix: Tensor | None) -> Tensor:
    """Apply the transpose: ``<project(x), y> = <x, project_back(y)>``."""
    return vectors if matrix is None else vectors + vectors @ matrix.T


def slot_values(features: Tensor, projection: Projection) -> Tensor:
    """Return the values of slots before their bias ``(C, S, D)``."""
    return _project(features, projection.value_matrix)


def slot_gram(features: Tensor, projection: Projection) -> Tensor:
    """Return the inner products of the values of each class ``(C, S, S)``."""
    values = slot_values(features, projection)
    return values @ values.mT


def make_slots(features: Tensor, projection: Projection, gram: Tensor | None = None) -> Slots:
    """Compute the inner products of slots with the biases of their classes.

    Args:
        features: ``(C, S, D)``.
        projection: of these C classes.
        gram: :func:`slot_gram` where it is known already; it does not depend on the biases.
    """
    keys, values = _project(features, projection.key_matrix), slot_values(features, projection)
    to_key = torch.stack([projection.query_bias.expand_as(projection.key_bias), projection.key_bias], dim=2)
    to_value = torch.stack([projection.value_bias, projection.output_bias], dim=2)
    key_query, key_key = (keys @ to_key).unbind(dim=2)
    value_value, value_output = (values @ to_value).unbind(dim=2)
    return Slots(
        features,
        slot_gram(features, projection) if gram is None else gram,
        _biased_norms(keys, key_key, projection.key_bias),
        _biased_norms(values, value_value, projection.value_bias),
        key_query,
        value_value,
        value_output,
    )


def _biased_norms(vectors: Tensor, products: Tensor, bias: Tensor) -> Tensor:
    """Return ``|x + b|`` for x ``(C, S, D)`` from ``<x, b>`` ``(C, S)`` and b ``(C, D)``."""
    squares = vectors.square().sum(dim=2) + 2 * products + bias.square().sum(dim=1)[:, None]
    return _lengths(squares)


def _lengths(squares: Tensor) -> Tensor:
    """Take the root of squared lengths, which rounding may have made negative."""
    return squares.clamp(min=1e-12).sqrt()


def readout(
    features: Tensor,
    slots: Slots,
    valid: Tensor | None,
    projection: Projection,
    sharpness: float,
    scale: float,
    channels: Tensor | None = None,
) -> Tensor:
    """Classify images by a memory, as the head of this module says.

    Args:
        features: unit queries ``(B, D)``.
        slots: of C classes.
        valid: 1 for slots that are filled and 0 for others, ``(C, S)`` or, where it depends on the query,
            ``(C, S, B)``; None where all are filled. Each class needs one filled slot.
        projection: of the same classes.
        sharpness: beta; 0 weighs all slots alike.
        scale: factor s of the cosine.
        channels: 1 for the channels that the classifier may use and 0 for others ``(D,)``, without scaling what is
            left to length 1; None uses all.

    Returns:
        Logits ``(B, C)``.
    """
    targets = features if channels is None else features * channels
    weights, answers, targets = _attend(features, targets, slots, valid, projection, sharpness)
    total = weights.sum(dim=1)  # (C, B), as everything from here on
    towards_target = (weights * answers).sum(dim=1) + total * (projection.value_bias @ targets.T)
    towards_value = _weigh(slots.value_value, weights)
    towards_output = _weigh(slots.value_output, weights) + total * _dot(projection.value_bias, projection.output_bias)
    squares = (weights * torch.bmm(slots.gram, weights)).sum(dim=1)
    squares = squares + total * (2 * towards_value + total * _dot(projection.value_bias, projection.value_bias))
    length = _positive_root(squares)
    square_of_sum = 1 + 2 * towards_output / length + _dot(projection.output_bias, projection.output_bias)
    cosine = (towards_target / length + projection.output_bias @ targets.T) / _lengths(square_of_sum)
    return scale * cosine.T


def _attend(
    features: Tensor,
    targets: Tensor,
    slots: Slots,
    valid: Tensor | None,
    projection: Projection,
    sharpness: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return weights of slots and products of slots with targets, both ``(C, S, B)``, and the targets ``(B, D)``."""
    projected = _project(features, projection.query_matrix)
    queries = projected + projection.query_bias
    asked, sought = _project_back(projected, projection.key_matrix), _project_back(targets, projection.value_matrix)
    products = _multiply(slots.features, asked)
    answers = products if sought is asked else _multiply(slots.features, sought)
    cosines = products + slots.key_query[..., None] + (projection.key_bias @ queries.T)[:, None]
    cosines = cosines / slots.key_norms[..., None] / queries.norm(dim=1)
    weights = ((cosines - 1) * sharpness).exp() / slots.value_norms[..., None]
    if valid is not None:
        weights = weights * (valid if valid.ndim == 3 else valid[..., None])
    return weights, answers, targets


def _multiply(slot_features: Tensor, vectors: Tensor) -> Tensor:
    """Return products of slots ``(C, S, D)`` with vectors ``(B, D)`` as ``(C, S, B)``, without copying the slots."""
    if slot_features.is_contiguous():
        return (slot_features.flatten(0, 1) @ vectors.T).view(*slot_features.shape[:2], len(vectors))
    return torch.bmm(slot_features, vectors.T.expand(len(slot_features), -1, -1))


def _weigh(terms: Tensor, weights: Tensor) -> Tensor:
    """Sum terms ``(C, S)`` under weights ``(C, S, B)``: ``(C, B)``."""
    return torch.bmm(terms[:, None], weights)[:, 0]


def _dot(left: Tensor, right: Tensor) -> Tensor:
    """Return the products of rows ``(C, D)`` as a column ``(C, 1)``."""
    return (left * right).sum(dim=1, keepdim=True)


def _positive_root(squares: Tensor) -> Tensor:
    return squares.clamp(min=torch.finfo(squares.dtype).tiny).sqrt()


def group_shots(features: Tensor, labels: Tensor, class_count: int) -> Tensor:
    """Group raw training features by class, in their order.

    Args:
        features: as the encoder gives them ``(N, A, D)``, view 0 plain.
        labels: int64 ``(N,)``, each class as often as the others.
        class_count: C.

    Returns:
        Unit features ``(C, N / C, A, D)``.
    """
    order = labels.sort(stable=True).indices
    return normalize(features[order].float(), dim=2).view(class_count, -1, *features.shape[1:])


def static_slots(text_features: Tensor, shots: Tensor) -> Tensor:
    """Return the static memory ``(C, 1 + K * A, D)``: text, then all views of shot after shot ``(C, K, A, D)``."""
    return torch.cat([text_features[:, None], shots.flatten(1, 2)], dim=1)


def fixed_slots(text_features: Tensor, shots: Tensor) -> Tensor:
    """Return what the dynamic memory always holds ``(C, 1 + K, D)``: text, then the plain view of each shot."""
    return torch.cat([text_features[:, None], shots[:, :, 0]], dim=1)


def text_logits(features: Tensor, text_features: Tensor, text_bias: Tensor | None, scale: float) -> Tensor:
    """Classify unit features ``(..., D)`` by unit texts ``(C, D)``, moved by a bias ``(C, D)`` where there is one."""
    classifier = text_features if text_bias is None else normalize(text_features + text_bias, dim=1)
    return scale * features @ classifier.T
