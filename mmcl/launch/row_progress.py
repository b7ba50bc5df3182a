"""Progress over the runs of tables: a line at the end of each, with its figures and the time that is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from rich.console import Console

from mmcl.launch.jobs import Job, Outcome
from mmcl.report.console import duration
from mmcl.results.store import read_result


class RowProgress:
    """Tells of every run that ends.

    Args:
        jobs: all jobs that are going to be run.
        at_once: how many run at the same time.
        console: where lines go.
        rows: what each job is for, by its name.
    """

    def __init__(self, jobs: Sequence[Job], at_once: int, console: Console, rows: Mapping[str, Sequence[str]]) -> None:
        self.left = {job.name: job for job in jobs}
        self.count, self.at_once, self.console, self.rows = len(jobs), at_once, console, rows
        self.seconds: list[float] = []

    def tell(self, outcome: Outcome) -> None:
        """Print the line of a run that ended."""
        del self.left[outcome.job.name]
        self.seconds.append(outcome.seconds)
        done = f"[{self.count - len(self.left)}/{self.count}]"
        rows = ", ".join(row.partition(": ")[2] for row in self.rows[outcome.job.name])
        rows += "".join(f" {word}" for word in outcome.job.overrides if word.startswith("seed="))
        figures = _figures(outcome) if outcome.result is not None else f"failed: {outcome.error.splitlines()[0]}"
        left = f"  (about {duration(self.seconds_left())} left)" if self.left else ""
        style = "" if outcome.result is not None else "red"
        text = f"{done} {duration(outcome.seconds)}  {rows}  {figures}{left}"
        self.console.print(text, style=style, markup=False)

    def seconds_left(self) -> float:
        """Estimate the time left: what a run took before or, where that is not known, what others have taken so far."""
        known = [job.expected_seconds for job in self.left.values() if job.expected_seconds is not None]
        others = (len(self.left) - len(known)) * fmean(self.seconds)
        return (sum(known) + others) / max(1, min(self.at_once, len(self.left)))


def _figures(outcome: Outcome) -> str:
    """Return the last accuracy of every readout."""
    assert outcome.result is not None
    readouts = read_result(outcome.result).readouts_on()
    last = {name: figures.get("last_accuracy") for name, figures in readouts.items()}
    return "  ".join(f"{name} {100 * value:.2f}" for name, value in last.items() if value is not None)
