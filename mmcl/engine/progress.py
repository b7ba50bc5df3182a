"""What a person sees while a run goes on: one line per task, and a bar where there is a terminal."""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

from mmcl.protocol import Stage, Task


class Progress:
    """Shows task, stage, epoch and time left.

    Args:
        task_count: length of the sequence.
        speaks: whether this process prints at all; one of several does.
        bar: whether to draw a bar when standard error is a terminal.
    """

    def __init__(self, task_count: int, speaks: bool, bar: bool) -> None:
        self.task_count, self.speaks = task_count, speaks
        console = Console(stderr=True)
        self.bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
            transient=True,
            disable=not (speaks and bar and console.is_terminal),
            # Lines for a pipe stay in the pipe; lines for the terminal go above the bar.
            redirect_stdout=sys.stdout.isatty(),
        )
        self.row = self.bar.add_task("", total=1.0, left="")
        self.began = time.perf_counter()
        self.began_at: float | None = None

    def __enter__(self) -> Progress:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def epoch_done(
        self, task: Task, stage: Stage, position: tuple[int, int], epoch: int, figures: dict[str, float]
    ) -> None:
        """Move the bar. The time left assumes that every task takes as long as the average one so far.

        Args:
            task: the task that is trained.
            stage: the stage that is trained.
            position: number of the stage in the task, from 0, and how many there are.
            epoch: the epoch that is done, from 0.
            figures: with the mean ``loss``.
        """
        number, count = position
        done = (task.index + (number + (epoch + 1) / stage.schedule.epochs) / count) / self.task_count
        words = f"task {task.index + 1}/{self.task_count} {stage.name} epoch {epoch + 1}/{stage.schedule.epochs}"
        self.bar.update(
            self.row,
            completed=done,
            description=f"{words} loss {figures['loss']:.3f}",
            left=self._time_left(done),
        )

    def _time_left(self, done: float) -> str:
        if self.began_at is None:
            self.began_at, self.began = done, time.perf_counter()
            return ""
        spent, share = time.perf_counter() - self.began, done - self.began_at
        seconds = int(spent * (1 - done) / share) if share > 0 else 0
        return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d} left"

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        if self.speaks:
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()
