"""What may befall a run: each function is called in the run's process and arms one accident."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from mmcl.engine import sequence, stream, versions
from mmcl.methods.base import Method


def die(*_: Any, **__: Any) -> None:
    """SIGKILL: no handler, no clean-up, no flush."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_inside_an_epoch() -> None:
    """Die between two steps of the third epoch of the second task."""
    _after_some_steps(die, epoch=2)


def die_inside_the_bias_stage() -> None:
    """Die in BiC's second stage."""
    _after_some_steps(die, epoch=2, stage="bias", steps=1)


def die_between_stages() -> None:
    """Die after the first stage of the second task has been saved."""
    forget = sequence.forget_checkpoints

    def forget_or_die(folder: Path, task: Any, stage: Any) -> None:
        forget(folder, task, stage)
        if task.index == 1:
            die()

    sequence.forget_checkpoints = forget_or_die


def die_before_evaluation() -> None:
    """Die when the second task is consolidated and its memory written, but nothing of that saved."""
    evaluate = sequence.evaluate

    def evaluate_or_die(method: Any, benchmark: Any, task: Any, *rest: Any) -> None:
        if task.index == 1:
            die()
        evaluate(method, benchmark, task, *rest)

    sequence.evaluate = evaluate_or_die


def die_writing_the_state() -> None:
    """Die when half of the sequence state after the second task's training is on the disk."""
    _while_writing("sequence", number=101)


def die_writing_the_first_state() -> None:
    """Die when half of the very first sequence state is on the disk."""
    _while_writing("sequence", number=1)


def die_writing_a_checkpoint() -> None:
    """Die when half of the third epoch's checkpoint is on the disk."""
    _while_writing("task001-representation", number=3)


def die_inside_a_stream() -> None:
    """Die after the third batch of a test stream was counted, before its state is saved."""
    count = stream.Answers.count
    seen = [0]

    def counted(self: Any, *batch: Any) -> None:
        count(self, *batch)
        seen[0] += 1
        if seen[0] == 3:
            die()

    stream.Answers.count = counted


def die_writing_a_stream_state() -> None:
    """Die when half of the second state inside a test stream is on the disk."""
    _while_writing("task000-stream", number=2)


def die_inside_few_shot_learning() -> None:
    """Die between two steps of the second epoch of few-shot learning."""
    _in_epoch(1, die)


def die_inside_memory_learning() -> None:
    """Die between two steps of the third epoch of the learning on a memory."""
    _in_epoch(2, die)


def loss_becomes_nan() -> None:
    """Make the loss NaN in the third epoch of the second task."""

    def spoil(method: Method) -> None:
        with torch.no_grad():
            next(method.parameters()).fill_(float("nan"))

    _after_some_steps(spoil, epoch=2)


def _in_epoch(epoch: int, act: Callable[[], None]) -> None:
    account = Method._account

    def counted(self: Any, terms: Any, count: int) -> None:
        account(self, terms, count)
        if self.trainer.current_epoch == epoch:
            act()

    Method._account = counted


def _after_some_steps(act: Callable[[Method], None], epoch: int, stage: str = "representation", steps: int = 2) -> None:
    account = Method._account
    seen = [0]

    def counted(self: Method, terms: Any, count: int) -> None:
        account(self, terms, count)
        seen[0] += self.known > 0 and self.stage.name == stage and self.trainer.current_epoch == epoch
        if seen[0] == steps:
            act(self)

    Method._account = counted


def _while_writing(stem: str, number: int) -> None:
    write = versions.Versions.write

    def write_half(self: versions.Versions, at: int, save: Callable[[Path], None]) -> None:
        def save_half(part: Path) -> None:
            save(part)
            if (self.stem, at) == (stem, number):
                os.truncate(part, part.stat().st_size // 2)
                die()

        write(self, at, save_half)

    versions.Versions.write = write_half
