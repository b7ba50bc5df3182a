"""The Memory Head as a layer: in the place of ``nn.Linear``, several units of weights and the keys to them.

Tiezzi, Becattini, Marullo, Melacci, "Memory Head for Pre-Trained Backbones in Continual Learning", CoLLAs 2024.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmcl.errors import UserError
from mmcl.methods.memory_head import matching, upkeep
from mmcl.methods.memory_head.blending import blend, blended_units, standardise
from mmcl.methods.memory_head.checks import (
    check_head,
    is_finite,
    known_key_rule,
    known_unit_rule,
    refuse_experimental,
    refuse_not_finite,
    refuse_other_state,
)


@dataclass
class Remembered:
    """What forward passes leave for the update; None before the first.

    Attributes:
        queries: X of the latest in training mode ``(b, d)``.
        best: its best responses, the first of R ``(b, q)``.
        chosen: I of the latest in any mode ``(b, q, k)``.
        wins: 1 at the first of I ``(b, q, m)``, 0 elsewhere.
    """

    queries: Tensor | None = None
    best: Tensor | None = None
    chosen: Tensor | None = None
    wins: Tensor | None = None

    def to(self, device: torch.device) -> None:
        """Move what is there."""
        for name, values in list(vars(self).items()):
            if values is not None:
                setattr(self, name, values.to(device))


class MHLinear(nn.Module):
    """Linear classifier whose weights are blended from memory units that the input chooses by their keys.

    Inputs ``(b, in)`` (or images, where psi resizes them) give outputs ``(b, out)``, float32 also under autocast. After
    each backward pass and before the optimiser's step, call :meth:`update`. Arguments and defaults are those of the
    released code; the last three are ours, and off. A head has q banks of m keys and units: one bank for all outputs,
    or one for each.

    Args:
        in_features: size of inputs.
        out_features: number of outputs.
        bias: whether outputs have one.
        device: where the head lies.
        shared_keys: one bank for all outputs; False gives each output its own.
        key_mem_units: m.
        psi_fn: how inputs become queries, one of ``matching.QUERIES``.
        key_size: d; None is ``in_features``. Other sizes need a psi that resizes, or queries of their own.
        layer_norm: standardise inputs, with a gain and a shift from the memory.
        delta: units that an input chooses; more than m means all.
        gamma_alpha: sharpness of their attention; 0 blends all chosen alike.
        tau_alpha: a response below this is a bad match, for which a weak key is given away.
        tau_mu: a key that won fewer times than this is little used.
        tau_eta: a key that did not win for so many samples is old; little used and old is weak.
        upd_m: "WTA": only the best unit gets a gradient; None or "vanilla": all chosen.
        upd_k: "ad_hoc_WTA": keys follow their queries in :meth:`update`; "grad_WTA": they have a gradient through the
            best unit's attention; None or "grad_not_WTA": through all.
        beta_k: step of "ad_hoc_WTA"; 0 keeps the keys.
        scramble: whether weak keys are given away.
        random_memories: give their units new random values instead of a copy of the winner's.
        key_input: match what :meth:`set_input_for_keys` was given instead of the inputs.
        detach_gradients: no gradient into the inputs through the matching. Has no effect under the cosine unless
            upd_k is "ad_hoc_WTA": those keys and inputs always have one.
        distance: "cosine", "euclidean" or "dot_scaled"; see :func:`matching.responses`.
        sigma_eu: temperature of "euclidean".
        cosine_scale: False takes the plain cosine as response, so that tau_alpha is a cosine; published are cosines
            divided by sqrt(d), which only the softmax needs.
        layer_norm_by: "variance": divide by it, as published; "deviation": by its root.
        sparse_gradients: where few of many large units are chosen, the gradient of M is a sparse tensor of their rows,
            which plain ``SGD`` and :class:`~mmcl.methods.memory_head.row_adam.RowAdam` take. No effect with layer_norm.
        **experimental: identities of units, published without a command that uses them; refused.

    Attributes:
        K: keys ``(q, m, d)``; a parameter if upd_k needs their gradient, else a buffer.
        M: units ``(q, m, u)``; row-major (out, in + 1) with shared keys, in + 1 without, the bias last; then, with
            layer_norm, gain and shift (in each).
        mu: with scramble, how often a key won since it was given away ``(q, m)``.
        eta: with scramble, samples since a key won ``(q, m)``.
        key_counter: with scramble, how often a key won in any forward pass ``(q, m)``, evaluation included.
        scrambling_count: with scramble, keys given away ``(q,)``, int64.

    Raises:
        UserError: spellings, sizes or combinations that do not exist.
    """

    mu: Tensor
    eta: Tensor
    key_counter: Tensor
    scrambling_count: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        shared_keys: bool = True,
        key_mem_units: int = 2,
        psi_fn: str = "identity",
        key_size: int | None = None,
        layer_norm: bool = False,
        delta: int = 3,
        gamma_alpha: float = 0.1,
        tau_alpha: float = 0.5,
        tau_mu: float = 100,
        tau_eta: float = 100,
        upd_m: str | None = None,
        upd_k: str | None = None,
        beta_k: float | None = 0.001,
        scramble: bool = False,
        random_memories: bool = False,
        key_input: bool = False,
        detach_gradients: bool = True,
        distance: str = "cosine",
        sigma_eu: float = 1.0,
        cosine_scale: bool = True,
        layer_norm_by: str = "variance",
        sparse_gradients: bool = False,
        **experimental: object,
    ) -> None:
        super().__init__()
        refuse_experimental(experimental)
        self.in_features, self.out_features, self.bias = in_features, out_features, bias
        self.shared_keys, self.key_mem_units, self.delta = shared_keys, key_mem_units, min(delta, key_mem_units)
        self.psi_fn, self.key_size = psi_fn, in_features if key_size is None else key_size
        self.layer_norm, self.layer_norm_by = layer_norm, layer_norm_by
        self.gamma_alpha, self.tau_alpha, self.tau_mu, self.tau_eta = gamma_alpha, tau_alpha, tau_mu, tau_eta
        self.upd_m = known_unit_rule(upd_m)
        self.upd_k = known_key_rule(upd_k)
        self.beta_k, self.scramble, self.random_memories = beta_k, scramble, random_memories
        self.key_input, self.detach_gradients = key_input, detach_gradients
        self.distance, self.sigma_eu, self.cosine_scale = distance, sigma_eu, cosine_scale
        self.sparse_gradients = sparse_gradients
        check_head(self)
        self.banks = 1 if shared_keys else out_features
        self.weights_of_unit = (out_features if shared_keys else 1) * (in_features + bias)
        self.remembered = Remembered()  # an object of its own, as a module is slow to take tensors
        self._input_for_keys: Tensor | None = None
        self._create(device)

    def _create(self, device: torch.device | str | None) -> None:
        """Create keys, units and counters; K is drawn before M."""
        keys = self._uniform(self.key_size)
        if self.distance == "cosine":
            keys = matching.unit(keys)
        if self.upd_k == "ad_hoc_WTA":
            self.register_buffer("K", keys)
        else:
            self.K = nn.Parameter(keys)
        units = self._uniform(self.weights_of_unit + 2 * self.in_features * self.layer_norm)
        if self.layer_norm:
            units[..., self.weights_of_unit :] = torch.tensor([1.0, 0.0]).repeat_interleave(self.in_features)
        self.M = nn.Parameter(units)
        if self.scramble:
            counts = torch.zeros(self.banks, self.key_mem_units)
            self.register_buffer("mu", counts)
            self.register_buffer("eta", counts + self.tau_eta)
            self.register_buffer("key_counter", counts.clone())
            self.register_buffer("scrambling_count", torch.zeros(self.banks, dtype=torch.int64))
        self.to(device)

    def _uniform(self, size: int, units: int | None = None) -> Tensor:
        bound = 1 / math.sqrt(size)
        return torch.empty(self.banks, units or self.key_mem_units, size).uniform_(-bound, bound)

    # ------------------------------------------------------------------ forward

    @property
    def chosen(self) -> Tensor | None:
        """I, the units that the latest forward pass chose, best first, int64 ``(b, q, k)``; None before."""
        return self.remembered.chosen

    def __getstate__(self) -> dict[str, Any]:
        """Leave the input for keys behind: its graph belongs to one forward pass and cannot be copied."""
        return {**self.__dict__, "_input_for_keys": None}

    def set_input_for_keys(self, inputs: Tensor) -> None:
        """Say what the next forward passes match with the keys, ``(b, ...)``; for ``key_input=True``."""
        self._input_for_keys = inputs

    def forward(self, inputs: Tensor) -> Tensor:
        """Classify inputs ``(b, in)``: outputs ``(b, out)``.

        Raises:
            UserError: inputs of another size, or with NaN or infinite values.
        """
        if torch.is_autocast_enabled(inputs.device.type):  # responses, keys and counters stay in float32
            with torch.autocast(inputs.device.type, enabled=False):
                return self._forward(inputs)
        return self._forward(inputs)

    def _forward(self, inputs: Tensor) -> Tensor:
        if inputs.dtype != self.M.dtype:
            inputs = inputs.to(self.M.dtype)
        flat = inputs if inputs.ndim == 2 else inputs.flatten(1)
        if flat.shape[1] != self.in_features:
            raise UserError(
                f"this Memory Head takes inputs of size {self.in_features}, not {flat.shape[1]}; "
                f"type in_features={flat.shape[1]}"
            )
        queries, matches = self._match(inputs)
        best, chosen = matching.best(matches, self.delta)
        wins = matching.place(1, chosen[:, :, :1], matches)
        outputs = self._blend(flat, self._attend(best), chosen, wins)
        if not is_finite(outputs) or (self.key_input and not is_finite(queries)):
            refuse_not_finite(inputs=flat, queries=queries, responses=best, outputs=outputs)
        if self.scramble:
            self.key_counter.add_(wins.sum(dim=0))
        remembered = self.remembered
        remembered.chosen, remembered.wins = chosen, wins
        if self.training:
            remembered.queries, remembered.best = queries.detach(), best.detach()[:, :, 0]
        return outputs

    def _match(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return the queries X ``(b, d)`` and their responses to all keys ``(b, q, m)``."""
        matched = inputs
        if self.key_input:
            if self._input_for_keys is None:
                raise UserError("key_input=True: call set_input_for_keys before the forward pass")
            matched = self._input_for_keys.to(inputs.dtype)
        if self.distance == "cosine" and self.upd_k != "ad_hoc_WTA":
            self.K.data.copy_(matching.unit(self.K.data))
        elif self.detach_gradients:
            matched = matched.detach()
        queries = matching.query(matched, self.psi_fn, self.key_size, self.distance == "cosine")
        return queries, self._respond(queries)

    def _respond(self, queries: Tensor) -> Tensor:
        return matching.responses(queries, self.K, self.distance, self.sigma_eu, self.cosine_scale)

    def _attend(self, best: Tensor) -> Tensor:
        """Return the attention A ``(b, q, k)``; under grad_WTA only the best unit's has a gradient."""
        if self.delta == 1 and not best.requires_grad:
            return torch.ones_like(best)
        gamma = self.gamma_alpha
        if self.distance == "cosine" and not self.cosine_scale:
            gamma /= math.sqrt(self.key_size)
        shares = matching.attention(best, gamma)
        if self.upd_m == "WTA" and self.upd_k == "grad_WTA":
            shares = torch.cat([shares[:, :, :1], shares[:, :, 1:].detach()], dim=2)
        return shares

    def _blend(self, flat: Tensor, shares: Tensor, chosen: Tensor, wins: Tensor) -> Tensor:
        wta = self.upd_m == "WTA"
        if not self.layer_norm:
            return blend(flat, self.M, shares, chosen, wins, self.bias, wta, self.sparse_gradients)
        standardised = standardise(flat, self.layer_norm_by)
        if self.shared_keys:
            scales = blended_units(self.M[..., self.weights_of_unit :], shares, chosen, wins, wta)
            gain, shift = torch.split(scales[:, 0], self.in_features, dim=1)
            weights = self.M[..., : self.weights_of_unit]
            return blend(gain * (standardised + shift), weights, shares, chosen, wins, self.bias, wta)
        sizes = [self.in_features, int(self.bias), self.in_features, self.in_features]
        own = blended_units(self.M, shares, chosen, wins, wta)
        weight, bias, gain, shift = torch.split(own, sizes, dim=2)
        return torch.sum(weight * gain * (standardised[:, None] + shift), dim=2) + bias.sum(dim=2)

    # ------------------------------------------------------------------ update

    def update(self, gather: Callable[[Tensor], Tensor] | None = None, counted: Tensor | None = None) -> None:
        """Scramble, move the keys and count their use; once after each backward pass, before the optimiser's step.

        Looks at the queries and responses of the latest forward pass in training mode and at the winners of the latest
        in any mode, as published: in evaluation mode, an update repeats the last training batch with new winners.

        Args:
            gather: on several processes, brings a tensor ``(b, n)`` of this process to the rows of all processes in
                the order of the global batch; rows of zeros, which fill up the batch of a process, do not count. Keys,
                counters and given away units are then the same everywhere; ``key_counter`` only as far as forward
                passes were followed by an update.
            counted: which of this process's samples count, bool ``(b,)``; None counts all. A process that has no
                sample of a batch marks its placeholder so.

        Raises:
            RuntimeError: there was no forward pass in training mode, or a later one had another number of samples.
        """
        remembered = self.remembered  # of which nothing has a gradient, nor has what is changed below
        queries, best, chosen, wins = remembered.queries, remembered.best, remembered.chosen, remembered.wins
        if queries is None or best is None or chosen is None or wins is None:
            raise RuntimeError("MHLinear.update() needs a forward pass in training mode before it")
        winners = chosen[:, :, 0]
        if len(queries) != len(winners):
            raise RuntimeError(
                f"MHLinear.update(): the last training batch had {len(queries)} samples, the last forward pass "
                f"{len(winners)}"
            )
        if gather is not None or counted is not None:
            queries, best, winners = upkeep.of_all_processes(queries, best, winners, gather, counted)
            before, wins = wins, self._wins_of(winners, queries)
            if self.scramble:  # what this process counted in the forward pass makes room for what all of them won
                self.key_counter.add_(wins.sum(dim=0) - before.sum(dim=0))
        if not len(queries):
            return
        if self.scramble:
            self._scramble(queries, best, winners, gather)
        if self.upd_k == "ad_hoc_WTA":
            assert self.beta_k is not None
            upkeep.move_keys(self.K, queries, best, wins, self.beta_k, self.distance, self.sigma_eu)
            if self.scramble and len(queries) > 1:  # the winners that count are those of the moved keys
                wins = self._wins_of(self._respond(queries).argmax(dim=2), queries)
        if self.scramble:
            upkeep.count_use(self.mu, self.eta, wins.sum(dim=0), len(queries))

    def _wins_of(self, winners: Tensor, like: Tensor) -> Tensor:
        """Return 1 at the winners ``(b, q)`` and 0 elsewhere ``(b, q, m)``."""
        return matching.place(1, winners[:, :, None], like.new_empty(*winners.shape, self.key_mem_units))

    def _scramble(
        self, queries: Tensor, best: Tensor, winners: Tensor, gather: Callable[[Tensor], Tensor] | None
    ) -> None:
        thresholds = self.tau_alpha, self.tau_mu, self.tau_eta
        replaced = upkeep.replacements(best, self.mu, self.eta, *thresholds)
        fresh = (lambda: self._fresh_units(gather)) if self.random_memories else None
        upkeep.scramble(self.K.data, self.M.data, self.mu, queries, winners, replaced, fresh)
        for place in replaced:
            self.scrambling_count[place.bank] += 1

    def _fresh_units(self, gather: Callable[[Tensor], Tensor] | None) -> Tensor:
        """Draw one unit for each bank ``(q, 1, u)``; on several processes, all take what the first one drew."""
        units = self._uniform(self.M.shape[2], units=1).to(self.M)
        if gather is None:
            return units
        assert self.chosen is not None
        return gather(units.flatten()[None].expand(len(self.chosen), -1))[0].view_as(units)

    # ------------------------------------------------------------------ state

    def get_extra_state(self) -> dict[str, float | bool | None]:
        """Return what a run may change beside the tensors: ``beta_k`` and ``scramble``."""
        return {"beta_k": self.beta_k, "scramble": self.scramble}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take what :meth:`get_extra_state` gave."""
        self.beta_k, self.scramble = state["beta_k"], state["scramble"]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Load; a state without ``beta_k`` and ``scramble``, such as one of the released code, leaves them.

        Raises:
            UserError: the state is of a head of another size or kind.
        """
        refuse_other_state(dict(self.named_parameters()) | dict(self.named_buffers()), state_dict, prefix)
        state_dict = {f"{prefix}_extra_state": self.get_extra_state(), **state_dict}
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def extra_repr(self) -> str:
        """Name what matters at a glance."""
        return (
            f"{self.in_features}, {self.out_features}, key_mem_units={self.key_mem_units}, delta={self.delta}, "
            f"distance={self.distance}, upd_m={self.upd_m}, upd_k={self.upd_k}, scramble={self.scramble}"
        )
