"""The commands ``mmcl report``, ``figure`` and ``keep``: what is made of results."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from mmcl.errors import UserError

KINDS = ("csv", "latex", "markdown")
console = Console(highlight=False, soft_wrap=True)


def add_report_commands(commands: Any) -> None:
    """Add ``report``, ``figure`` and ``keep`` to the commands of ``mmcl``."""
    report = commands.add_parser("report", help="write one page about all results below a folder, or about one run")
    report.add_argument("runs", nargs="?", default="runs", help="folder of runs, directory of one, or a result.json")
    report.add_argument("--html", default=None, help="file to write; report.html in the folder otherwise")
    for kind in KINDS:
        report.add_argument(f"--{kind}", action="store_true", help=f"also write each table as {kind}, below tables/")
    report.set_defaults(action=_report)

    figure = commands.add_parser("figure", help="draw the accuracies of a table's methods into a file")
    figure.add_argument("table", help="a name from: mmcl ls tables; or a file")
    figure.add_argument("file", help="file to write: .svg")
    figure.add_argument("--runs", default="runs", help="folder of the runs, or of kept results")
    figure.set_defaults(action=lambda parsed: _figure(parsed.table, Path(parsed.runs), Path(parsed.file)))

    keep = commands.add_parser("keep", help="copy finished results, without paths of this machine, into a folder")
    keep.add_argument("runs")
    keep.add_argument("folder")
    keep.set_defaults(action=lambda parsed: _keep(Path(parsed.runs), Path(parsed.folder)))


def _report(parsed: argparse.Namespace) -> None:
    from mmcl.report.page import write_page
    from mmcl.report.written import write_tables
    from mmcl.results.comparison import compare, pick_from
    from mmcl.results.store import find_results
    from mmcl.results.tables import find_tables, load_table

    runs = Path(parsed.runs).expanduser()
    runs = runs.parent if runs.name == "result.json" else runs
    if not runs.is_dir():
        raise UserError(f"{runs}: no such folder. Name the folder of your runs, such as: mmcl report runs")
    results, problems = find_results(runs)
    for problem in problems:
        sys.stderr.write(f"mmcl: left out: {problem}\n")
    pick = pick_from(results)
    compared = [compare(load_table(path), pick) for path in find_tables()]
    if len(results) == 1:
        compared = [table.measured_rows() for table in compared if table.measured]
    kinds = [kind for kind in KINDS if getattr(parsed, kind)]
    if kinds:
        for path in write_tables([table for table in compared if table.measured], runs / "tables", kinds):
            console.print(str(path), markup=False)
    path = write_page(compared, results, Path(parsed.html) if parsed.html else runs / "report.html", problems=problems)
    console.print(f"{len(results)} results: {path}", markup=False)


def _figure(table: str, runs: Path, file: Path) -> None:
    from mmcl.report.table_figures import write_figure
    from mmcl.results.comparison import compare, pick_from
    from mmcl.results.store import find_results
    from mmcl.results.tables import load_table

    results, _ = find_results(runs)
    console.print(str(write_figure(compare(load_table(table), pick_from(results)), file)), markup=False)


def _keep(runs: Path, folder: Path) -> None:
    from mmcl.results.keep import keep_results

    for path in keep_results(runs, folder):
        console.print(str(path), markup=False)
