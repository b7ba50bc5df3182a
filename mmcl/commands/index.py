"""The command ``mmcl index``: what a folder of runs holds, and whether two folders hold the same figures."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from mmcl.errors import UserError

console = Console(highlight=False, soft_wrap=True)


def add_index_command(commands: Any) -> None:
    """Add ``index`` to the commands of ``mmcl``."""
    index = commands.add_parser("index", help="count the results below a folder; compare two folders by one digest")
    index.add_argument("runs", nargs="?", default="runs", help="folder of the runs")
    index.add_argument("--rebuild", action="store_true", help="delete the index first and read every result again")
    index.add_argument("--digest", action="store_true", help="print nothing but the digest of all figures")
    index.set_defaults(action=lambda parsed: _index(Path(parsed.runs).expanduser(), parsed.rebuild, parsed.digest))


def _index(runs: Path, rebuild: bool, only_digest: bool) -> None:
    from mmcl.results.index import ask, discard

    if not runs.is_dir():
        raise UserError(f"{runs}: no such folder. Name the folder of your runs, such as: mmcl index runs")
    if rebuild:
        discard(runs)
    ask(runs, _print_digest if only_digest else _print_all)


def _print_digest(index: Any) -> None:
    console.print(index.digest())


def _print_all(index: Any) -> None:
    counts = index.counts()
    grid = Grid(box=None, pad_edge=False)
    for title in ("benchmark", "method", "status"):
        grid.add_column(title)
    grid.add_column("results", justify="right")
    for count in counts:
        grid.add_row(*map(Text, (count.benchmark, count.method, count.status, str(count.results))))
    if counts:
        console.print(grid)
    for problem in index.problems():
        sys.stderr.write(f"mmcl: left out: {problem}\n")
    console.print(f"{sum(count.results for count in counts)} results", markup=False)
    place = index.location or "in memory: the folder is empty, a single run, or cannot be written"
    console.print(f"index: {place}", markup=False)
    console.print(f"digest: {index.digest()}", markup=False)
