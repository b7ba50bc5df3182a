"""Runs that somebody else starts: what is wanted, what came of it, and what a signal to the starter means."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType


@dataclass(frozen=True)
class Job:
    """One run to be started.

    Attributes:
        overrides: what is typed after ``python -m mmcl.run``.
        expected_seconds: how long it should take; None where nothing like it was ever run.
        name: of its log file; unique among the jobs that are started together.
    """

    overrides: tuple[str, ...]
    expected_seconds: float | None = None
    name: str = "run"


@dataclass(frozen=True)
class Outcome:
    """What came of a job.

    Attributes:
        job: the job.
        result: its ``result.json``, or None where it failed.
        error: why it failed, in one paragraph; empty where it did not.
        seconds: how long it took here.
        log: what it printed, or None where that was shown.
        exception: the error itself, where the job ran inside a process of ours.
    """

    job: Job
    result: Path | None
    error: str = ""
    seconds: float = 0.0
    log: Path | None = None
    exception: Exception | None = None


class Terminated(KeyboardInterrupt):
    """SIGTERM came: what runs is told to save and stop, as after an interrupt from the keyboard."""


@contextmanager
def terminated_as_interrupt() -> Iterator[None]:
    """Raise :class:`Terminated` where SIGTERM would end this process at once, and leave others without an end."""

    def raise_terminated(number: int, frame: FrameType | None) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, raise_terminated)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def longest_first(jobs: list[Job]) -> list[Job]:
    """Order jobs so that the last ones are short; those of unknown length go first, in the order given."""
    return sorted(jobs, key=lambda job: float("-inf") if job.expected_seconds is None else -job.expected_seconds)
