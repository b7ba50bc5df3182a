"""Comparisons as a table on the console."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from mmcl.results.comparison import Cell, ComparedTable, Comparison
from mmcl.results.tables import SWEEP_FIGURES

HEADINGS = {
    "average_incremental_accuracy": "average",
    "last_accuracy": "last",
    "forgetting": "forgetting",
    "first_task_forgetting": "first-task forgetting",
    "forward_transfer": "forward transfer",
    "top5_average": "top-5 average",
    "top5_last": "top-5 last",
    "auc_average": "AUC-A",
    "auc_last": "AUC-L",
    "apm_start": "APM-S",
    "apm_end": "APM-E",
}
UNLIMITED = 1000  # characters a line


def show(compared: ComparedTable, console: Console) -> None:
    """Print a compared table: ours, printed and difference, beside each other or, for data sets, below each other."""
    table = compared.table
    caption = f"{table.source}; tolerance {table.tolerance:g}" if compared.printed else None
    grid = RichTable(title=table.title, caption=caption)
    grid.add_column("row")
    if table.columns:
        _fill_datasets(grid, compared)
        wanted = console.measure(grid, options=console.options.update_width(UNLIMITED)).maximum
        # a narrow terminal breaks the lines; figures are never cut
        Console(file=console.file, width=max(console.width, wanted)).print(grid)
    else:
        _fill_figures(grid, compared)
        console.print(grid)
    if any(entry.spread for entry in compared.rows):
        console.print("Of several seeds: mean and standard deviation.", highlight=False)
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


def spread(figure: str, value: float | None) -> str:
    """Format a standard deviation."""
    return "" if value is None else f"± {number(figure, value)}"


def seeds(entry: Comparison) -> str:
    """Return how many seeds a row is the mean of, and nothing for one."""
    return f"{entry.seeds} seeds" if entry.seeds > 1 else ""


def duration(seconds: float) -> str:
    """Format a time: 7.5 s, 3 min 20 s, 2 h 5 min, 3 d 4 h."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _fill_figures(grid: RichTable, compared: ComparedTable) -> None:
    for figure in compared.figures:
        grid.add_column(HEADINGS[figure], justify="right")
        if compared.printed:
            grid.add_column("printed", justify="right", style="dim")
            grid.add_column("diff", justify="right")
    for entry in compared.rows:
        cells: list[str | Text] = [_label(entry)]
        for cell in compared.cells(entry):
            cells.append(f"{_ours(cell)} {spread(cell.figure, cell.spread)}".rstrip())
            if compared.printed:
                cells += [number(cell.figure, cell.printed), _difference(cell)]
        grid.add_row(*cells)


def _fill_datasets(grid: RichTable, compared: ComparedTable) -> None:
    """Give each row one line for each of ours, spread, printed and difference that it has."""
    grid.add_column("")
    for column in compared.columns:
        grid.add_column(column, justify="right", no_wrap=True)
    lines: dict[str, Callable[[Cell], str | Text]] = {
        "ours": _ours,
        "spread": lambda cell: number(cell.figure, cell.spread),
        "printed": lambda cell: Text(number(cell.figure, cell.printed), style="dim"),
        "diff": _difference,
    }
    for entry in compared.rows:
        cells, label = compared.cells(entry), _label(entry)
        for name, text in lines.items():
            line = [text(cell) for cell in cells]
            if any(len(part) for part in line):
                grid.add_row(label, name, *line)
                label = ""
        if label:
            grid.add_row(label)
        grid.add_section()


def _label(entry: Comparison) -> str:
    label = ", ".join(part for part in (entry.row.label, seeds(entry)) if part)
    return label + (" *" if entry.changes else "")


def _ours(cell: Cell) -> str:
    return number(cell.figure, cell.ours)


def _difference(cell: Cell) -> Text:
    style = "" if cell.within is None else "green" if cell.within else "yellow"
    return Text(signed(cell.figure, cell.difference), style=style)
