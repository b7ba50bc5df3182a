"""Comparisons as a table on the console."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from mmcl.report.comparison import ComparedTable, Comparison
from mmcl.report.tables import SWEEP_FIGURES

HEADINGS = {
    "average_incremental_accuracy": "average",
    "last_accuracy": "last",
    "forgetting": "forgetting",
    "top5_average": "top-5 average",
    "top5_last": "top-5 last",
    "auc_average": "AUC-A",
    "auc_last": "AUC-L",
    "apm_start": "APM-S",
    "apm_end": "APM-E",
}


def show(compared: ComparedTable, console: Console) -> None:
    """Print a compared table: ours, printed and difference for each figure."""
    table = compared.table
    caption = f"{table.source}; tolerance {table.tolerance:g}" if compared.printed else None
    grid = RichTable(title=table.title, caption=caption)
    grid.add_column("row")
    for figure in compared.figures:
        grid.add_column(HEADINGS[figure], justify="right")
        if compared.printed:
            grid.add_column("printed", justify="right", style="dim")
            grid.add_column("diff", justify="right")
    for entry in compared.rows:
        cells: list[str | Text] = [entry.row.label + (" *" if entry.changes else "")]
        for figure in compared.figures:
            cells.append(number(figure, entry.measured.get(figure)))
            if compared.printed:
                cells.append(number(figure, entry.row.printed.get(figure)))
                cells.append(_difference(entry, figure, table.tolerance))
        grid.add_row(*cells)
    console.print(grid)
    changes = sorted({change for entry in compared.rows for change in entry.changes})
    if changes:
        console.print(f"* with {' '.join(changes)}", highlight=False)


def number(figure: str, value: object) -> str:
    """Format a figure: two decimals; three significant digits for small ratios; nothing when missing."""
    if not isinstance(value, float):
        return ""
    return f"{value:.3g}" if figure in SWEEP_FIGURES and abs(value) < 1 else f"{value:.2f}"


def signed(figure: str, value: float | None) -> str:
    """Format a difference with its sign."""
    if value is None:
        return ""
    return f"{value:+.2g}" if figure in SWEEP_FIGURES and abs(value) < 1 else f"{value:+.2f}"


def _difference(entry: Comparison, figure: str, tolerance: float) -> Text:
    within = entry.within(figure, tolerance)
    style = "" if within is None else "green" if within else "yellow"
    return Text(signed(figure, entry.difference(figure)), style=style)
