"""The commands ``mmcl reproduce`` and ``mmcl tune``: the runs of a table; settings chosen on validation samples."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console

from mmcl.errors import UserError

console = Console(highlight=False, soft_wrap=True)


def add_reproduce_commands(commands: Any) -> None:
    """Add ``reproduce`` and ``tune`` to the commands of ``mmcl``."""
    again = commands.add_parser("reproduce", help="run the rows of tables and set ours beside the printed values")
    again.add_argument("table", nargs="?", default="quick", help="a name from mmcl ls tables, a prefix, all, or a file")
    again.add_argument("overrides", nargs="*", help="typed after each row's own, such as trainer=cpu")
    again.add_argument("--runs", default="runs", help="folder of the runs")
    again.add_argument("--rows", default=None, metavar="PATTERN", help="rows by their label alone, such as 'MEMO*'")
    again.add_argument("--seeds", type=int, default=None, help="this many seeds, from that of each row upwards")
    again.add_argument("--launcher", default="auto", help="serial, pool, gpu_pool, slurm; auto chooses")
    again.add_argument("--jobs", type=int, default=0, help="runs at the same time; 0 is one for each free GPU or core")
    again.add_argument("--slurm", default="", metavar="KEY=VALUE,...", help="such as slurm_partition=gpu,mem_gb=32")
    again.add_argument("--dry-run", action="store_true", help="say what would be run, on what data, at which cost")
    again.set_defaults(action=_reproduce)

    tune = commands.add_parser("tune", help="choose each method's settings on validation samples; writes a table")
    tune.add_argument("search", help="a name below experiments/search, or a file")
    tune.add_argument("table", help="file of the table to write")
    tune.add_argument("overrides", nargs="*", help="typed after each trial's own, such as trainer=cpu")
    tune.add_argument("--runs", default="runs/tuning", help="folder of the trials")
    tune.add_argument("--jobs", type=int, default=1, help="trials at the same time, each on one thread")
    tune.set_defaults(action=_tune)


def _reproduce(parsed: argparse.Namespace) -> int:
    from mmcl.launch.reproduce import Launch, reproduce

    launch = Launch(parsed.launcher, parsed.jobs, _slurm_parameters(parsed.slurm))
    return reproduce(parsed.table, parsed.overrides, parsed.runs, launch, parsed.seeds, parsed.dry_run, parsed.rows)


def _slurm_parameters(typed: str) -> dict[str, str | int]:
    """Read ``slurm_partition=gpu,timeout_min=600``; whole numbers become numbers."""
    parameters: dict[str, str | int] = {}
    for word in filter(None, typed.split(",")):
        key, equals, value = word.partition("=")
        if not equals:
            raise UserError(f"--slurm {typed}: expected key=value, got {word!r}. Such as: slurm_partition=gpu")
        parameters[key] = int(value) if value.isdigit() else value
    return parameters


def _tune(parsed: argparse.Namespace) -> None:
    from mmcl.launch.tune import tune

    path = tune(parsed.search, parsed.overrides, Path(parsed.runs), Path(parsed.table), parsed.jobs)
    console.print(f"table: {path}. Run it with other seeds: mmcl reproduce {path} seed=1,2,3,4,5", markup=False)
