"""Pictures of compared tables: those of a page by their captions, and one for a file of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mmcl.errors import UserError
from mmcl.report import figures
from mmcl.report.figures import Curve
from mmcl.results.comparison import Cell, ComparedTable
from mmcl.results.costs import costs_of
from mmcl.results.memory_sweep import Sweep
from mmcl.whole_files import write_whole

FIGURE = "last_accuracy"
FORMAT = ".svg"
MAX_BARS = 60  # rows; more of them are for the table to tell
Units = Mapping[str, tuple[float, float]]  # size of each, and from which value on it suits
TIMES: Units = {"s": (1.0, 0.0), "min": (60.0, 180.0), "h": (3600.0, 10800.0)}
SIZES: Units = {"KiB": (2.0**10, 0.0), "MiB": (2.0**20, figures.SMALL_BYTES)}
Line = dict[str, Cell]


def table_pictures(compared: ComparedTable) -> dict[str, str]:
    """Draw what a page shows of a table with measured rows."""
    if compared.table.columns:
        # One data set alone needs no picture beside its column.
        several = len(compared.table.columns) > 1
        pictures = _with_caption(compared, "Accuracy on each data set") if several else {}
    elif _of_streams(compared):
        pictures = _with_caption(compared, "Accuracy after the stream")
    else:
        pictures = _curves(compared)
    sweeps = {entry.row.label: entry.sweep for entry in compared.rows if entry.sweep is not None}
    if sweeps:
        pictures["Average incremental accuracy over memory"] = sweep_picture(sweeps)
    return pictures | _bars(compared)


def figure_of_table(compared: ComparedTable) -> str:
    """Draw the measured rows as dots: a line for each data set or setting, a colour for each method.

    Where tasks are no data sets, it shows the last accuracy, and the last part of a label, "Memory Head, CDI", is the
    setting. Bars through dots are the standard deviation over seeds.
    """
    lines = _dots(compared)
    ours: dict[str, list[float | None]] = {}
    printed: dict[str, list[float | None]] = {}
    spread: dict[str, list[float | None]] = {}
    for method in dict.fromkeys(method for line in lines.values() for method in line):
        cells = [line.get(method, Cell(FIGURE)) for line in lines.values()]
        ours[method] = [cell.ours for cell in cells]
        if any(cell.printed is not None for cell in cells):
            printed[method] = [cell.printed for cell in cells]
        if any(cell.spread is not None for cell in cells):
            spread[method] = [cell.spread for cell in cells]
    return figures.dataset_accuracies(list(lines), ours, printed, spread)


def write_figure(compared: ComparedTable, path: Path) -> Path:
    """Write the figure of a table to an SVG file, whole or not at all.

    Raises:
        UserError: no row was measured, or the file has another ending.
    """
    if path.suffix != FORMAT:
        raise UserError(f"{path}: figures are written as SVG. Type: {path.with_suffix(FORMAT)}")
    if not any(_dots(compared).values()):
        raise UserError(
            f"table {compared.table.name}: no finished run of any row. Type: mmcl reproduce {compared.table.name}, or "
            "name the folder of its runs by --runs"
        )
    text = figures.as_file(figure_of_table(compared)) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda part: part.write_text(text, encoding="utf-8"))
    return path


def sweep_picture(sweeps: Mapping[str, Sweep]) -> str:
    """Draw accuracy over memory, a line for each sweep."""
    curves: dict[str, Curve] = {
        label: (sweep.memory_mb, [100 * value for value in sweep.average]) for label, sweep in sweeps.items()
    }
    return figures.accuracy_over_memory(curves)


def _with_caption(compared: ComparedTable, caption: str) -> dict[str, str]:
    cells = [cell for line in _dots(compared).values() for cell in line.values()]
    if not cells:
        return {}
    hollow = any(cell.printed is not None for cell in cells)
    return {caption + (", ours filled and printed hollow" if hollow else ""): figure_of_table(compared)}


def _of_streams(compared: ComparedTable) -> bool:
    results = [result for entry in compared.rows for result in entry.results]
    return bool(results) and all(result.evaluations for result in results)


def _dots(compared: ComparedTable) -> dict[str, Line]:
    """Return the lines of dots by data set or setting: a cell for each method that was measured."""
    lines: dict[str, Line] = {name: {} for name in compared.table.columns}
    for entry in compared.rows:
        label = entry.row.label
        if compared.table.columns:
            cells = dict(zip(lines, compared.cells(entry), strict=False))  # beyond the columns, there is a mean
        else:
            method, _, setting = label.rpartition(", ")
            label, cells = method or label, {setting if method else "": entry.cell(FIGURE)}
        if any(cell.ours is not None for cell in cells.values()):
            for name, cell in cells.items():
                lines.setdefault(name, {})[label] = cell
    return lines


def _curves(compared: ComparedTable) -> dict[str, str]:
    """Draw accuracy over classes, a picture for each benchmark of the table."""
    ours: dict[str, dict[str, Curve]] = {}
    printed: dict[str, dict[str, Curve]] = {}
    for entry in compared.rows:
        curve, printed_curve = entry.measured.get("accuracy_curve"), entry.row.printed.get("accuracy_curve")
        # Where tasks are data sets, their accuracies are no curve over classes.
        if not isinstance(curve, tuple) or not entry.results or entry.results[0].task_names:
            continue
        benchmark = entry.results[0].name_of("benchmark")
        classes = np.cumsum(entry.results[0].task_sizes).tolist()
        ours.setdefault(benchmark, {})[entry.row.label] = (classes[: len(curve)], curve)
        if isinstance(printed_curve, tuple) and len(printed_curve) == len(classes):
            printed.setdefault(benchmark, {})[entry.row.label] = (classes, printed_curve)
    pictures: dict[str, str] = {}
    for benchmark, curves in ours.items():
        caption = "Accuracy over classes" + (f" of {benchmark}" if len(ours) > 1 else "")
        caption += ", ours solid and printed dashed" if benchmark in printed else ""
        pictures[caption] = figures.accuracy_curves(curves, printed.get(benchmark, {}))
    return pictures


def _bars(compared: ComparedTable) -> dict[str, str]:
    """Draw what rows forget and cost beside each other; of a single row, its line of the table says all."""
    rows = [entry for entry in compared.rows if entry.measured][:MAX_BARS]
    costs = [costs_of(entry.results) for entry in rows]
    seconds = [cost.seconds for cost in costs]
    kept = [cost.kept_bytes for cost in costs]
    time, second = _unit(seconds, TIMES)
    unit, byte = _unit(kept, SIZES)
    panels: dict[str, list[float | None]] = {
        "forgetting": [entry.cell("forgetting").ours for entry in rows],
        f"time ({time})": [None if value is None else value / second for value in seconds],
        "images/s": [cost.images_per_second for cost in costs],
        f"kept ({unit})": [None if value is None else value / byte for value in kept],
    }
    panels = {title: values for title, values in panels.items() if any(values)}
    if len({tuple(result.path for result in entry.results) for entry in rows}) < 2 or not panels:
        return {}
    caption = "Forgetting and cost of each row" if "forgetting" in panels else "Cost of each row"
    return {caption: figures.row_bars([entry.row.label for entry in rows], panels)}


def _unit(values: Sequence[float | None], units: Units) -> tuple[str, float]:
    """Return the unit that suits the largest value, and its size; ``units`` ascend."""
    largest = max((value for value in values if value is not None), default=0.0)
    return [(name, size) for name, (size, least) in units.items() if largest >= least][-1]
