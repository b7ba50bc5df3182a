"""The report: one HTML file with all tables, pictures and runs, which opens offline."""

from __future__ import annotations

import base64
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

from mmcl.report import figures, stream_figures
from mmcl.report.comparison import ComparedTable, compare, overrides_of, pick_from
from mmcl.report.console import HEADINGS, number, seeds, signed, spread
from mmcl.report.figures import Curve
from mmcl.report.memory_sweep import find_sweeps
from mmcl.report.retrieved import Retrieval, read_retrievals
from mmcl.report.store import TEST, Result
from mmcl.report.table_figures import sweep_picture, table_pictures
from mmcl.report.tables import Table
from mmcl.report.traces import Trace, pictured, read_traces, with_usage

MAX_ROWS = 100  # of a table about one run; longer ones show some rows
SHOWN_ROWS = 25
RETRIEVAL_BYTES = 2**24  # of a page, for what queries of its runs looked at
DRAWN = {  # by mmcl exemplars
    "exemplars.png": "kept images before and after they were learned, and the difference",
    "exemplars_drift.png": "how far the pixels of exemplars moved, class by class",
    "exemplars_tsne.png": "exemplars among training images of their classes (t-SNE); the smaller silhouette and "
    "margin (cosine with the nearest class mean less that with the second), the nearer they lie to boundaries",
}


@dataclass(frozen=True, eq=False)
class TableView:
    """What the page shows of a table: the comparison and its pictures."""

    compared: ComparedTable
    pictures: Mapping[str, Markup]


@dataclass(frozen=True, eq=False)
class RunView:
    """What the page shows of a run: the result, pictures of usual and of large width, what queries looked at."""

    result: Result
    pictures: Mapping[str, Markup]
    large: Mapping[str, Markup]
    retrievals: Sequence[Retrieval]


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
    traced, unreadable = _traces_of(results)
    retrieved, left_out = _retrievals_of(results)
    page = _template().render(
        tables=[TableView(table, _marked(table_pictures(table))) for table in compared if table.measured],
        missing=[table.table for table in compared if not table.measured],
        sweeps=sweeps,
        sweep_picture=Markup(sweep_picture({sweep.label: sweep for sweep in sweeps})) if sweeps else "",
        runs=[
            RunView(
                result,
                _marked(_run_pictures(result)),
                _marked(_trace_pictures(result, traces) | _drawn_pictures(result.path.parent)),
                looked,
            )
            for result, traces, looked in zip(results, traced, retrieved, strict=True)
        ],
        problems=[*problems, *unreadable, *left_out],
        headings=HEADINGS,
        overrides_of=overrides_of,
        seeds=seeds,
    )
    return _replace(Path(path).expanduser(), _with_unique_ids(page))


def _template() -> Template:
    loader = PackageLoader("mmcl.report", ".")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    environment.filters.update(number=_number, signed=_signed, spread=_spread)
    environment.filters.update(choice=_choice, bytes=_bytes, percent=_percent, seconds=_seconds, thinned=_thinned)
    return environment.get_template("page.html")


def _traces_of(results: Sequence[Result]) -> tuple[list[list[Trace]], list[str]]:
    """Read the traces of runs on streams; return those of each run, and lines about files that cannot be read."""
    found = [read_traces(result.path.parent) if result.evaluations else ([], []) for result in results]
    return [traces for traces, _ in found], [line for _, lines in found for line in lines]


def _retrievals_of(results: Sequence[Result]) -> tuple[list[list[Retrieval]], list[str]]:
    """Read what queries looked at, of as many runs as a page has room for; return lines about the rest."""
    found: list[list[Retrieval]] = []
    lines: list[str] = []
    left_out: list[Path] = []
    room = RETRIEVAL_BYTES
    for result in results:
        retrievals, problems = read_retrievals(result.path.parent)
        lines += problems
        size = sum(retrieval.nbytes for retrieval in retrievals)
        if size > room:
            left_out.append(result.path.parent)
        found.append(retrievals if size <= room else [])
        room -= size if size <= room else 0
    if left_out:
        lines.append(f"no room for what {len(left_out)} runs retrieved. One alone: mmcl report {left_out[0]}")
    return found, lines


def _marked(pictures: Mapping[str, str]) -> dict[str, Markup]:
    return {caption: Markup(picture) for caption, picture in pictures.items()}


def _run_pictures(result: Result) -> dict[str, str]:
    after = "after task"
    if result.evaluations:
        pictures, after = _answer_pictures_of_streams(result), "after distribution"
    elif result.task_names:
        pictures = _answer_pictures_of_datasets(result)
    else:
        pictures = _answer_pictures(result)
    if result.bytes_per_task:
        pictures["bytes of model and memory"] = figures.bytes_per_task(result.bytes_per_task, after)
    return pictures


