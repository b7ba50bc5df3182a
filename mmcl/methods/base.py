"""What a method is: a LightningModule with a few words about tasks. The engine calls them in this order.

For each task: ``grow`` (structure), ``begin_task`` (preparation), each of ``stages`` (one training pass), ``end_task``
(consolidate, write memory); then every readout of ``scores`` is evaluated on all classes seen so far. A resumed run
replays ``grow`` and loads the ``state_dict``; so everything that matters is in there, as tensors and plain types.
A method never touches loggers, files or process groups.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, MultiStepLR
from torchmetrics import Metric

from mmcl.backbones.freezing import restore_frozen_modes, trainable_parameters
from mmcl.config.schema import PRECISIONS, ComponentConfig, Schedule
from mmcl.errors import UserError
from mmcl.memory.accounting import ByteReport
from mmcl.protocol import Stage, Task

TaskT = TypeVar("TaskT", bound=Task)


@dataclass(frozen=True)
class Ingredients:
    """What a run gives its method beside the method's own configuration.

    Attributes:
        seed: keys every random choice that the method makes.
        task_count: length of the sequence.
    """

    seed: int
    task_count: int


class Method(LightningModule, Generic[TaskT]):
    """Base of all methods. A subclass says how it grows, trains, consolidates and answers.

    Attributes:
        Config: dataclass of the method's keys.
        task_type: the kind of task it can go through.
        readouts: names of the ways in which :meth:`scores` may answer.
        ordered: whether an answer depends on the test samples before it; they then come in a keyed order, and every
            process sees all of them.
        precisions: values of ``trainer.precision`` that it can be computed in.
    """

    Config: ClassVar[type] = ComponentConfig
    task_type: ClassVar[type[Task]] = Task
    readouts: tuple[str, ...] = ()
    ordered: ClassVar[bool] = False
    precisions: tuple[str, ...] = PRECISIONS

    def __init__(self, config: Any, ingredients: Ingredients) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.config = config
        self.ingredients = ingredients
        self.stage: Stage | None = None
        self._loss_sums: dict[str, Tensor] = {}
        self._loss_count = 0

    # ------------------------------------------------------------------ the words of a sequence

    def grow(self, task: TaskT) -> None:
        """Change the structure for a task: new heads, new blocks, teachers. No data is looked at."""

    def begin_task(self, task: TaskT) -> None:
        """Prepare for a task after :meth:`grow`, on the device of the run."""

    def first_task_weights(self) -> dict[str, Tensor] | None:
        """Return what other methods may begin with instead of training the first task; None if there is nothing."""
        return None

    def stages(self, task: TaskT) -> list[Stage]:
        """Return the training passes of a task, in order; their names are the same whenever it is asked.

        The engine asks again before each pass, whose samples may be what the pass before has left in the memory.
        """
        return []

    def begin_stage(self, stage: Stage, task: TaskT) -> None:
        """Prepare for a training pass; also called when it is resumed."""
        self.stage = stage

    def end_stage(self, stage: Stage, task: TaskT) -> None:
        """Finish a training pass, after its last epoch."""

    def end_task(self, task: TaskT) -> None:
        """Consolidate after the last stage and write the memory, on the device of the run."""

    def begin_evaluation(self, task: TaskT) -> None:
        """Prepare for the test samples of a task; also called when their evaluation is resumed, before loading."""

    def oracles(self, task: TaskT) -> dict[str, Metric]:
        """Return metrics that choose something by test labels, by readout: reported under a name of their own.

        Each takes ``update(scores of all readouts, labels)`` and computes a dict that has ``accuracy``.
        """
        return {}

    def losses(self, batch: Any) -> dict[str, Tensor]:
        """Return the named terms whose sum is minimised, each a mean over the batch."""
        raise NotImplementedError

    def scores(self, images: Tensor) -> dict[str, Tensor]:
        """Return for each readout the scores of all seen classes ``(B, seen)``; larger is likelier.

        On data sets, ``images`` are features under views ``(B, V, D)`` and the classes are the task's own ``(B, C)``.
        """
        raise NotImplementedError

    def byte_report(self) -> ByteReport:
        """Count the bytes of what is kept: measured, and by the papers' accounting."""
        raise NotImplementedError

    # ------------------------------------------------------------------ Lightning

    def train(self, mode: bool = True) -> Method[TaskT]:
        """Set the mode of everything that is not frozen."""
        super().train(mode)
        restore_frozen_modes(self)
        return self

    def stage_parameters(self) -> list[nn.Parameter]:
        """Return what the current stage optimises: everything that is not frozen."""
        return list(trainable_parameters(self))

    def optimizer_of(self, stage: Stage) -> tuple[Optimizer, LRScheduler]:
        """Return a fresh optimiser over :meth:`stage_parameters` with its schedule."""
        assert isinstance(stage.schedule, Schedule)
        return sgd(self.stage_parameters(), stage.schedule)

    def configure_optimizers(self) -> Any:
        """Return a fresh optimiser for the current stage and the schedule of its learning rate."""
        assert self.stage is not None
        optimizer, scheduler = self.optimizer_of(self.stage)
        return [optimizer], [scheduler]

    def training_step(self, block: Iterable[Any], block_index: int) -> None:
        """Take one step of the first optimiser for each batch of a block."""
        optimizer = self.first_optimizer()
        for batch in block:
            terms = self.losses(batch)
            optimizer.zero_grad()
            self.manual_backward(torch.stack(list(terms.values())).sum() * batch.share)
            self.after_backward(batch)
            optimizer.step()
            self.after_step()
            self._account(terms, len(batch.labels) if batch.share else 0)

    def first_optimizer(self) -> Optimizer:
        """Return the optimiser of the current stage, the first where it has several."""
        optimizers = self.optimizers()
        return optimizers[0] if isinstance(optimizers, list) else optimizers  # type: ignore[return-value]

    def after_backward(self, batch: Any) -> None:
        """Do what belongs between the gradients of a batch and the step along them."""

    def after_step(self) -> None:
        """Do what belongs after every optimiser step."""

    def epoch_figures(self, epoch: int) -> dict[str, float]:
        """Measure what the end of an epoch, from 0, shows beside its losses, such as the accuracy that chooses it.

        Every process asks, before the epoch is saved, and must get the same.
        """
        return {}

    def on_train_epoch_start(self) -> None:
        """Begin the sums of the epoch's losses."""
        self._loss_sums, self._loss_count = {}, 0

    def on_train_epoch_end(self) -> None:
        """Advance the learning rates."""
        schedulers = self.lr_schedulers()
        for scheduler in schedulers if isinstance(schedulers, list) else [schedulers]:
            scheduler.step()  # type: ignore[union-attr,call-arg]

    def test_step(self, batch: Any, batch_index: int) -> tuple[dict[str, Tensor], Tensor]:  # type: ignore[override]
        """Return (scores of each readout, labels)."""
        return self.scores(batch[0]), batch.labels

    # ------------------------------------------------------------------ losses of an epoch, kept on the device

    def _account(self, terms: dict[str, Tensor], count: int) -> None:
        for name, value in terms.items():
            total = self._loss_sums.get(name)
            self._loss_sums[name] = value.detach() * count if total is None else total.add_(value.detach(), alpha=count)
        self._loss_count += count

    def epoch_loss_sums(self) -> tuple[dict[str, Tensor], int]:
        """Return this process's sums of the epoch's losses over samples, and the number of samples."""
        return self._loss_sums, self._loss_count


