"""Compared tables as text: CSV for programs, Markdown and LaTeX as a paper would print them."""

from __future__ import annotations

import csv
import io
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from mmcl.errors import UserError, nearest
from mmcl.report.console import HEADINGS, number, spread
from mmcl.results.comparison import Cell, ComparedTable, Comparison
from mmcl.results.tables import CURVE_FIGURES
from mmcl.whole_files import write_whole

UNVERIFIED = "unverified"
TEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "[": "{[}",  # behind the end of a row it would begin an optional argument, and a star would change its meaning
    "*": "{*}",
    **{character: rf"\{character}" for character in "&%$#_{}"},
}
_TEX_TABLE = str.maketrans(TEX)


@dataclass(frozen=True)
class Line:
    """One line of a CSV file: a figure of a row. The fields are its columns, in this order.

    Attributes:
        table: name of the table.
        row: label of the row.
        readout: readout that is shown.
        figure: one of ``tables.FIGURES``.
        entry: of a curve, the data set or the number of the task from 1; ``mean`` over data sets; else empty.
        ours: mean over seeds, in the units of the table: percent, but for areas and ratios of memory sweeps.
        spread: standard deviation over seeds, or empty below two.
        seeds: number of seeds behind ``ours``; 0 where nothing was run.
        printed: the printed value, or empty.
        difference: ours minus printed, or empty.
        within: ``True`` or ``False`` by the tolerance of the table, or empty.
        source: where the printed value is from.
        identities: identities of the runs, with blanks between.
        command: what makes the runs.
    """

    table: str
    row: str
    readout: str
    figure: str
    entry: str
    ours: float | None
    spread: float | None
    seeds: int
    printed: float | None
    difference: float | None
    within: bool | None
    source: str | None
    identities: str
    command: str


def write_tables(compared: Sequence[ComparedTable], folder: Path, kinds: Sequence[str]) -> list[Path]:
    """Write every table in every kind, each file whole or not at all.

    Args:
        compared: tables joined with their runs.
        folder: folder to write in; ``memo/cifar100_b0_inc10`` becomes ``FOLDER/memo/cifar100_b0_inc10.csv``.
        kinds: some of ``KINDS``.

    Returns:
        The files, table by table.

    Raises:
        UserError: an unknown kind, or the folder cannot be written.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise UserError(f"no tables are written as '{kind}'.{nearest(kind, KINDS)} Kinds: {', '.join(KINDS)}")
    written: list[Path] = []
    for table in compared:
        for kind in kinds:
            ending, as_text = KINDS[kind]
            path = folder / f"{table.table.name}{ending}"
            _write(path, as_text(table))
            written.append(path)
    return written


def _write(path: Path, text: str) -> None:
    write_whole(path, lambda part: part.write_text(text, encoding="utf-8", newline="\n"))


def as_csv(compared: ComparedTable) -> str:
    """Return a table with one line for each figure of each row, numbers at full precision."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(field.name for field in fields(Line))
    writer.writerows(astuple(line) for line in lines_of(compared))
    return text.getvalue()


def lines_of(compared: ComparedTable) -> Iterator[Line]:
    """Yield one line for each figure of each row; of class-incremental tables, curves task by task, too."""
    names = compared.columns if compared.table.columns else [""] * len(compared.figures)
    for entry in compared.rows:
        for name, cell in [*zip(names, compared.cells(entry), strict=True), *_tasks(compared, entry)]:
            yield Line(
                table=compared.table.name,
                row=entry.row.label,
                readout=entry.row.readout,
                figure=cell.figure,
                entry=name,
                ours=cell.ours,
                spread=cell.spread,
                seeds=entry.seeds if cell.ours is not None else 0,
                printed=cell.printed,
                difference=cell.difference,
                within=cell.within,
                source=None if cell.printed is None else entry.row.source,
                identities=" ".join(result.identity for result in entry.results),
                command=command_of(entry),
            )


def _tasks(compared: ComparedTable, entry: Comparison) -> list[tuple[str, Cell]]:
    """Return the entries of a row's curves with the numbers of their tasks, where tasks are no data sets."""
    if compared.table.columns:
        return []
    found: list[tuple[str, Cell]] = []
    for figure in CURVE_FIGURES:
        curves = [value for figures in (entry.measured, entry.row.printed) if (value := figures.get(figure))]
        count = max((len(curve) for curve in curves if isinstance(curve, tuple)), default=0)
        cells = entry.curve_cells(figure, count, compared.table.tolerance)
        found += [(str(task), cell) for task, cell in enumerate(cells, 1)]
    return found


def command_of(entry: Comparison) -> str:
    """Return what to type for the runs of a row: all seeds at once; of a sweep, one command for each budget."""
    seeds = list(dict.fromkeys(str(result.seed) for result in entry.results))
    several = len(seeds) > 1 and not entry.row.sweep
    begin = "python -m mmcl.run -m" if several else "python -m mmcl.run"
    further = [*entry.changes, *([f"seed={','.join(seeds)}"] if several else [])]
    return " && ".join(f"{begin} {shlex.join([*overrides, *further])}" for overrides in entry.row.runs)


