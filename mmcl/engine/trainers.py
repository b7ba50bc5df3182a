"""Trainers as the engine needs them: fresh for every pass, silent, with our own order of samples and checkpoints."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities.exceptions import MisconfigurationException  # type: ignore[attr-defined]
from omegaconf import DictConfig

from mmcl.engine.preemption import Attentive, PreemptedError, asked
from mmcl.engine.versions import Versions
from mmcl.errors import DivergedError, UserError
from mmcl.randomness import key

Figures = dict[str, float]


def make_trainer(config: DictConfig, epochs: int = 1, callbacks: list[Callback] | None = None) -> Trainer:
    """Return a trainer for one pass.

    Data order, checkpoints, logs and progress are the engine's, so Lightning's are switched off.

    Args:
        config: the ``trainer`` group.
        epochs: passes over the stage's samples.
        callbacks: what watches the pass.

    Raises:
        UserError: the machine lacks what the group asks for.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("lightning.fabric").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    torch.set_float32_matmul_precision(config.matmul_precision)
    if config.num_nodes < 1:
        raise UserError(
            f"trainer={config.name} takes the number of nodes and of devices from SLURM (SLURM_NNODES and "
            "SLURM_NTASKS_PER_NODE), and this is no SLURM job with --nodes and --ntasks-per-node. Type inside of one: "
            f"srun python -m mmcl.run trainer={config.name} ..., or without SLURM: trainer=ddp"
        )
    try:
        return _trainer(config, epochs, [*(callbacks or []), Attentive(), NoCheckpoint()])
    except (MisconfigurationException, ValueError) as error:
        raise UserError(f"trainer={config.name} cannot be used here: {error} Type for example: trainer=cpu") from error


def _trainer(config: DictConfig, epochs: int, callbacks: list[Callback]) -> Trainer:
    on_gpu = torch.cuda.is_available()
    return Trainer(
        accelerator=("gpu" if on_gpu else "cpu") if config.accelerator == "auto" else config.accelerator,
        devices=config.devices,
        num_nodes=config.num_nodes,
        strategy=config.strategy,
        precision=config.precision,
        sync_batchnorm=config.sync_batchnorm,
        deterministic=config.deterministic,
        max_epochs=epochs,
        callbacks=callbacks,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        # Metrics are updated in tests and read later: inference tensors could not be changed then.
        inference_mode=False,
    )


class NoCheckpoint(Checkpoint):
    """Keeps Lightning from adding its own checkpoints beside ours."""


class SeedEpochs(Callback):
    """Keys torch's generators anew at the first step of every epoch, so that a resumed epoch draws the same numbers.

    The start of the epoch would be too early: after a resume, the loader is asked before that hook.
    """

    def __init__(self, *parts: int | str) -> None:
        self.parts = parts

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Seed at the first step."""
        if batch_idx == 0:
            torch.manual_seed(key(*self.parts, trainer.current_epoch, trainer.global_rank))


class EpochFigures(Callback):
    """Hands the mean losses, the learning rate and the seconds of each epoch to the engine.

    Args:
        where: words for messages, such as ``task 3, stage representation``.
        advice: what to type for a smaller learning rate.
        report: called with the epoch and its figures, equal on all processes.

    Raises:
        DivergedError: a loss is not finite; the checkpoint of the epoch before stays the last.
    """

    def __init__(self, where: str, advice: str, report: Callable[[int, Figures], None]) -> None:
        self.where, self.advice, self.report = where, advice, report
        self.began = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self.began = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reduce the sums of all processes and report their means."""
        sums, count = pl_module.epoch_loss_sums()  # type: ignore[operator]
        values = torch.stack([*sums.values(), torch.tensor(float(count), device=pl_module.device)]).double()
        *totals, samples = trainer.strategy.reduce(values, reduce_op="sum").tolist()  # type: ignore[union-attr]
        means = {name: total / samples for name, total in zip(sums, totals, strict=True)}
        means["loss"] = sum(means.values())
        sound = all(abs(value) < float("inf") for value in means.values())
        # The last step of the epoch may have broken weights that no loss has met yet.
        if not (sound and bool(torch.stack([p.isfinite().all() for p in pl_module.parameters()]).all())):
            raise DivergedError(
                f"the loss or a weight is not finite in {self.where}, epoch {trainer.current_epoch}: {means}. "
                f"The last good state is kept. Try a smaller learning rate, such as {self.advice}"
            )
        means |= pl_module.epoch_figures(trainer.current_epoch)  # type: ignore[operator]
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        seconds = time.perf_counter() - self.began
        self.report(trainer.current_epoch, {**means, "lr": float(rate), "seconds": seconds, "images": samples})


class EpochCheckpoints(Checkpoint):
    """Saves the stage every few epochs; a damaged checkpoint costs the epochs since the one before.

    Args:
        versions: where they go.
        every: epochs between two; 0 saves none.
        where: words for messages, such as ``task 3, stage representation``.

    Raises:
        PreemptedError: the run was asked to stop; the epoch is saved.
    """

    def __init__(self, versions: Versions, every: int, where: str) -> None:
        self.versions, self.every, self.where = versions, every, where

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save after every ``every``-th epoch but the last, which the sequence state follows at once."""
        done = trainer.current_epoch + 1
        if done == trainer.max_epochs:
            return
        stops = asked()
        if stops or (self.every and done % self.every == 0):
            self._save(trainer, done)
        if stops:
            raise PreemptedError(f"after epoch {done} of {self.where}")

    def _save(self, trainer: Trainer, done: int) -> None:
        # Every process must ask Lightning to save; the first one alone writes.
        if trainer.is_global_zero:
            self.versions.write(done, trainer.save_checkpoint)
        else:
            trainer.save_checkpoint(self.versions.folder / "never written")


class SameBuffers(Callback):
    """Gives every process the first one's buffers after a pass: batch statistics differ between processes by then."""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Broadcast."""
        if trainer.world_size > 1:
            for buffer in pl_module.buffers():
                dist.broadcast(buffer, 0)
