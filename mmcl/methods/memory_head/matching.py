"""How a Memory Head finds its units: a query, its responses to the keys, attention over the best of them.

Tiezzi et al., "Memory Head for Pre-Trained Backbones in Continual Learning", CoLLAs 2024. Pure functions; b samples,
q banks of m keys of size d, of which each sample chooses k.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.linalg import vector_norm
from torch.nn.functional import interpolate, linear

from mmcl.errors import UserError, nearest

DISTANCES = ("cosine", "euclidean", "dot_scaled")


# ------------------------------------------------------------------ queries


def _identity(inputs: Tensor, key_size: int) -> Tensor:
    return inputs if inputs.ndim == 2 else inputs.flatten(1)


def _sign(inputs: Tensor, key_size: int) -> Tensor:
    return inputs.flatten(1).sign()


def _resize1d(inputs: Tensor, key_size: int) -> Tensor:
    flat = inputs.flatten(1)
    if flat.shape[1] == key_size:
        return flat
    return interpolate(flat[:, None], size=key_size, mode="linear", align_corners=False)[:, 0]


def _resize2d(inputs: Tensor, key_size: int) -> Tensor:
    """Resize images to about ``key_size`` numbers with their aspect ratio, and fill up with zeros."""
    if inputs.ndim != 4:
        raise UserError(f"psi_fn=resize2d needs images (B, C, H, W), not {tuple(inputs.shape)}; type psi_fn=resize1d")
    _, channels, height, width = inputs.shape
    area = key_size // channels
    new_width = max(1, round(math.sqrt(area / (width * height)) * width))
    new_height = area // new_width
    if new_height < 1:
        raise UserError(f"key_size={key_size} is too small for images {tuple(inputs.shape[1:])} under psi_fn=resize2d")
    small = interpolate(inputs, size=(new_height, new_width), mode="bilinear", align_corners=False).flatten(1)
    missing = key_size - small.shape[1] if new_height * new_width < area else 0
    return torch.cat([small, small.new_zeros(len(small), missing)], dim=1) if missing else small


def _resize2d_sign(inputs: Tensor, key_size: int) -> Tensor:
    return _resize2d(inputs, key_size).sign()


QUERIES: dict[str, Callable[[Tensor, int], Tensor]] = {
    "identity": _identity,
    "sign": _sign,
    "resize1d": _resize1d,
    "resize2d": _resize2d,
    "resize2d_sign": _resize2d_sign,
}


def query(inputs: Tensor, psi: str, key_size: int, unit_length: bool) -> Tensor:
    """Turn inputs ``(b, ...)`` into queries ``(b, d)``: the function psi of the paper.

    Args:
        inputs: what the head is given.
        psi: one of ``QUERIES``.
        key_size: d.
        unit_length: scale to length 1, as under the cosine.

    Raises:
        UserError: the result has another size than the keys.
    """
    vectors = QUERIES[psi](inputs, key_size)
    if vectors.shape[1] != key_size:
        raise UserError(
            f"psi_fn={psi} turns inputs {tuple(inputs.shape[1:])} into {vectors.shape[1]} numbers, but key_size is "
            f"{key_size}; type key_size={vectors.shape[1]} or psi_fn=resize1d"
        )
    return unit(vectors) if unit_length else vectors


def unit(vectors: Tensor) -> Tensor:
    """Scale the last dimension to length 1; vectors shorter than 1e-12 are divided by that."""
    lengths: Tensor = vector_norm(vectors, dim=-1, keepdim=True)
    return vectors / lengths.clamp(min=1e-12)


def with_unit_ids(inputs: Tensor, ids: Tensor, chosen: Tensor, mode: str) -> Tensor:
    """Append to inputs which units a head before this one chose, for ``MHLinear.set_input_for_keys``.

    Args:
        inputs: ``(b, n)``.
        ids: one row for each unit of that head ``(m, s)``.
        chosen: that head's units, best first, int64 ``(b, 1, k)``.
        mode: ``top1``: the id of the winner ``(s)``; ``topk``: the ids of all chosen, in their order ``(k * s)``;
            ``topk_binary``: the sum of their ids ``(s)``.

    Returns:
        ``(b, n + s)``, or ``(b, n + k * s)`` under ``topk``.

    Raises:
        UserError: another mode.
    """
    modes = {
        "top1": lambda rows: rows[:, 0],
        "topk": lambda rows: rows.flatten(1),
        "topk_binary": lambda rows: rows.sum(dim=1),
    }
    if mode not in modes:
        raise UserError(f"mode={mode}: expected {', '.join(modes)}.{nearest(mode, modes)}")
    return torch.cat([inputs, modes[mode](ids[chosen[:, 0]])], dim=1)


# ------------------------------------------------------------------ responses and attention


def responses(queries: Tensor, keys: Tensor, distance: str, sigma: float, cosine_scale: bool) -> Tensor:
    """Return how well each query matches each key; larger is better.

    Args:
        queries: X ``(b, d)``; of length 1 under the cosine, as the keys are.
        keys: K ``(q, m, d)``.
        distance: ``cosine`` and ``dot_scaled`` are x . k / sqrt(d), ``euclidean`` is
            exp(-|x - k|^2 / (sqrt(d) sigma)), in (0, 1].
        sigma: temperature of ``euclidean``.
        cosine_scale: False leaves the cosine as it is, in [-1, 1].

    Returns:
        ``(b, q, m)``.
    """
    banks, units, size = keys.shape
    rows = keys.flatten(0, 1)
    if distance == "euclidean":
        matches = torch.cdist(queries, rows).square().mul_(-1 / (math.sqrt(size) * sigma)).exp_()
    else:
        matches = linear(queries, rows)
        if distance != "cosine" or cosine_scale:
            matches = matches / math.sqrt(size)
    return matches.view(-1, banks, units)


def best(matches: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the ``count`` largest responses R and their keys I, best first: both ``(b, q, k)``, I int64."""
    values, indices = matches.topk(count, dim=2)
    return values, indices


def attention(best_matches: Tensor, gamma: float) -> Tensor:
    """Return A, the softmax of ``gamma * R`` over the chosen keys alone ``(b, q, k)``."""
    return (gamma * best_matches).softmax(dim=2)


def place(values: Tensor | float, chosen: Tensor, like: Tensor) -> Tensor:
    """Put values, one number or ``(b, q, k)``, at the chosen of m keys: as ``like`` ``(b, q, m)``, 0 elsewhere."""
    return torch.zeros_like(like).scatter_(2, chosen, values)
