"""Tip-Adapter-F: Tip-Adapter whose cache keys are learned from the few shots.

Zhang, Zhang, Fang, Gao, Li, Dai, Qiao, Li, "Tip-Adapter: Training-Free Adaption of CLIP for Few-Shot Classification",
ECCV 2022. The released code keeps the epoch that is best on the test images; here it is the last one, or the one that
is best on validation images.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mmcl.config.schema import StepSchedule, setting
from mmcl.errors import UserError, nearest
from mmcl.methods.few_shot import training_passes
from mmcl.methods.tip_adapter import TipAdapter, TipAdapterConfig, tip_logits
from mmcl.protocol import DatasetTask, FeatureBatch, Stage

KEPT = ("last", "best_val")


@dataclass
class TipAdapterFConfig(TipAdapterConfig):
    """Keys of Tip-Adapter-F."""

    keep: str = setting("Keys that are kept: last epoch, or best_val: best on validation, unlearned ones included.")
    schedule: StepSchedule = setting("How the keys are learned, with alpha and beta at their start values.")
    epochs_of: dict[str, int] | None = setting("Epochs for data sets by name, instead of schedule.epochs; null: none.")

    def __post_init__(self) -> None:
        """Refuse what could not be kept."""
        super().__post_init__()
        if self.keep not in KEPT:
            raise UserError(f"method.keep={self.keep}: expected {' or '.join(KEPT)}.{nearest(self.keep, KEPT)}")


class TipAdapterF(TipAdapter):
    """Learns the keys of the cache.

    Attributes:
        best_keys: keys of the best epoch so far ``(C, K, D)``; unused with ``keep: last``.
        best_hits: right validation answers of that epoch, int64 scalar.
    """

    Config: ClassVar[type] = TipAdapterFConfig
    best_keys: Tensor
    best_hits: Tensor

    def hold_keys(self, keys: Tensor) -> None:
        """Keep the keys in the state as parameters, and room for the best ones where they are wanted."""
        self.cache_keys = nn.Parameter(keys)
        self.register_buffer("best_keys", keys.clone() if self.config.keep == "best_val" else keys[:0])
        self.register_buffer("best_hits", torch.tensor(-1))
        self._validation: tuple[Tensor, Tensor] | None = None

    def stages(self, task: DatasetTask) -> list[Stage]:
        """Learn the keys."""
        shots = training_passes(task, self.config.shots, self.config.passes)
        schedule = self.config.schedule
        epochs = (self.config.epochs_of or {}).get(task.name, schedule.epochs)
        return [Stage("keys", shots, replace(schedule, epochs=epochs))]

    def begin_stage(self, stage: Stage, task: DatasetTask) -> None:
        """Fetch the validation images that choose the epoch."""
        super().begin_stage(stage, task)
        if self.config.keep == "best_val":
            self._validation = self.validation(task)

    def losses(self, batch: FeatureBatch) -> dict[str, Tensor]:
        """Return the cross-entropy of the logits with the cache."""
        text, closeness = self._parts(batch.features[:, 0])
        return {"cross_entropy": cross_entropy(tip_logits(text, closeness, self.alpha, self.beta), batch.labels)}

    def on_train_epoch_start(self) -> None:
        """Look at the keys of the epoch before; so a resumed epoch has looked, too."""
        super().on_train_epoch_start()
        self._keep_best()

    def end_stage(self, stage: Stage, task: DatasetTask) -> None:
        """Take the best keys, where they are wanted."""
        if self._validation is not None:
            self._keep_best()
            with torch.no_grad():
                self.cache_keys.copy_(self.best_keys)
            self._validation = None

    def memory_rows(self) -> list[Tensor]:
        """Return nothing: the keys are learned, and counted as such."""
        return []

    @torch.no_grad()
    def _keep_best(self) -> None:
        if self._validation is None:
            return
        features, labels = self._validation
        text, closeness = self._parts(features)
        hits = (tip_logits(text, closeness, self.alpha, self.beta).argmax(1) == labels).sum()
        better = hits > self.best_hits
        self.best_keys.copy_(torch.where(better, self.cache_keys, self.best_keys))
        self.best_hits.copy_(torch.where(better, hits, self.best_hits))
