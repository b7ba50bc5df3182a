"""The output of a Memory Head: chosen units, blended by attention, applied to the input.

By definition each sample has weights of its own, ``W = sum_r A_r M[I_r]`` and ``o = W x``. :func:`blend` does not build
them: the units are applied first, ``z_r = M[I_r] x``, and the results are blended. Forward and backward are then
products of matrices of inputs and units, either with all units at once or, where few of many large units are chosen,
unit by unit. Shapes: b samples of ``in`` numbers, q banks of m units, k chosen; a unit serves p outputs (all of them,
or one where outputs have banks of their own) with n numbers each (``in``, and 1 for the bias), so that u = p * n.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear, pad

from mmcl.methods.memory_head.matching import place

# One group of samples costs about as much as so many multiplications inside a large product (forward and backward,
# measured on one core).
GROUP_COST = 1_000_000


# ------------------------------------------------------------------ all units at once


def _blend_at_once(inputs: Tensor, units: Tensor, shares: Tensor, chosen: Tensor, wins: Tensor, wta: bool) -> Tensor:
    """Apply all units ``(q, m, p * n)`` to inputs ``(b, n)`` and blend: ``(b, q * p)``."""
    samples, banks, count = wins.shape
    rows = units.reshape(-1, inputs.shape[1])
    applied = linear(inputs, rows).view(samples * banks, count, -1)
    alone = chosen.shape[2] == 1
    placed = wins if alone and not shares.requires_grad else place(shares, chosen, wins)  # the share of one is 1
    if alone or not wta:
        return torch.bmm(placed.view(-1, 1, count), applied).view(samples, -1)
    first = placed * wins
    others = linear(inputs, rows.detach()).view_as(applied) if inputs.requires_grad else applied.detach()
    blended = torch.bmm(first.view(-1, 1, count), applied)
    return blended.baddbmm((placed - first).view(-1, 1, count), others).view(samples, -1)


# ------------------------------------------------------------------ unit by unit


class Groups(NamedTuple):
    """The choices of a batch sorted by unit; of one bank.

    Attributes:
        order: positions in the flattened choices ``(b * k,)``, sorted by unit.
        samples: the sample of each, in that order.
        units: those that were chosen.
        parts: the stretch of ``order`` of each of them.
    """

    order: Tensor
    samples: Tensor
    units: list[int]
    parts: list[slice]

    def sort(self, rows: Tensor) -> Tensor:
        """Bring rows of choices ``(b, 1, k, n)`` into the order of their units: ``(b * k, n)``."""
        return rows.flatten(0, 2)[self.order]

    def restore(self, rows: Tensor) -> Tensor:
        """Bring rows ``(b * k, n)`` back into the order of the choices."""
        return torch.empty_like(rows).index_copy_(0, self.order, rows)


def group_choices(chosen: Tensor) -> Groups:
    """Sort choices ``(b, 1, k)`` by unit."""
    sorted_units, order = chosen.flatten().sort(stable=True)
    units, counts = torch.unique_consecutive(sorted_units, return_counts=True)
    ends = list(accumulate(counts.tolist()))
    parts = [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]
    return Groups(order, order.div(chosen.shape[2], rounding_mode="floor"), units.tolist(), parts)


def grouping_pays(samples: int, units: Tensor, chosen: int) -> bool:
    """Tell whether the chosen units one by one are less work than all units ``(q, m, u)`` at once."""
    if samples * units.numel() < GROUP_COST:
        return False
    banks, count, size = units.shape
    if units.device.type != "cpu" or banks > 1:
        return False
    return samples * (count - chosen) * size > min(samples * chosen, count) * GROUP_COST


def _grouped_outputs(inputs: Tensor, matrices: Tensor, groups: Groups) -> Tensor:
    """Apply to inputs ``(b, n)`` the units that they chose, of ``(m, p, n)``: ``(b * k, p)``."""
    rows = inputs[groups.samples]
    results = inputs.new_empty(len(rows), matrices.shape[1])
    for unit, part in zip(groups.units, groups.parts, strict=True):
        torch.mm(rows[part], matrices[unit].T, out=results[part])
    return groups.restore(results)


def _grouped_input_gradient(signals: Tensor, matrices: Tensor, groups: Groups) -> Tensor:
    """Send signals ``(b, 1, k, p)`` back through the chosen units: ``(b, n)``."""
    rows = groups.sort(signals)
    results = signals.new_empty(len(rows), matrices.shape[2])
    for unit, part in zip(groups.units, groups.parts, strict=True):
        torch.mm(rows[part], matrices[unit], out=results[part])
    return groups.restore(results).view(len(signals), -1, matrices.shape[2]).sum(dim=1)


def _grouped_unit_gradients(inputs: Tensor, signals: Tensor, groups: Groups, results: Iterable[Tensor]) -> None:
    """Write the gradient of each chosen unit ``(p, n)`` to its result."""
    rows, sent = inputs[groups.samples], groups.sort(signals)
    for result, part in zip(results, groups.parts, strict=True):
        torch.mm(sent[part].T, rows[part], out=result)


class _BlendByUnit(torch.autograd.Function):
    """The products above as one node: inputs ``(b, n)`` and units ``(1, m, p * n)`` to ``(b, p)``."""

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, units: Tensor, shares: Tensor, chosen: Tensor, wta: bool, sparse: bool
    ) -> Tensor:
        groups = group_choices(chosen)
        outputs = _grouped_outputs(inputs, _matrices(units, inputs), groups).view(*chosen.shape, -1)
        ctx.save_for_backward(inputs, units, shares, chosen, outputs if ctx.needs_input_grad[2] else None)
        ctx.groups, ctx.wta, ctx.sparse = groups, wta, sparse
        return (shares[..., None] * outputs).sum(dim=2)[:, 0]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        inputs, units, shares, chosen, outputs = ctx.saved_tensors
        incoming, groups = gradients[0][:, None, None], ctx.groups
        signals = shares[..., None] * incoming
        of_inputs = of_units = of_shares = None
        if ctx.needs_input_grad[0]:
            of_inputs = _grouped_input_gradient(signals, _matrices(units, inputs), groups)
        if ctx.needs_input_grad[1]:
            if ctx.wta and chosen.shape[2] > 1:
                signals, groups = signals[:, :, :1], group_choices(chosen[:, :, :1])
            of_units = (_sparse_gradient if ctx.sparse else _dense_gradient)(inputs, signals, units, groups)
        if ctx.needs_input_grad[2]:
            of_shares = (outputs * incoming).sum(dim=3)
        return of_inputs, of_units, of_shares, None, None, None


def _matrices(units: Tensor, inputs: Tensor) -> Tensor:
    """View units ``(1, m, p * n)`` as matrices ``(m, p, n)``."""
    return units.view(units.shape[1], -1, inputs.shape[1])


def _dense_gradient(inputs: Tensor, signals: Tensor, units: Tensor, groups: Groups) -> Tensor:
    gradient = torch.zeros_like(units)
    matrices = _matrices(gradient, inputs)
    _grouped_unit_gradients(inputs, signals, groups, [matrices[unit] for unit in groups.units])
    return gradient


def _sparse_gradient(inputs: Tensor, signals: Tensor, units: Tensor, groups: Groups) -> Tensor:
    rows = units.new_empty(len(groups.units), units.shape[2])
    _grouped_unit_gradients(inputs, signals, groups, rows.view(len(rows), -1, inputs.shape[1]))
    places = torch.tensor([[0] * len(rows), groups.units])
    return torch.sparse_coo_tensor(places, rows, units.shape, is_coalesced=True, check_invariants=False)


def blend(
    inputs: Tensor,
    units: Tensor,
    shares: Tensor,
    chosen: Tensor,
    wins: Tensor,
    bias: bool,
    wta: bool,
    sparse: bool = False,
) -> Tensor:
    """Apply to each input the chosen units, blended by their shares.

    Args:
        inputs: x ``(b, in)``.
        units: M ``(q, m, u)`` with u = p * in, or p * (in + 1) with a bias as last column.
        shares: A ``(b, q, k)``, which add up to 1.
        chosen: I int64 ``(b, q, k)``, best first.
        wins: 1 at the best unit ``(b, q, m)``, 0 elsewhere.
        bias: whether there is a last column.
        wta: only the best unit gets a gradient; all pass it on to inputs and shares.
        sparse: the gradient of the units is a sparse tensor where they are applied one by one.

    Returns:
        ``(b, q * p)``.
    """
    extended = pad(inputs, (0, 1), value=1.0) if bias else inputs
    if not grouping_pays(len(inputs), units, chosen.shape[2]):
        return _blend_at_once(extended, units, shares, chosen, wins, wta)
    result: Tensor = _BlendByUnit.apply(extended, units, shares, chosen, wta, sparse)  # type: ignore[no-untyped-call]
    return result


def blended_units(units: Tensor, shares: Tensor, chosen: Tensor, wins: Tensor, wta: bool) -> Tensor:
    """Return W, each sample's blend of whole units ``(b, q, u)``; the arguments are those of :func:`blend`."""
    first = _blended(units, shares[:, :, :1], chosen[:, :, :1], wins)
    if chosen.shape[2] == 1:
        return first
    return first + _blended(units.detach() if wta else units, shares[:, :, 1:], chosen[:, :, 1:], wins)


def _blended(units: Tensor, shares: Tensor, chosen: Tensor, wins: Tensor) -> Tensor:
    return torch.bmm(place(shares, chosen, wins).transpose(0, 1), units).transpose(0, 1)


def standardise(inputs: Tensor, by: str) -> Tensor:
    """Subtract from inputs ``(b, n)`` their mean and divide by their unbiased variance (published) or its root."""
    variance, mean = torch.var_mean(inputs, dim=1, keepdim=True)
    spread = variance + 1e-5
    return (inputs - mean) / (spread if by == "variance" else spread.sqrt())
