"""Methods that write down, in every process, what that process holds at the end of a task."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from mmcl.methods.aanets import Aanets
from mmcl.methods.cosine_incremental import CosineIncremental
from mmcl.methods.mnemonics.mnemonics import Mnemonics
from mmcl.protocol import ClassTask

FOLDER = "MMCL_TEST_TOLD"


class _Told(CosineIncremental):
    def end_task(self, task: ClassTask) -> None:
        """Write parameters and kept pixels before the engine shares those of the first process."""
        super().end_task(task)
        told = {name: parameter.detach() for name, parameter in self.network.named_parameters()}
        told["pixels"] = torch.cat([batch.images for batch in task.plain_batches(self.kept(task), self.device)])
        torch.save(told, Path(os.environ[FOLDER]) / f"task{task.index}-process{self.global_rank}.pt")


class ToldAanets(_Told, Aanets):
    """AANets, told."""


class ToldMnemonics(_Told, Mnemonics):
    """Mnemonics, told."""