@dataclass(frozen=True)
class Grid:
    """A table as a paper prints it: text that no format has escaped yet.

    Attributes:
        headings: of the columns; the first one holds labels, the others numbers.
        rows: as many cells as headings.
        title: what the table compares.
        notes: sentences below it.
    """

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str
    notes: tuple[str, ...]


def grid_of(compared: ComparedTable) -> Grid:
    """Lay a table out: a printed value beside ours or, where the columns are data sets, in a line below."""
    seeds = ["seeds"] if any(entry.seeds > 1 for entry in compared.rows) else []
    if compared.table.columns:
        columns, rows_of = list(compared.columns), _below
    else:
        columns, rows_of = _columns(compared), _beside
    rows = [
        (label, *([str(entry.seeds) if entry.measured else ""] if seeds else []), *cells)
        for entry in compared.rows
        for label, *cells in rows_of(compared, entry)
    ]
    return Grid(("", *seeds, *columns), tuple(rows), compared.table.title, tuple(_notes(compared)))


def _printed_figures(compared: ComparedTable) -> set[str]:
    return {figure for entry in compared.rows for figure in entry.row.printed}


def _columns(compared: ComparedTable) -> list[str]:
    printed = _printed_figures(compared)
    names = [[HEADINGS[figure], "printed"] if figure in printed else [HEADINGS[figure]] for figure in compared.figures]
    return [name for pair in names for name in pair]


def _beside(compared: ComparedTable, entry: Comparison) -> list[list[str]]:
    printed = _printed_figures(compared)
    row = [_label(entry)]
    for cell in compared.cells(entry):
        row.append(_ours(cell))
        if cell.figure in printed:
            row.append(number(cell.figure, cell.printed))
    return [row]


def _below(compared: ComparedTable, entry: Comparison) -> list[list[str]]:
    cells = compared.cells(entry)
    ours = [_label(entry), *map(_ours, cells)]
    if all(cell.printed is None for cell in cells):
        return [ours]
    printed = [f"{entry.row.label}, printed", *(number(cell.figure, cell.printed) for cell in cells)]
    return [ours, printed] if any(ours[1:]) else [printed]


def _label(entry: Comparison) -> str:
    return f"{entry.row.label} *" if entry.changes else entry.row.label


def _ours(cell: Cell) -> str:
    return f"{number(cell.figure, cell.ours)} {spread(cell.figure, cell.spread)}".strip()


def _notes(compared: ComparedTable) -> Iterator[str]:
    table = compared.table
    if compared.printed:
        yield f"Printed values: {table.paper}, {table.source}; tolerance {table.tolerance:g}."
    if any(entry.spread for entry in compared.rows):
        yield "Of several seeds: mean and standard deviation."
    changes = sorted({change for entry in compared.rows for change in entry.changes})
    if changes:
        yield f"* with {' '.join(changes)}"
    unverified = [entry.row.label for entry in compared.rows if entry.row.source == UNVERIFIED]
    if unverified:
        yield f"Printed values that could not be verified: {'; '.join(unverified)}."


def as_markdown(compared: ComparedTable) -> str:
    """Return a table as Markdown, its title above and what a reader should know below it."""
    grid = grid_of(compared)
    headings, *rows = [[markdown_text(cell) for cell in row] for row in (grid.headings, *grid.rows)]
    parts = [f"# {markdown_text(grid.title)}", markdown_table(headings, rows), *map(markdown_text, grid.notes)]
    return "\n\n".join(parts) + "\n"


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table of cells that are Markdown already, without a line break at its end."""
    first, *others = (f"| {' | '.join(cells)} |" for cells in (headings, *rows))
    return "\n".join([first, f"|{'---|' * len(headings)}", *others])


def markdown_text(text: str) -> str:
    """Return text on one line that Markdown shows as it is, also within a table."""
    return re.sub(r"[\\|*`<>\[\]]|(?<!\w)_|_(?!\w)", r"\\\g<0>", _on_one_line(text))


def as_latex(compared: ComparedTable) -> str:
    """Return a table as a LaTeX ``table`` with rules of the package booktabs, a caption and a label."""
    grid = grid_of(compared)
    caption = " ".join(latex_text(part) for part in (f"{grid.title.rstrip('.')}.", *grid.notes))
    headings, *rows = [" & ".join(map(latex_text, row)) + r" \\" for row in (grid.headings, *grid.rows)]
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{caption}}}",
        rf"\label{{tab:{_latex_name(compared.table.name)}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(grid.headings) - 1)}}}",
        r"\toprule",
        headings,
        r"\midrule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "% needs \\usepackage{booktabs}\n" + "\n".join(lines) + "\n"


def latex_text(text: str) -> str:
    """Return text on one line that LaTeX sets as it is."""
    return _on_one_line(text).translate(_TEX_TABLE)


def _latex_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9:/.-]", "-", name)


def _on_one_line(text: str) -> str:
    return " ".join(text.split())


KINDS = {"csv": (".csv", as_csv), "latex": (".tex", as_latex), "markdown": (".md", as_markdown)}
