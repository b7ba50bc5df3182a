"""The commands ``mmcl reproduce`` and ``mmcl tune``: the runs of a table; settings chosen on validation samples."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

console = Console(highlight=False, soft_wrap=True)


def add_reproduce_commands(commands: Any) -> None:
    """Add ``reproduce`` and ``tune`` to the commands of ``mmcl``."""
    again = commands.add_parser("reproduce", help="run the rows of a table and set ours beside the printed values")
    again.add_argument("table", nargs="?", default="quick", help="a name from: mmcl ls tables")
    again.add_argument("overrides", nargs="*", help="typed after each row's own, such as trainer=cpu")
    again.add_argument("--runs", default="runs", help="folder of the runs")
    again.add_argument("--jobs", type=int, default=0, help="silent processes that share the runs, one thread each")
    again.set_defaults(action=lambda parsed: _reproduce(parsed.table, parsed.overrides, parsed.runs, parsed.jobs))

    tune = commands.add_parser("tune", help="choose each method's settings on validation samples; writes a table")
    tune.add_argument("search", help="a name below experiments/search, or a file")
    tune.add_argument("table", help="file of the table to write")
    tune.add_argument("overrides", nargs="*", help="typed after each trial's own, such as trainer=cpu")
    tune.add_argument("--runs", default="runs/tuning", help="folder of the trials")
    tune.add_argument("--jobs", type=int, default=1, help="trials at the same time, each on one thread")
    tune.set_defaults(action=_tune)


def _reproduce(table: str, overrides: Sequence[str], runs: str, jobs: int) -> int:
    from mmcl.report.reproduce import reproduce

    return reproduce(table, overrides, runs, jobs)


def _tune(parsed: argparse.Namespace) -> None:
    from mmcl.tune import tune

    path = tune(parsed.search, parsed.overrides, Path(parsed.runs), Path(parsed.table), parsed.jobs)
    console.print(f"table: {path}. Run it with other seeds: mmcl reproduce {path} seed=1,2,3,4,5", markup=False)
