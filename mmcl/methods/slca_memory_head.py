"""SLCA with Memory Heads: one in the place of each linear head, as the Memory Head paper learns classes task by task.

Tiezzi, Becattini, Marullo, Melacci, "Memory Head for Pre-Trained Backbones in Continual Learning", CoLLAs 2024, section
4.1, with the settings of the released command.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from mmcl.backbones.freezing import trainable_parameters
from mmcl.config.schema import setting
from mmcl.errors import UserError
from mmcl.methods.memory_head import MHLinear
from mmcl.methods.memory_head.options import MemoryHeadKeys, memory_head
from mmcl.methods.slca import Slca, SlcaConfig
from mmcl.methods.spelling import check_spelling
from mmcl.protocol import Batch, ClassTask, FeatureBatch


@dataclass
class SlcaMemoryHeadConfig(SlcaConfig):
    """Keys of SLCA with Memory Heads."""

    head: MemoryHeadKeys = setting("Options of each head.")
    freeze_keys_in_alignment: bool = setting(
        "From a task's alignment on, the keys of its head neither move nor are given away. The first task has no "
        "alignment: the published code leaves its head as it is."
    )
    frozen_heads: str = setting(
        "Heads of earlier tasks: published counts their wins while the network learns, and gives their weak keys to "
        "new images, then and in the alignment; inert leaves keys and counters alone."
    )
    remembered: str = setting(
        "What moves keys from the second epoch of the alignment on: published takes the last batch of the first epoch "
        "at each step, current the batch of the step. Of no effect where all keys are frozen."
    )

    def __post_init__(self) -> None:
        """Refuse values that could stop a run only after data is touched."""
        super().__post_init__()
        check_spelling("frozen_heads", self.frozen_heads, ("published", "inert"))
        check_spelling("remembered", self.remembered, ("published", "current"))
        repeats = self.remembered == "published" and self.alignment.epochs > 1
        if repeats and self.draws_per_class % self.alignment.batch_size:
            raise UserError(
                f"method.draws_per_class={self.draws_per_class} with method.remembered=published: expected a multiple "
                f"of method.alignment.batch_size={self.alignment.batch_size}, so that no batch is smaller than the one "
                "that is remembered. Type for example method.remembered=current"
            )


class SlcaMemoryHead(Slca):
    """One Memory Head for each task; its keys follow every micro-batch, its units every virtual batch."""

    Config: ClassVar[type] = SlcaMemoryHeadConfig
    config: SlcaMemoryHeadConfig

    # ------------------------------------------------------------------ a task

    def make_head(self, classes: int) -> nn.Module:
        """Build the head of a task."""
        return memory_head(self.config.head, self.backbone.dimension, classes)

    def grow(self, task: ClassTask) -> None:
        """Stop the keys of the heads so far, and add one."""
        for head in memory_heads(self.heads):
            head.beta_k = 0.0
        super().grow(task)

    def begin_alignment(self) -> None:
        """Freeze the keys of the newest head, for ever, before the heads are copied."""
        if self.config.freeze_keys_in_alignment:
            newest = memory_heads(self.heads)[-1]
            newest.beta_k, newest.scramble = 0.0, False
        super().begin_alignment()

    # ------------------------------------------------------------------ training

    def train(self, mode: bool = True) -> SlcaMemoryHead:
        """Set the mode of everything that is not frozen, and of old heads: as published, their counters are not."""
        super().train(mode)
        if mode and not self.aligning and self.config.frozen_heads == "published":
            self.heads.train()
        return self

    def on_train_epoch_start(self) -> None:
        """After the first epoch of an alignment, let the heads remember no further batch, as published."""
        super().on_train_epoch_start()
        for head in memory_heads(self.answering):
            head.remembered.to(self.device)  # a state is restored before the device is known
        if self.aligning and self.current_epoch and self.config.remembered == "published":
            self.answering.eval()

    def new_logits(self, features: Tensor) -> Tensor:
        """Return the logits of the new classes ``(B, size)``; as published, old heads look at the images, too."""
        if self.config.frozen_heads == "published":
            with torch.no_grad():
                for head in self.heads[:-1]:
                    head(features)
        return super().new_logits(features)

    def after_backward(self, batch: Batch | FeatureBatch) -> None:
        """Update the keys and counters of every head that a gradient has crossed."""
        gather, counted = self._over_processes(batch)
        for head in self._crossed():
            head.update(gather, counted)

    def _crossed(self) -> list[MHLinear]:
        """Return the heads to be updated: a gradient, be it zero, crosses old ones where something below it learns."""
        heads = memory_heads(self.answering if self.aligning else self.heads)
        reaches_old = self.aligning or any(True for _ in trainable_parameters(self.backbone))
        return heads if reaches_old and self.config.frozen_heads == "published" else heads[-1:]

    def _over_processes(self, batch: Batch | FeatureBatch) -> tuple[Callable[[Tensor], Tensor] | None, Tensor | None]:
        """Return how rows of all processes come together, and which of this process's count; None on one process."""
        world = self.trainer.world_size
        if world == 1:
            return None, None
        assert self.stage is not None
        longest = -(-self.stage.schedule.batch_size // world)

        def gather(rows: Tensor) -> Tensor:
            """Bring rows ``(b, n)`` into the order of the global batch, of which each process has every world-th row.

            What a process lacks is zeros, which do not count either.
            """
            padded = rows.new_zeros(longest, rows.shape[1])
            padded[: len(rows)] = rows
            parts = self.all_gather(padded)
            assert isinstance(parts, Tensor)
            return parts.transpose(0, 1).flatten(0, 1)

        return gather, torch.full((len(batch.labels),), batch.share > 0, device=batch.labels.device)

    # ------------------------------------------------------------------ state

    def get_extra_state(self) -> list[dict[str, Tensor]]:
        """Return what the heads in alignment remember of the last batch of its first epoch: later epochs use it.

        Each process remembers its own rows; the state has those of all, so all must call.
        """
        if not self.aligning or self.config.remembered != "published":
            return []
        parts = [head.remembered for head in memory_heads(self.answering)]
        return [
            {"queries": self._of_all(part.queries), "best": self._of_all(part.best), "counts": self._counts(part.best)}
            for part in parts
            if part.queries is not None and part.best is not None
        ]

    def set_extra_state(self, state: list[dict[str, Tensor]]) -> None:
        """Take what this process remembered."""
        for head, part in zip(memory_heads(self.answering), state, strict=False):
            rank = min(self._world()[0], len(part["counts"]) - 1)
            rows = slice(int(part["counts"][rank]))
            head.remembered.queries, head.remembered.best = (part[name][rank, rows] for name in ("queries", "best"))

    def _world(self) -> tuple[int, int]:
        """Return (rank, number of processes)."""
        return (0, 1) if self._trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def _of_all(self, rows: Tensor) -> Tensor:
        """Return the rows ``(b, n)`` of every process, padded with zeros: ``(processes, longest, n)``."""
        if self._world()[1] == 1:
            return rows[None]
        longest = int(self._counts(rows).max())
        return self.all_gather(pad(rows, (0, 0, 0, longest - len(rows))))  # type: ignore[return-value]

    def _counts(self, rows: Tensor) -> Tensor:
        """Return the number of rows of every process, int64 ``(processes,)``."""
        count = torch.tensor([len(rows)], device=rows.device)
        return count if self._world()[1] == 1 else self.all_gather(count).flatten()  # type: ignore[union-attr]


def memory_heads(modules: nn.ModuleList) -> list[MHLinear]:
    """Return the heads of a list as what they are."""
    return [head for head in modules if isinstance(head, MHLinear)]
