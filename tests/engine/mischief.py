"""What may befall a run: each function is called in the run's process and arms one accident."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from mmcl.engine import assemble, encoding, evaluation, preemption, sequence, stream, versions
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


def die_writing_the_last_state() -> None:
    """Die when half of the sequence state after the second task is on the disk, which is the last one."""
    _while_writing("sequence", number=200)


def die_writing_the_first_state() -> None:
    """Die when half of the very first sequence state is on the disk."""
    _while_writing("sequence", number=1)


def die_writing_a_checkpoint() -> None:
    """Die when half of the third epoch's checkpoint is on the disk."""
    _while_writing("task001-representation", number=3)


def die_inside_a_stream() -> None:
    """Die after the third batch of a test stream was counted, before its state is saved."""
    _at_the_third_batch_of_a_stream(die)


def _at_the_third_batch_of_a_stream(act: Callable[[], object]) -> None:
    count = stream.Answers.count
    seen = [0]

    def counted(self: Any, *batch: Any) -> None:
        count(self, *batch)
        seen[0] += 1
        if seen[0] == 3:
            act()

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


def asked_before_the_first_task() -> None:
    """Be asked to stop while data and method are put together."""
    build = assemble.build_method

    def build_and_ask(*arguments: Any) -> Any:
        _ask()
        return build(*arguments)

    assemble.build_method = build_and_ask


def asked_inside_an_epoch() -> None:
    """Be asked between two steps of the third epoch of the second task."""
    _after_some_steps(_ask, epoch=2)


def asked_twice_at_once() -> None:
    """Be asked by a launcher and by the system behind it."""

    def ask_twice(*_: Any) -> None:
        _ask()
        _ask()

    _after_some_steps(ask_twice, epoch=2)


def asked_again_later() -> None:
    """Be asked a second time, when a launcher's own would have come long ago."""

    def ask_twice(*_: Any) -> None:
        _ask()
        for number in preemption._request.moments:
            preemption._request.moments[number] -= preemption.TOGETHER_SECONDS
        _ask()
        time.sleep(60)

    _after_some_steps(ask_twice, epoch=2)


def asked_in_the_last_epoch() -> None:
    """Be asked in the last epoch of the second task."""
    _after_some_steps(_ask, epoch=3)


def asked_during_evaluation() -> None:
    """Be asked when the first answers to the second task are counted."""
    count = evaluation.CountAnswers.count

    def count_and_ask(self: Any, *batch: Any) -> None:
        count(self, *batch)
        if self.task.index == 1:
            _ask()

    evaluation.CountAnswers.count = count_and_ask


def asked_while_saving() -> None:
    """Be asked while the state after the first task is written."""
    write = versions.Versions.write

    def write_and_ask(self: versions.Versions, at: int, save: Callable[[Path], None]) -> None:
        if (self.stem, at) == ("sequence", 100):
            _ask()
        write(self, at, save)

    versions.Versions.write = write_and_ask


def asked_inside_a_stream() -> None:
    """Be asked while the third batch of a test stream is counted."""
    _at_the_third_batch_of_a_stream(_ask)


def asked_while_encoding() -> None:
    """Be asked when the first features have been written."""
    step = encoding._Encoding.predict_step

    def step_and_ask(self: Any, *batch: Any) -> None:
        step(self, *batch)
        _ask()

    encoding._Encoding.predict_step = step_and_ask


def asked_in_the_second_window() -> None:
    """Be asked in the second window of an online stream."""
    begin = Method.begin_stage

    def begin_and_ask(self: Any, stage: Any, task: Any) -> None:
        begin(self, stage, task)
        if task.index == 1:
            _ask()

    Method.begin_stage = begin_and_ask


def _ask(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


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
