"""Stopping when asked: a signal is noted, and the run stops where it has just saved what it needs to go on.

SIGTERM asks, and inside a SLURM job SIGUSR1 and SIGUSR2 as well. Stops lie behind every epoch, stage and task, behind
every batch of a test stream and, in a run of one process, behind every batch that is evaluated or encoded. With several
processes, one that was asked stops all of them, at the same place.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from lightning import Callback, LightningModule, Trainer

from mmcl.engine.processes import in_any_process
from mmcl.errors import TOGETHER_SECONDS


class PreemptedError(BaseException):
    """The run stopped because it was asked to, and can go on; no ``Exception``, for nothing failed.

    Args:
        place: where it stopped, such as ``after epoch 3 of task 1``.
    """


@dataclass
class _Request:
    """When this process was asked by each signal; signals belong to a process, and so does this."""

    moments: dict[int, float] = field(default_factory=dict)


_request = _Request()


@contextmanager
def listening() -> Iterator[None]:
    """Note signals that ask for a stop, which would otherwise end the process at once.

    A second one of the same kind, later than what launchers pass on together, ends it all the same.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals go to the main thread
        return
    _request.moments.clear()
    before = {number: signal.signal(number, _note) for number in _signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def asked_here() -> bool:
    """Whether this process was asked to stop."""
    return bool(_request.moments)


def asked() -> bool:
    """Whether any process of the run was asked to stop; all must call."""
    return in_any_process(asked_here())


def stop_if_asked(place: str) -> None:
    """Stop if any process of the run was asked to; all must call.

    Raises:
        PreemptedError: with the place.
    """
    if asked():
        raise PreemptedError(place)


class Attentive(Callback):
    """Keeps signals ours during a pass, and stops evaluating and encoding when asked.

    Lightning would note SIGTERM, too, and end the pass in the middle of an epoch. What is evaluated is counted anew by
    a run that goes on, so that nothing has to be saved. Several processes go on to the end of the pass: they need not
    have equally many batches.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the signals back."""
        _take_back()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the signals back."""
        _take_back()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the signals back."""
        _take_back()

    def on_test_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Stop when asked."""
        self._stop(trainer, "during an evaluation")

    def on_predict_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Stop when asked."""
        self._stop(trainer, "while encoding")

    @staticmethod
    def _stop(trainer: Trainer, place: str) -> None:
        if trainer.world_size == 1 and asked_here():
            raise PreemptedError(place)


def _signals() -> list[signal.Signals]:
    in_slurm = "SLURM_JOB_ID" in os.environ
    return [signal.SIGTERM, *([signal.SIGUSR1, signal.SIGUSR2] if in_slurm else [])]


def _note(number: int, frame: FrameType | None) -> None:
    now = time.monotonic()
    # SLURM may ask by one signal and then by another: that is no impatience
    if now - _request.moments.setdefault(number, now) > TOGETHER_SECONDS:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


def _take_back() -> None:
    """Put our handlers where Lightning has put its own, if there were ours before."""
    for number in _signals():
        handler = signal.getsignal(number)
        if handler is not _note and _note in getattr(handler, "signal_handlers", ()):
            signal.signal(number, _note)
