"""What a Memory Head does to itself after a backward pass: scramble, move the keys, count their use. In this order.

Tiezzi et al., CoLLAs 2024, in the order of the released code, which looks at the winners of the forward pass. (The
paper's algorithm refreshes them after scrambling.) Pure functions that change their arguments in place. Shapes: b
samples, q banks of m keys K ``(q, m, d)`` and units M ``(q, m, u)``; usage mu and age eta ``(q, m)``; queries X
``(b, d)`` and their best responses R ``(b, q)``; wins ``(b, q, m)``, from :func:`matching.wins`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.linalg import vector_norm


class Replacement(NamedTuple):
    """A key to give away: key ``key`` of bank ``bank`` goes to sample ``sample``."""

    bank: int
    key: int
    sample: int


def replacements(
    best: Tensor, mu: Tensor, eta: Tensor, tau_alpha: float, tau_mu: float, tau_eta: float
) -> list[Replacement]:
    """Choose at most one key of each bank to give away.

    A bank gives a key away if its worst matched sample responds with less than ``tau_alpha`` and it has a weak key,
    which is little used, ``mu < tau_mu``, and old, ``eta >= tau_eta``.

    Args:
        best: R.
        mu: usage.
        eta: age.
        tau_alpha: 0 gives nothing away under ``euclidean``.
        tau_mu: 0 makes no key weak.
        tau_eta: 0 makes all keys old.

    Returns:
        For each such bank its oldest weak key (the first of equals) and its worst matched sample.
    """
    if best.min().item() >= tau_alpha or eta.max().item() < tau_eta:  # nearly always one of them, and cheap to see
        return []
    worst, samples = best.min(dim=0)
    ages, keys = eta.masked_fill(mu >= tau_mu, -math.inf).max(dim=1)  # the oldest that are little used
    places = enumerate(zip(worst.tolist(), ages.tolist(), keys.tolist(), samples.tolist(), strict=True))
    return [
        Replacement(bank, key, sample)
        for bank, (response, age, key, sample) in places
        if response < tau_alpha and age >= tau_eta
    ]


def scramble(
    keys: Tensor,
    units: Tensor,
    mu: Tensor,
    queries: Tensor,
    winners: Tensor,
    replaced: list[Replacement],
    fresh: Callable[[], Tensor] | None = None,
) -> None:
    """Give keys and units away: K of the weak key becomes the query, M a copy of the winner's unit, mu becomes 0.

    Args:
        keys: K.
        units: M.
        mu: usage; the age stays as it is.
        queries: X.
        winners: best key of each sample ``(b, q)``, int64.
        replaced: from :func:`replacements`.
        fresh: draws new units ``(q, 1, u)`` instead of copies; called once, and only if a key is given away.
    """
    drawn = fresh() if fresh is not None and replaced else None
    for bank, key, sample in replaced:
        keys[bank, key].copy_(queries[sample])
        units[bank, key].copy_(units[bank, int(winners[sample, bank])] if drawn is None else drawn[bank, 0])
        mu[bank, key] = 0


def move_keys(
    keys: Tensor, queries: Tensor, best: Tensor, wins: Tensor, beta: float, distance: str, sigma: float
) -> None:
    """Move each winning key towards the queries that it won, as online k-means does.

    K += beta X under the cosine, beta / sqrt(d) X under ``dot_scaled``, and beta / (sqrt(d) sigma) R (X - K) under
    ``euclidean``. Queries that share a winner add up, all with the keys as they were. Under the cosine the keys are
    brought back to length 1: the winner alone if there is one query, else all.

    Args:
        keys: K.
        queries: X.
        best: R of the forward pass.
        wins: which key each query won.
        beta: size of the step.
        distance: as in :func:`matching.responses`.
        sigma: likewise.
    """
    root = math.sqrt(keys.shape[2])
    step = {"cosine": beta, "dot_scaled": beta / root, "euclidean": beta / (root * sigma)}[distance]
    rows = keys.flatten(0, 1)
    if distance == "euclidean":
        pulls = (wins * (step * best[:, :, None])).flatten(1)
        if len(queries) == 1:
            rows.lerp_(queries, pulls.T)
        else:
            rows.mul_(1 - pulls.sum(dim=0)[:, None]).addmm_(pulls.T, queries)
        return
    pulls = wins.flatten(1)
    rows.addmm_(pulls.T, queries, alpha=step)
    if distance == "cosine":
        lengths = vector_norm(rows, dim=1, keepdim=True).clamp_(min=1e-12)
        if len(queries) == 1:
            lengths.masked_fill_(pulls.T == 0, 1)
        rows.div_(lengths)


def count_use(mu: Tensor, eta: Tensor, counts: Tensor, samples: int) -> None:
    """Count wins ``(q, m)`` of b samples: mu grows by them, winners' age begins again, and all keys grow older by b."""
    mu.add_(counts)
    eta.masked_fill_(counts > 0, 0).add_(samples)


def of_all_processes(
    queries: Tensor,
    best: Tensor,
    winners: Tensor,
    gather: Callable[[Tensor], Tensor] | None,
    counted: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return X, R and winners ``(b, q)`` of the global batch.

    Args:
        queries: X of this process.
        best: R likewise.
        winners: best keys likewise, int64.
        gather: brings a tensor ``(b, n)`` to the rows of all processes; called once. Rows of zeros do not count.
        counted: which of this process's samples count, bool ``(b,)``; None counts all.
    """
    counts = queries.new_ones(len(queries)) if counted is None else counted.to(queries)
    rows = torch.cat([queries, best, winners.to(queries), counts[:, None]], dim=1)
    rows = rows if gather is None else gather(rows)
    rows = rows[rows[:, -1] > 0, :-1]
    queries, best, winners = torch.split(rows, [queries.shape[1], best.shape[1], best.shape[1]], dim=1)
    return queries, best, winners.long()