def sgd(parameters: list[nn.Parameter], schedule: Schedule) -> tuple[Optimizer, LRScheduler]:
    """Build SGD with momentum over the parameters and its schedule over epochs.

    ``multistep`` multiplies the rate by ``lr_decay`` after each milestone; ``cosine`` goes to 0 over ``t_max`` epochs
    (null: over all epochs of the stage).

    Raises:
        UserError: an unknown scheduler.
    """
    on_gpu = all(parameter.is_cuda for parameter in parameters)
    optimizer = SGD(
        parameters, schedule.lr, momentum=schedule.momentum, weight_decay=schedule.weight_decay, fused=on_gpu or None
    )
    return optimizer, schedule_of(optimizer, schedule)


def schedule_of(optimizer: Optimizer, schedule: Schedule) -> LRScheduler:
    """Return the learning rate over epochs of an optimiser, from the rate that it has.

    Raises:
        UserError: an unknown scheduler.
    """
    if schedule.scheduler == "multistep":
        return MultiStepLR(optimizer, schedule.milestones, schedule.lr_decay)
    if schedule.scheduler == "cosine":
        return CosineAnnealingLR(optimizer, schedule.t_max or schedule.epochs)
    raise UserError(f"scheduler={schedule.scheduler!r}: expected multistep or cosine")
