"""Run every row of a table and set the results beside the printed values."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Sequence
from itertools import repeat
from pathlib import Path

from rich.console import Console

from mmcl.errors import INTERRUPTED
from mmcl.launch.staying import run_all
from mmcl.report.comparison import Overrides, canonical, compare
from mmcl.report.console import show
from mmcl.report.page import write_page
from mmcl.report.store import Result, find_results
from mmcl.report.tables import Table, load_table

SECONDS_TO_STOP = 30


class RunFailedError(Exception):
    """A run of a row did not leave a finished result."""


def reproduce(table_path: Path | str, extra_overrides: Sequence[str], runs_dir: Path | str, jobs: int = 0) -> int:
    """Run all rows of a table, print ours beside printed, write ``report_<table>.html`` to ``runs_dir``.

    A failed row is reported and does not stop the others. Finished runs return at once, so that the same
    command continues an interrupted reproduction.

    Args:
        table_path: file of a table, or the name of a shipped one.
        extra_overrides: typed after the overrides of every row, such as ``trainer=cpu``. ``seed=1,2,3`` runs every
            row once for each seed, and shows mean and standard deviation.
        runs_dir: folder below which runs get their directories.
        jobs: 0 runs one after the other, each in a process of its own that shows its lines; more is how many silent
            processes share the runs, each on one thread.

    Returns:
        0 when every row ran, 1 when one failed, 130 when interrupted.

    Raises:
        UserError: the table cannot be read.
    """
    table = load_table(table_path)
    console = Console()
    produced: dict[Overrides, list[Result]] = {}
    failures: list[str] = []
    code = 0
    try:
        _run_rows(table, extra_overrides, Path(runs_dir).expanduser(), jobs, produced, failures, console)
    except KeyboardInterrupt:
        console.print("Interrupted. The same command continues here.", style="yellow")
        code = INTERRUPTED
    compared = compare(table, lambda overrides: produced.get(overrides, []))
    show(compared, console)
    for failure in failures:
        _say(console, f"failed: {failure}", style="red")
    path = Path(runs_dir).expanduser() / f"report_{table.name.replace('/', '_')}.html"
    write_page([compared], [result for results in produced.values() for result in results], path, problems=failures)
    _say(console, f"report: {path}")
    return code or int(bool(failures))


def _run_rows(
    table: Table,
    extra_overrides: Sequence[str],
    runs_dir: Path,
    jobs: int,
    produced: dict[Overrides, list[Result]],
    failures: list[str],
    console: Console,
) -> None:
    rows = dict.fromkeys(overrides for row in table.rows for overrides in row.runs)
    wanted = [(overrides, extra) for overrides in rows for extra in _per_seed(extra_overrides)]
    runs = [[*overrides, *extra, f"paths.runs={runs_dir}"] for overrides, extra in wanted]
    outcomes = run_all(runs, jobs) if jobs else repeat(None)
    for index, (arguments, outcome) in enumerate(zip(runs, outcomes)):  # noqa: B905 - repeat has no end
        command = f"python -m mmcl.run {shlex.join(arguments)}"
        _say(console, f"[{index + 1}/{len(wanted)}] {command}", style="bold")
        try:
            result = _run(arguments, console) if outcome is None else _finished(outcome)
            produced.setdefault(wanted[index][0], []).append(result)
        except RunFailedError as error:
            failures.append(f"{command}: {error}")


def _per_seed(extra_overrides: Sequence[str]) -> list[list[str]]:
    """Return what is typed after a row for each of its runs: one for each value of ``seed=1,2,3``."""
    runs: list[list[str]] = [[]]
    for override in extra_overrides:
        key, _, value = override.partition("=")
        typed = [f"{key}={seed}" for seed in value.split(",")] if canonical(key) == "seed" else [override]
        runs = [[*run, part] for run in runs for part in typed]
    return runs


def _run(arguments: Sequence[str], console: Console) -> Result:
    """Run ``python -m mmcl.run`` in a process of its own and read the result that its last line names."""
    last_line = ""
    command = [sys.executable, "-m", "mmcl.run", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            for line in process.stdout or ():
                last_line = line.strip() or last_line
                _say(console, line.rstrip())
            process.wait()
        except KeyboardInterrupt:
            _stop(process)
            raise
    if process.returncode != 0:
        raise RunFailedError(f"exit code {process.returncode}")
    return _finished(Path(last_line))


def _finished(outcome: Path | Exception) -> Result:
    """Read the finished result that a run names."""
    if isinstance(outcome, Exception):
        raise RunFailedError(str(outcome))
    results, problems = find_results(outcome.parent) if outcome.name == "result.json" else ([], [])
    for result in results:
        if result.path == outcome and result.finished:
            return result
    raise RunFailedError("; ".join(problems) or f"named no finished result.json, but {str(outcome)!r}")


def _say(console: Console, line: str, style: str = "") -> None:
    """Print a line as it is, so that paths and commands can be copied."""
    console.print(line, style=style, highlight=False, markup=False, soft_wrap=True)


def _stop(process: subprocess.Popen[str]) -> None:
    """Wait for a process that got the same interrupt from the terminal; end it if it does not."""
    try:
        process.wait(SECONDS_TO_STOP)
    except subprocess.TimeoutExpired:
        process.terminate()
        process.wait()