def _trace_pictures(result: Result, traces: Sequence[Trace]) -> dict[str, str]:
    pictures: dict[str, str] = {}
    in_plane = pictured([trace for trace in traces if trace.plane is not None])
    if in_plane:
        keys = any(trace.keys is not None for trace in in_plane)
        caption = "decision regions" + (
            "; dots are keys, the larger the more often their units won since they were last scrambled" if keys else ""
        )
        windows = len(result.task_sizes)
        pictures[caption] = stream_figures.decision_regions(in_plane, result.class_names, windows)
    used = with_usage(traces)
    if used:
        caption = "share of wins of each unit in each distribution, without those before a scramble in it; scrambles"
        if any(after.windows > before.windows + 1 for before, after in zip(used, used[1:], strict=False)):
            caption = (
                "share of wins of each unit between kept traces, without those before a scramble; mean of scrambles"
            )
        pictures[caption] = stream_figures.unit_usage(used)
    return pictures


def _drawn_pictures(run: Path) -> dict[str, str]:
    """Return the pictures that a command drew into the directory of a run, to be placed inside the page."""
    found = {caption: run / name for name, caption in DRAWN.items() if (run / name).is_file()}
    encoded = {caption: base64.b64encode(path.read_bytes()).decode() for caption, path in found.items()}
    return {caption: f'<img src="data:image/png;base64,{data}" alt="{caption}">' for caption, data in encoded.items()}


def _answer_pictures_of_streams(result: Result) -> dict[str, str]:
    """Draw the answers to test samples; others may select settings and get no picture."""
    pictures: dict[str, str] = {}
    several = len(result.task_sizes) > 1
    curves: dict[str, Curve] = {}
    for readout, entry in result.readouts_on(TEST).items():
        curve = _percent_entries(entry.get("accuracy_curve"), len(result.task_sizes))
        if any(value is not None for value in curve):
            curves[readout] = (range(1, len(curve) + 1), curve)
    if curves and several:
        caption = "accuracy on the distributions met so far"
        pictures[caption] = figures.accuracy_curves(curves, over="distributions met")
    for readout, entry in result.readouts_on(TEST).items():
        if entry.get("accuracy_matrix") and several:
            matrix = figures.accuracy_matrix(entry["accuracy_matrix"], "distribution", "after distribution")
            pictures[f"{readout}: accuracy matrix"] = matrix
        if readout in result.confusions:
            pictures[f"{readout}: confusion matrix"] = figures.confusion_matrix(result.confusions[readout], ())
    return pictures


def _answer_pictures_of_datasets(result: Result) -> dict[str, str]:
    pictures: dict[str, str] = {}
    names = result.task_names
    curves: dict[str, list[float | None]] = {}
    for readout, entry in result.readouts.items():
        curve = _percent_entries(entry.get("accuracy_curve"), len(names))
        if any(value is not None for value in curve):
            curves[readout] = curve
    if curves and len(names) > 1:
        pictures["accuracy on each data set"] = figures.dataset_accuracies(names, curves)
    evaluated = [index for curve in curves.values() for index, value in enumerate(curve) if value is not None]
    latest = names[max(evaluated, default=len(names) - 1)]
    for readout, counts in result.confusions.items():
        pictures[f"{readout}: confusion matrix of {latest}"] = figures.confusion_matrix(counts, ())
    return pictures


def _percent_entries(curve: Sequence[float | None] | None, count: int) -> list[float | None]:
    """Return a curve in percent, with None for each of ``count`` tasks that has no value yet."""
    percent = [None if value is None else 100 * value for value in curve or ()]
    return [*percent, *[None] * count][:count]


def _answer_pictures(result: Result) -> dict[str, str]:
    pictures: dict[str, str] = {}
    classes = np.cumsum(result.task_sizes).tolist()
    curves: dict[str, Curve] = {}
    for readout, entry in result.readouts.items():
        curve = entry.get("accuracy_curve") or ()
        if any(value is not None for value in curve):
            percent = [None if value is None else 100 * value for value in curve]
            curves[readout] = (classes[: len(curve)], percent[: len(classes)])
    if curves:
        pictures["accuracy over classes"] = figures.accuracy_curves(curves)
    for readout, entry in result.readouts.items():
        matrix = entry.get("accuracy_matrix")
        if matrix:
            pictures[f"{readout}: accuracy matrix"] = figures.accuracy_matrix(matrix)
        if readout in result.confusions:
            counts = result.confusions[readout]
            pictures[f"{readout}: confusion matrix"] = figures.confusion_matrix(counts, result.task_sizes)
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
    if value is None:
        return ""
    if value >= figures.SMALL_BYTES:
        return f"{value / 2**20:.2f} MiB"
    return f"{value / 2**10:.2f} KiB" if value else "0"


def _thinned(entries: Sequence[Any]) -> list[tuple[int, Any]]:
    """Return entries with their positions: all of them or, of very many, some at equal distances and the last."""
    step = 1 if len(entries) <= MAX_ROWS else -(-len(entries) // SHOWN_ROWS)
    rows = list(enumerate(entries))
    return rows[step - 1 :: step] if len(rows) % step == 0 else [*rows[step - 1 :: step], rows[-1]]


def _seconds(value: Any) -> str:
    if value is None:
        return ""
    minutes, seconds = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{value:.1f} s"
