"""Randomness as a pure function of what it is for, never of how many draws came before.

Every random choice of a run is keyed by (seed, task, stage, epoch, sample) or a part of it. A resumed run and a
run on several processes therefore draw the same numbers as an undisturbed run on one.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

_GOLDEN, _MIX_1, _MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def key(*parts: int | str) -> int:
    """Hash what a draw is for, such as ``(seed, task, "order")``, into a seed in [0, 2**63)."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(*parts: int | str) -> torch.Generator:
    """Return a CPU generator seeded with ``key(*parts)``."""
    return torch.Generator().manual_seed(key(*parts))


def permutation(count: int, *parts: int | str) -> Tensor:
    """Return a permutation of ``range(count)``, int64 ``(count,)`` on the CPU, keyed by the parts."""
    return torch.randperm(count, generator=generator(*parts))


def uniforms(draw_key: int, samples: Tensor, draws: int) -> Tensor:
    """Draw independent numbers for each sample, whatever batch or process the sample is in.

    Args:
        draw_key: what the draw is for, from :func:`key`.
        samples: sample identities, int64 ``(N,)``.
        draws: how many numbers a sample needs.

    Returns:
        Uniform numbers in [0, 1), float32 ``(N, draws)`` on the device of ``samples``.

    A counter-based generator: the SplitMix64 finaliser over (key, sample, draw) in wrapping int64 arithmetic.
    """
    counter = samples[:, None] * _signed(_GOLDEN) + torch.arange(1, draws + 1, device=samples.device) * _signed(_MIX_2)
    bits = _finalise(_finalise(counter ^ _signed(draw_key)) + _signed(draw_key * _GOLDEN))
    return (_logical_shift(bits, 40)).to(torch.float32) * 2.0**-24


def _finalise(bits: Tensor) -> Tensor:
    bits = (bits ^ _logical_shift(bits, 30)) * _signed(_MIX_1)
    bits = (bits ^ _logical_shift(bits, 27)) * _signed(_MIX_2)
    return bits ^ _logical_shift(bits, 31)


def _logical_shift(bits: Tensor, by: int) -> Tensor:
    return (bits >> by) & ((1 << (64 - by)) - 1)


def _signed(value: int) -> int:
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >= 1 << 63 else value
