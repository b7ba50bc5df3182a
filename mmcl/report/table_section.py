"""What the page shows of a table: rows with verdicts, costs and where they come from; pictures."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from markupsafe import Markup

from mmcl.report.figures import SMALL_BYTES
from mmcl.report.table_figures import table_pictures
from mmcl.results.comparison import Cell, ComparedTable, Comparison
from mmcl.results.costs import Costs, costs_of, hardware_of
from mmcl.results.result import Result

VERDICTS = ("within", "outside", "no print", "not run", "printed only")  # first words, in the order of the overview


@dataclass(frozen=True, eq=False)
class RowView:
    """What the page shows of a row.

    Attributes:
        entry: the row with what was measured.
        cells: one for each column of the table.
        verdict: one of ``VERDICTS``.
        detail: what the verdict leaves out, such as how many figures are outside.
        costs: means over the runs of the row.
        commands: what runs the row again, one command a line.
        runs: the runs behind the row, each with the address of its section where the page has one.
    """

    entry: Comparison
    cells: tuple[Cell, ...]
    verdict: str
    detail: str
    costs: Costs
    commands: str
    runs: tuple[tuple[Result, str | None], ...]

    @property
    def commits(self) -> str:
        """Commits of the runs, shortened."""
        return _listed([str(result.provenance.get("commit") or "unknown")[:12] for result, _ in self.runs])

    @property
    def hardware(self) -> str:
        """Hardware of the runs."""
        return _listed([hardware_of(result) for result, _ in self.runs])


@dataclass(frozen=True, eq=False)
class TableView:
    """What the page shows of a table: where its section is, the comparison, its rows, its pictures."""

    anchor: str
    compared: ComparedTable
    rows: tuple[RowView, ...]
    pictures: Mapping[str, Markup]

    @cached_property
    def verdicts(self) -> Counter[str]:
        """How many rows have each verdict."""
        return Counter(row.verdict for row in self.rows)

    @property
    def printed(self) -> list[bool]:
        """Whether any row has a print in each of the columns."""
        columns = zip(*(row.cells for row in self.rows), strict=True)
        return [any(cell.printed is not None for cell in column) for column in columns]

    @property
    def unit(self) -> str:
        """The unit in which the bytes of all rows are told."""
        largest = max((row.costs.kept_bytes or 0 for row in self.rows), default=0)
        return "MiB" if largest >= SMALL_BYTES else "KiB"

    @property
    def measured(self) -> int:
        """How many rows have figures of ours."""
        return sum(bool(row.entry.measured) for row in self.rows)

    @property
    def runnable(self) -> int:
        """How many rows some runs produce."""
        return sum(bool(row.entry.row.runs) for row in self.rows)


def table_views(tables: Sequence[ComparedTable], addresses: Mapping[Path, str]) -> list[TableView]:
    """Return what the page shows of tables; ``addresses`` are those of the runs that have a section."""
    taken: Counter[str] = Counter()
    views = []
    for compared in tables:
        anchor = "table-" + re.sub(r"[^a-z0-9]+", "-", compared.table.name.lower())
        taken[anchor] += 1
        anchor += f"-{taken[anchor]}" if taken[anchor] > 1 else ""
        rows = tuple(_row_view(compared, entry, addresses) for entry in compared.rows)
        pictures = {caption: Markup(picture) for caption, picture in table_pictures(compared).items()}
        views.append(TableView(anchor, compared, rows, pictures))
    return views


def _row_view(compared: ComparedTable, entry: Comparison, addresses: Mapping[Path, str]) -> RowView:
    cells = tuple(compared.cells(entry))
    word, detail = verdict_of(entry, cells)
    runs = tuple((result, addresses.get(result.path)) for result in entry.results)
    return RowView(entry, cells, word, detail, costs_of(entry.results), _commands(compared.table.name, entry), runs)


def verdict_of(entry: Comparison, cells: Sequence[Cell]) -> tuple[str, str]:
    """Say in a word how a row stands to its print, and what the word leaves out."""
    if not entry.row.runs:
        return "printed only", ""
    if not entry.measured:
        return "not run", f"{len(entry.results)} of {len(entry.row.runs)} runs" if entry.results else ""
    judged = [cell.within for cell in cells if cell.within is not None]
    if not judged:
        return "no print", ""
    outside = judged.count(False)
    detail = f"{outside} of {len(judged)}" if outside and len(judged) > 1 else ""
    return ("outside", detail) if outside else ("within", "")


def _commands(table: str, entry: Comparison) -> str:
    """Return the command of the row as these runs were made, then that of each run."""
    if not entry.row.runs:
        return ""
    seeds = dict.fromkeys(str(result.seed) for result in entry.results)
    changes = [change for change in entry.changes if not change.startswith("seed=")]
    changed = [change for change in entry.changes if change.startswith("seed=")]
    chosen = [f"seed={','.join(seeds)}"] if len(seeds) > 1 and not entry.row.sweep else changed
    lines = [shlex.join(["mmcl", "reproduce", table, "--rows", entry.row.label, *changes, *chosen])]
    if len(entry.results) < len(entry.row.runs):
        lines += [f"python -m mmcl.run {shlex.join(overrides)}" for overrides in entry.row.runs]
    else:
        lines += [result.command for result in entry.results]
    return "\n".join(dict.fromkeys(lines))


def _listed(values: Sequence[str]) -> str:
    return "; ".join(dict.fromkeys(values))
