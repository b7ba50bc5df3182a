"""Which samples of a class to keep: greedy herding, a random choice, or the first ones.

Herding is the greedy rule of iCaRL (Rebuffi et al., CVPR 2017, algorithm 4), which MEMO uses as well: every
prefix of its order is the best greedy choice of that length, so a memory shrinks by cutting the tail of each
class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor

from mmcl.errors import UserError, nearest
from mmcl.memory.class_rows import class_rows, runs_of_classes
from mmcl.memory.herding_lucir import herd_lucir
from mmcl.randomness import permutation

NORM_EPSILON = 1e-8
TIE_TOLERANCE = 1e-12
GRAM_BYTES = 256 * 2**20


class Selector(Protocol):
    """Chooses at most ``count`` rows of each class.

    Gets features float32 ``(N, D)``, labels int64 ``(N,)`` and the count; returns int64 rows ``(R,)`` into
    both, by class ascending and best first inside a class. A class with fewer rows gives all of them.
    """

    def __call__(self, features: Tensor, labels: Tensor, count: int) -> Tensor:
        """Return the chosen rows."""


def unit_rows(features: Tensor) -> Tensor:
    """Divide each row ``(N, D)`` by its Euclidean norm plus 1e-8, in float32. A zero row stays zero."""
    features = features.float()
    norms: Tensor = torch.linalg.vector_norm(features, dim=1, keepdim=True)
    return features / (norms + NORM_EPSILON)


def herd(features: Tensor, count: int) -> Tensor:
    """Order the rows ``(N, D)`` of one class by greedy herding: int64 ``(min(count, N),)``.

    With v the unit rows and mu their mean, step k picks the remaining row with the least
    ``||mu - (v + S) / k||``, S being the sum of the rows picked before. The first of rows within 1e-12 wins.

    Raises:
        ValueError: features that are not finite.
    """
    return herd_classes(features, features.new_zeros(len(features), dtype=torch.int64), count)


def herd_classes(features: Tensor, labels: Tensor, count: int) -> Tensor:
    """Order every class of labels ``(N,)`` as :func:`herd` does, side by side: a :class:`Selector`.

    Raises:
        ValueError: features that are not finite.
    """
    if not torch.isfinite(features).all():
        raise ValueError("herding needs finite features; some are NaN or infinite")
    rows = unit_rows(features)
    groups = class_rows(labels.to(features.device))
    dim = rows.shape[1]
    chunks = runs_of_classes(groups, lambda longest: 8 * max(longest, dim), GRAM_BYTES)
    picked = [group[order] for chunk in chunks for group, order in _herd_chunk(rows, chunk, count)]
    return torch.cat(picked).to(labels.device) if picked else labels.new_empty(0)


def select_first(features: Tensor, labels: Tensor, count: int) -> Tensor:
    """Keep the first ``count`` rows of each class in data-set order: a :class:`Selector`."""
    return _each_class(labels, lambda group: group[:count])


def random_selector(*key_parts: int | str) -> Selector:
    """Return a :class:`Selector` that keeps random rows, keyed by the parts and the class."""

    def select_random(features: Tensor, labels: Tensor, count: int) -> Tensor:
        def choose(group: Tensor) -> Tensor:
            order = permutation(len(group), *key_parts, "select", int(labels[group[0]]))
            return group[order[:count].to(group.device)]

        return _each_class(labels, choose)

    return select_random


SELECTORS: dict[str, Callable[..., Selector]] = {
    "herding": lambda *key_parts: herd_classes,
    "herding_lucir": lambda *key_parts: herd_lucir,
    "random": random_selector,
    "first": lambda *key_parts: select_first,
}


def selector(name: str, *key_parts: int | str) -> Selector:
    """Return the selector that ``memory.select`` names; the parts, such as the seed, key a random one.

    Raises:
        UserError: an unknown name.
    """
    if name not in SELECTORS:
        known = ", ".join(SELECTORS)
        raise UserError(f"memory.select={name}: expected one of {known}.{nearest(name, SELECTORS)}")
    return SELECTORS[name](*key_parts)


def _each_class(labels: Tensor, choose: Callable[[Tensor], Tensor]) -> Tensor:
    chosen = [choose(group) for group in class_rows(labels)]
    return torch.cat(chosen) if chosen else labels.new_empty(0)


def _herd_chunk(rows: Tensor, groups: list[Tensor], count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Herd classes side by side, padded to the longest; yield each class's rows with the order among them."""
    longest = max(len(group) for group in groups)
    v = rows.new_zeros(len(groups), longest, rows.shape[1], dtype=torch.float64)
    cost = torch.full((len(groups), longest), torch.inf, dtype=torch.float64, device=rows.device)
    for place, group in enumerate(groups):
        v[place, : len(group)] = rows[group].double()
        cost[place, : len(group)] = 0.0
    sizes = torch.tensor([len(group) for group in groups], device=rows.device)
    order = _greedy_order(v, v.sum(1) / sizes[:, None], cost, min(count, longest))
    for place, group in enumerate(groups):
        yield group, order[place, : min(count, len(group))]


def _greedy_order(v: Tensor, mu: Tensor, cost: Tensor, steps: int) -> Tensor:
    """Pick ``steps`` rows of each class: v float64 ``(C, N, D)``, mu ``(C, D)`` -> int64 ``(C, steps)``.

    At step k, ``||mu - (v + S) / k||^2`` is, up to a factor and terms that all rows share,
    ``cost = |v|^2 - 2 v.(k mu - S)``. Going to the next step adds ``2 (v.v_picked - v.mu)``, so that no step
    looks at the features again. ``cost`` comes in as 0 for rows and infinity for padding, and is overwritten;
    the change gives infinity to the picked row, too.
    """
    twice_mean = 2 * torch.einsum("cnd,cd->cn", v, mu)
    change_after = _cost_changes(v, twice_mean)
    cost += v.square().sum(2) - twice_mean
    picks = cost.new_empty(steps, len(v), dtype=torch.int64)
    for pick in picks:
        near_minimum = cost <= cost.amin(1, keepdim=True).add_(TIE_TOLERANCE)
        torch.argmax(near_minimum.view(torch.uint8), 1, out=pick)
        cost += change_after(pick)
    return picks.T


def _cost_changes(v: Tensor, twice_mean: Tensor) -> Callable[[Tensor], Tensor]:
    """Return a function from picks ``(C,)`` to what they add to costs ``(C, N)``: infinity to themselves.

    The Gram matrix answers with one look-up per step; a class too large for one computes its line when asked.
    """
    classes, rows, _ = v.shape
    first_line = torch.arange(0, classes * rows, rows, device=v.device)

    def computed_lines(pick: Tensor) -> Tensor:
        picked = v.flatten(0, 1).index_select(0, first_line + pick)
        lines = 2 * torch.einsum("cnd,cd->cn", v, picked) - twice_mean
        return lines.scatter_(1, pick[:, None], torch.inf)

    if classes * rows**2 * 8 > GRAM_BYTES:
        return computed_lines
    changes = torch.baddbmm(twice_mean[:, None, :], v, v.transpose(1, 2), beta=-1, alpha=2)
    changes.diagonal(dim1=1, dim2=2).fill_(torch.inf)
    lines = changes.flatten(0, 1)
    return lambda pick: lines.index_select(0, first_line + pick)
