"""A plan on the console: what would run, on what data, at which cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Console

from mmcl.launch.isolation import plain_command
from mmcl.launch.plan import BEGUN, FAILED, FINISHED, NEW, Plan, PlannedRun
from mmcl.report.console import duration

SHOWN = 8  # of a list in a line
STATES = (FINISHED, BEGUN, FAILED, NEW)


def show_plan(plan: Plan, console: Console, launcher: str, jobs: int, whole: bool) -> None:
    """Print the counts of a plan and what hinders it; ``whole`` also names every run, the data and the cost."""
    say = _Say(console)
    rows = sum(len(table.rows) for table in plan.tables)
    counted = Counter(run.state for run in plan.runs.values())
    states = ", ".join(f"{counted[state]} {state}" for state in STATES if counted[state]) or "none"
    tables = plan.tables[0].name if len(plan.tables) == 1 else f"{len(plan.tables)} tables"
    say(f"{tables}: {_count(rows, 'row')}, {_count(len(plan.runs), 'run')}: {states}. {_how(launcher, jobs)}")
    if whole:
        _show_runs(plan, say)
        _show_data(plan.runs.values(), say)  # type: ignore[arg-type]
        _show_cost(plan, jobs, say)
    for refused in plan.refused:
        say(f"refused: {'; '.join(refused.rows)}: {refused.error}", style="red")
    if plan.without_data:
        missing = dict.fromkeys(run.missing[0] for run in plan.without_data)
        say(f"{_count(len(plan.without_data), 'run')} without data, left out: {_first(list(missing))}", style="yellow")
        say("Where data lies: paths.data=FOLDER; what is wanted: mmcl data check BENCHMARK")


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _how(launcher: str, jobs: int) -> str:
    if launcher == "serial":
        return "One after the other."
    where = {"pool": "in processes that stay", "gpu_pool": "a process each", "slurm": "as jobs of SLURM"}[launcher]
    return f"{jobs} at a time, {where}." if launcher != "slurm" else "As jobs of SLURM."


class _Say:
    def __init__(self, console: Console) -> None:
        self.console = console

    def __call__(self, line: str, style: str = "") -> None:
        self.console.print(line, style=style, markup=False)


def _show_runs(plan: Plan, say: _Say) -> None:
    for run in plan.runs.values():
        state = "no data" if run.missing and run.state != FINISHED else run.state
        expected = "" if run.expected_seconds is None or run.state == FINISHED else f"  about {_time(run)}"
        say(f"  {state:13}  {plain_command(run.overrides)}{expected}")
        say(f"                 for {'; '.join(run.rows)}", style="dim")


def _time(run: PlannedRun) -> str:
    return duration(run.expected_seconds or 0.0)


def _show_data(runs: Sequence[PlannedRun], say: _Say) -> None:
    missing = {run.benchmark: run.missing for run in runs}
    say("Data:")
    for benchmark, paths in missing.items():
        say(f"  {benchmark}: {'MISSING ' + ', '.join(paths) if paths else 'there, embedded or downloaded'}")


def _show_cost(plan: Plan, jobs: int, say: _Say) -> None:
    pending = _left(plan)
    known = [run.expected_seconds for run in pending if run.expected_seconds is not None]
    say("Cost:" if pending else "Cost: nothing is left to run")
    if known:
        together = f", {jobs} at a time: {duration(sum(known) / jobs)}" if jobs > 1 else ""
        say(f"  {_count(len(known), 'run')} like what was run here: {duration(sum(known))}{together}")
    estimated = [run.hours for run in pending if run.expected_seconds is None and run.hours is not None]
    if estimated:
        hours = duration(3600 * sum(estimated))
        say(f"  {_count(len(estimated), 'run')} by the estimates of their tables: {hours} on one GPU")
    others = len(pending) - len(known) - len(estimated)
    if others:
        say(f"  {_count(others, 'run')} without an estimate; the tables say: {_said(plan)}")


def _left(plan: Plan) -> list[PlannedRun]:
    """Return all runs that have not finished, those without data, too: what they would cost is worth knowing first."""
    return [run for run in plan.runs.values() if run.state != FINISHED]


def _said(plan: Plan) -> str:
    needed = {row.partition(": ")[0] for run in _left(plan) if run.expected_seconds is None for row in run.rows}
    said = dict.fromkeys(f"{table.name}: {table.cost}" for table in plan.tables if table.name in needed)
    return _first(list(said), "; ")


def _first(words: Sequence[str], between: str = ", ") -> str:
    """Join the first of many words, and say how many more there are."""
    more = f" and {len(words) - SHOWN} more" if len(words) > SHOWN else ""
    return between.join(words[:SHOWN]) + more
