"""Run every row of tables and set the results beside the printed values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from mmcl.errors import INTERRUPTED, PREEMPTED, UserError, nearest
from mmcl.launch.gpu_pool import slots_for
from mmcl.launch.isolation import plain_command
from mmcl.launch.jobs import Job, Outcome, Terminated, longest_first, terminated_as_interrupt
from mmcl.launch.one_by_one import run_one_by_one
from mmcl.launch.plan import Plan, make_plan
from mmcl.launch.plan_text import show_plan
from mmcl.launch.row_progress import RowProgress
from mmcl.launch.slot_pool import run_in_slots
from mmcl.launch.slots import VISIBLE, Slot, find_slots
from mmcl.launch.slurm import run_on_slurm
from mmcl.launch.staying import run_in_staying
from mmcl.report.console import show
from mmcl.report.page import write_page
from mmcl.results.comparison import Overrides, compare
from mmcl.results.store import Result, read_result
from mmcl.results.tables import load_table, tables_named, with_rows

LAUNCHERS = ("auto", "serial", "pool", "gpu_pool", "slurm")
MOST_IN_POOL = 8  # small runs at the same time, unless more are asked for
SHOWN_TABLES = 20  # on the console; the page has all


@dataclass(frozen=True)
class Launch:
    """How runs are started.

    Attributes:
        launcher: ``serial``: one after the other, with its lines; ``pool``: silent processes that stay, one thread
            each, for small runs; ``gpu_pool``: a process for each run, one on each free GPU or, on a machine without,
            on each slot of the CPU; ``slurm``: a job of the cluster for each run; ``auto``: a pool for embedded data,
            else ``gpu_pool`` where there are several free GPUs, else a pool of ``jobs`` or, without, ``serial``.
        jobs: runs at the same time; 0 is as many as there are free GPUs or, for a pool, cores.
        slurm: parameters of SLURM jobs, such as ``{"slurm_partition": "gpu", "timeout_min": 600}``.
    """

    launcher: str = "auto"
    jobs: int = 0
    slurm: dict[str, str | int] | None = None

    def __post_init__(self) -> None:
        if self.launcher not in LAUNCHERS:
            known = ", ".join(LAUNCHERS)
            raise UserError(f"--launcher {self.launcher}: expected {known}.{nearest(self.launcher, LAUNCHERS)}")
        if self.jobs < 0:
            raise UserError(f"--jobs {self.jobs}: expected how many runs go at the same time, such as 2")

    def chosen(self, plan: Plan) -> tuple[str, list[Slot]]:
        """Return which launcher starts the runs of a plan, and where they run at the same time.

        Raises:
            UserError: a run wants a GPU and none is free, or several, which ``gpu_pool`` does not give.
        """
        launcher = self._launcher(plan)
        if launcher == "gpu_pool":
            return launcher, slots_for([run.config for run in plan.pending], self.jobs or None)
        count = self.jobs or min(MOST_IN_POOL, len(find_slots(accelerator="cpu")))
        return launcher, find_slots(count if launcher == "pool" else 1, accelerator="cpu")

    def _launcher(self, plan: Plan) -> str:
        if self.launcher != "auto":
            return self.launcher
        if not any(table.data for table in plan.tables):
            return "pool"
        free = find_slots(self.jobs or None)
        if len(free) > 1 and free[0].environment.get(VISIBLE):
            return "gpu_pool"
        return "pool" if self.jobs else "serial"


def reproduce(
    name: Path | str,
    extra: Sequence[str],
    runs_dir: Path | str,
    launch: Launch | None = None,
    seeds: int | None = None,
    dry_run: bool = False,
    rows: str | None = None,
) -> int:
    """Run what tables need, print ours beside printed, write ``report_<name>.html`` to ``runs_dir``.

    Rows share runs; finished ones are found by their identity and not run again, unfinished ones go on. A failed run
    is reported, is not repeated, and does not stop the others.

    Args:
        name: a shipped table, a prefix of several, ``all``, or a file.
        extra: overrides typed after those of every row, such as ``trainer=cpu``; ``seed=1,2,3`` runs every row once for
            each seed, and shows mean and standard deviation.
        runs_dir: folder below which runs get their directories.
        launch: how runs are started.
        seeds: this many seeds, from that of each row upwards.
        dry_run: say what would be run, and run nothing.
        rows: pattern of the labels of the rows, such as ``MEMO*``; None is all.

    Returns:
        0 when every row has its runs; 1 when one failed or its data is missing; 130 when interrupted from the
        keyboard, 75 when ended by SIGTERM: the same command goes on.

    Raises:
        UserError: no such table or row, or a table that cannot be read.
    """
    console = Console(highlight=False, soft_wrap=True)
    launch = launch or Launch()
    runs_dir = Path(runs_dir).expanduser()
    tables = with_rows([load_table(path) for path in tables_named(name)], rows)
    plan = make_plan(tables, extra, seeds, runs_dir)
    launcher, slots = launch.chosen(plan)
    show_plan(plan, console, launcher, len(slots), whole=dry_run)
    if dry_run:
        return 1 if plan.refused else 0
    results = {run.identity: run.result for run in plan.runs.values() if run.result is not None}
    failures = [f"{'; '.join(refused.rows)}: {refused.error}" for refused in plan.refused]
    code = 0
    try:
        with terminated_as_interrupt():
            for outcome in _outcomes(plan, runs_dir, launcher, slots, launch, console):
                if outcome.result is not None:
                    results[outcome.job.name] = outcome.result
                else:
                    failures.append(f"{'; '.join(plan.runs[outcome.job.name].rows)}: {_failure(outcome)}")
    except KeyboardInterrupt as interrupt:
        console.print("Interrupted. The same command continues here.", style="yellow")
        code = PREEMPTED if isinstance(interrupt, Terminated) else INTERRUPTED
    failures += [
        f"{plain_command(run.overrides)}: not run, for {run.missing[0]} is missing" for run in plan.without_data
    ]
    _show_results(name, plan, results, failures, runs_dir, console)
    return code or int(bool(failures))


def _outcomes(
    plan: Plan, runs_dir: Path, launcher: str, slots: Sequence[Slot], launch: Launch, console: Console
) -> Iterator[Outcome]:
    """Start what is to be run, tell of each end and of the time left."""
    wanted = [
        Job((*run.overrides, f"paths.runs={runs_dir}"), run.expected_seconds, run.identity) for run in plan.pending
    ]
    if not wanted:
        return
    logs = runs_dir / "logs"
    if launcher == "serial":
        outcomes = run_one_by_one(wanted, console)
    elif launcher == "pool":
        outcomes = run_in_staying(longest_first(wanted), len(slots), logs)
    elif launcher == "gpu_pool":
        outcomes = run_in_slots(wanted, slots, logs)
    else:
        outcomes = run_on_slurm(wanted, runs_dir / "slurm", launch.slurm or {})
    progress = RowProgress(wanted, len(slots), console, {run.identity: run.rows for run in plan.pending})
    for outcome in outcomes:
        progress.tell(outcome)
        yield outcome


def _show_results(
    name: Path | str,
    plan: Plan,
    paths: dict[str, Path],
    failures: Sequence[str],
    runs_dir: Path,
    console: Console,
) -> None:
    """Print the tables, what failed and where the page is."""
    results = {identity: read_result(path) for identity, path in paths.items()}

    def pick(overrides: Overrides) -> list[Result]:
        return [results[identity] for identity in plan.needed.get(overrides, ()) if identity in results]

    compared = [compare(table, pick) for table in plan.tables]
    for table in [entry for entry in compared if entry.measured or len(compared) == 1][:SHOWN_TABLES]:
        show(table, console)
    for failure in failures:
        console.print(f"failed: {failure}", style="red", markup=False)
    path = runs_dir / f"report_{Path(name).stem if Path(name).suffix else str(name).replace('/', '_')}.html"
    write_page(compared, list(results.values()), path, problems=failures)
    console.print(f"report: {path}", markup=False)


def _failure(outcome: Outcome) -> str:
    log = f" (log: {outcome.log})" if outcome.log is not None else ""
    return f"{plain_command(outcome.job.overrides)}: {outcome.error}{log}"
