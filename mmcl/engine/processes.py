"""Which of several processes of a run this one is, before any trainer exists."""

from __future__ import annotations

import lightning.pytorch.utilities.rank_zero as rank_zero


def is_first_process() -> bool:
    """Whether this process writes and prints; the environment of torchrun, SLURM or Lightning says so."""
    return int(getattr(rank_zero.rank_zero_only, "rank", 0)) == 0  # type: ignore[attr-defined]
