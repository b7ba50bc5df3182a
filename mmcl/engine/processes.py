"""Several processes of one run: which one this is, and what they must have in common."""

from __future__ import annotations

import os

import lightning.pytorch.utilities.rank_zero as rank_zero
import torch.distributed as dist
from torch import nn


def is_first_process() -> bool:
    """Whether this process writes and prints; the environment of torchrun, SLURM or Lightning says so."""
    return int(getattr(rank_zero.rank_zero_only, "rank", 0)) == 0  # type: ignore[attr-defined]


def started_from_outside() -> bool:
    """Whether torchrun or srun started several processes at once, rather than the first one the others."""
    return "TORCHELASTIC_RUN_ID" in os.environ or int(os.environ.get("SLURM_NTASKS", "1")) > 1


def in_any_process(here: bool) -> bool:
    """Whether it is so in any process of the run; all must ask.

    Before the processes have met, the first one speaks for those that it will start itself. One that somebody else
    started cannot speak for others that wait for it: its answer is no until then.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return here and "LOCAL_RANK" not in os.environ and not started_from_outside()
    answers = [False] * dist.get_world_size()
    dist.all_gather_object(answers, here)
    return any(answers)


def same_memory(module: nn.Module) -> None:
    """Give every process the first one's memory: features, and so rows, could differ in the last bit between GPUs."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return
    state = {name: value for name, value in module.state_dict().items() if name.endswith("_extra_state")}
    shared = [state]
    dist.broadcast_object_list(shared, src=0)
    if dist.get_rank():
        module.load_state_dict(shared[0], strict=False)
