"""The report: one HTML file with all tables, pictures and runs, which opens offline."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from mmcl.report import figures
from mmcl.report.comparison import ComparedTable, compare, overrides_of, pick_from
from mmcl.report.console import HEADINGS, number, seeds, signed, spread
from mmcl.report.figures import Curve
from mmcl.report.memory_sweep import Sweep, find_sweeps
from mmcl.report.store import Result
from mmcl.report.tables import Table


@dataclass(frozen=True, eq=False)
class TableView:
    """What the page shows of a table: the comparison and its pictures."""

    compared: ComparedTable
    pictures: Mapping[str, Markup]


@dataclass(frozen=True, eq=False)
class RunView:
    """What the page shows of a run: the result and its pictures."""

    result: Result
    pictures: Mapping[str, Markup]


def write_report(
    results: Sequence[Result], tables: Sequence[Table], path: Path | str, problems: Sequence[str] = ()
) -> Path:
    """Write one page about these results, each table that has a run behind it, and every sweep over budgets.

    Args:
        results: what ``find_results`` returned.
        tables: tables to compare with; those without any run are only named.
        path: the HTML file to write.
        problems: lines to show about files that could not be read.

    Returns:
        The path written.
    """
    compared = [compare(table, pick_from(results)) for table in tables]
    return write_page(compared, results, path, problems)


def write_page(
    compared: Sequence[ComparedTable],
    results: Sequence[Result],
    path: Path | str,
    problems: Sequence[str] = (),
) -> Path:
    """Write one page about tables whose rows are already joined with their runs; see ``write_report``."""
    sweeps = find_sweeps(results)
    page = _template().render(
        tables=[TableView(table, _table_pictures(table)) for table in compared if table.measured],
        missing=[table.table for table in compared if not table.measured],
        sweeps=sweeps,
        sweep_picture=_sweep_picture({sweep.label: sweep for sweep in sweeps}),
        runs=[RunView(result, _run_pictures(result)) for result in results],
        problems=problems,
        headings=HEADINGS,
        overrides_of=overrides_of,
        seeds=seeds,
    )
    return _replace(Path(path).expanduser(), _with_unique_ids(page))


def _template() -> Template:
    loader = PackageLoader("mmcl.report", ".")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    environment.filters.update(number=_number, signed=_signed, spread=_spread)
    environment.filters.update(choice=_choice, bytes=_bytes, percent=_percent, seconds=_seconds)
    return environment.get_template("page.html")


def _table_pictures(compared: ComparedTable) -> dict[str, Markup]:
    if compared.table.columns:
        return _dataset_pictures(compared)
    ours: dict[str, Curve] = {}
    printed: dict[str, Curve] = {}
    for entry in compared.rows:
        curve, printed_curve = entry.measured.get("accuracy_curve"), entry.row.printed.get("accuracy_curve")
        # Where tasks are data sets, their accuracies are no curve over classes.
        if isinstance(curve, tuple) and entry.results and not entry.results[0].task_names:
            classes = np.cumsum(entry.results[0].task_sizes).tolist()
            ours[entry.row.label] = (classes[: len(curve)], curve)
            if isinstance(printed_curve, tuple) and len(printed_curve) == len(classes):
                printed[entry.row.label] = (classes, printed_curve)
    sweeps = {entry.row.label: entry.sweep for entry in compared.rows if entry.sweep is not None}
    pictures = {}
    if ours:
        caption = "Accuracy over classes" + (", ours solid and printed dashed" if printed else "")
        pictures[caption] = Markup(figures.accuracy_curves(ours, printed))
    if sweeps:
        pictures["Average incremental accuracy over memory"] = _sweep_picture(sweeps)
    return pictures


def _dataset_pictures(compared: ComparedTable) -> dict[str, Markup]:
    """Draw the measured rows; one data set alone needs no picture beside its column."""
    names = compared.table.columns
    ours: dict[str, list[float | None]] = {}
    printed: dict[str, list[float | None]] = {}
    for entry in compared.rows:
        cells = compared.cells(entry)[: len(names)]
        if any(cell.ours is not None for cell in cells):
            ours[entry.row.label] = [cell.ours for cell in cells]
            if any(cell.printed is not None for cell in cells):
                printed[entry.row.label] = [cell.printed for cell in cells]
    if len(names) < 2 or not ours:
        return {}
    caption = "Accuracy on each data set" + (", ours filled and printed hollow" if printed else "")
    return {caption: Markup(figures.dataset_accuracies(names, ours, printed))}


def _sweep_picture(sweeps: Mapping[str, Sweep]) -> Markup:
    curves: dict[str, Curve] = {
        label: (sweep.memory_mb, [100 * value for value in sweep.average]) for label, sweep in sweeps.items()
    }
    return Markup(figures.accuracy_over_memory(curves)) if curves else Markup("")


def _run_pictures(result: Result) -> dict[str, Markup]:
    pictures = _answer_pictures_of_datasets(result) if result.task_names else _answer_pictures(result)
    if result.bytes_per_task:
        pictures["bytes of model and memory"] = Markup(figures.bytes_per_task(result.bytes_per_task))
    return pictures


def _answer_pictures_of_datasets(result: Result) -> dict[str, Markup]:
    pictures: dict[str, Markup] = {}
    names = result.task_names
    curves: dict[str, list[float | None]] = {}
    for readout, entry in result.readouts.items():
        curve = _percent_entries(entry.get("accuracy_curve"), len(names))
        if any(value is not None for value in curve):
            curves[readout] = curve
    if curves and len(names) > 1:
        pictures["accuracy on each data set"] = Markup(figures.dataset_accuracies(names, curves))
    evaluated = [index for curve in curves.values() for index, value in enumerate(curve) if value is not None]
    latest = names[max(evaluated, default=len(names) - 1)]
    for readout, counts in result.confusions.items():
        pictures[f"{readout}: confusion matrix of {latest}"] = Markup(figures.confusion_matrix(counts, ()))
    return pictures


def _percent_entries(curve: Sequence[float | None] | None, count: int) -> list[float | None]:
    """Return a curve in percent, with None for each of ``count`` tasks that has no value yet."""
    percent = [None if value is None else 100 * value for value in curve or ()]
    return [*percent, *[None] * count][:count]


def _answer_pictures(result: Result) -> dict[str, Markup]:
    pictures: dict[str, Markup] = {}
    classes = np.cumsum(result.task_sizes).tolist()
    curves: dict[str, Curve] = {}
    for readout, entry in result.readouts.items():
        curve = entry.get("accuracy_curve") or ()
        if any(value is not None for value in curve):
            percent = [None if value is None else 100 * value for value in curve]
            curves[readout] = (classes[: len(curve)], percent[: len(classes)])
    if curves:
        pictures["accuracy over classes"] = Markup(figures.accuracy_curves(curves))
    for readout, entry in result.readouts.items():
        matrix = entry.get("accuracy_matrix")
        if matrix:
            pictures[f"{readout}: accuracy matrix"] = Markup(figures.accuracy_matrix(matrix))
        if readout in result.confusions:
            counts = figures.confusion_matrix(result.confusions[readout], result.task_sizes)
            pictures[f"{readout}: confusion matrix"] = Markup(counts)
    return pictures


def _with_unique_ids(page: str) -> str:
    """Prefix the ids of each picture, and what refers to them, with the picture's number."""
    numbers = itertools.count()

    def numbered(picture: re.Match[str]) -> str:
        prefix = f"p{next(numbers)}-"
        return re.sub(r'(\sid="|href="#|url\(#)', rf"\g<1>{prefix}", picture[0])

    return re.sub(r"<svg .*?</svg>", numbered, page, flags=re.DOTALL)


def _replace(path: Path, text: str) -> Path:
    """Write a file so that nobody ever reads half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text, encoding="utf-8")
    return partial.replace(path)


def _number(value: object, figure: str) -> str:
    return number(figure, value)


def _signed(value: float | None, figure: str) -> str:
    return signed(figure, value)


def _spread(value: float | None, figure: str) -> str:
    return spread(figure, value)


def _percent(value: Any) -> str:
    return "" if value is None else f"{100 * value:.2f}"


def _choice(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else "" if value is None else str(value)


def _bytes(value: Any) -> str:
    return "" if value is None else f"{value / 2**20:.2f} MiB"


def _seconds(value: Any) -> str:
    if value is None:
        return ""
    minutes, seconds = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{value:.1f} s"
