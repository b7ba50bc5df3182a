"""What the page shows of a run: its figures, pictures of its answers and bytes, and what it retrieved."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup

from mmcl.report import figures, heatmaps, stream_figures
from mmcl.report.figures import Curve
from mmcl.report.retrieved import Retrieval, read_retrievals
from mmcl.results.result import TEST, Result
from mmcl.results.traces import Trace, pictured, read_traces, with_usage

RETRIEVAL_BYTES = 2**23  # of a page, for what queries of its runs looked at
DRAWN_BYTES = 2**22  # of a page, for what commands drew into the directories of its runs
Matrix = Sequence[Sequence[float | None]]
DRAWN = {  # by mmcl exemplars
    "exemplars.png": "kept images before and after they were learned, and the difference",
    "exemplars_drift.png": "how far the pixels of exemplars moved, class by class",
    "exemplars_tsne.png": "exemplars among training images of their classes (t-SNE); the smaller silhouette and "
    "margin (cosine with the nearest class mean less that with the second), the nearer they lie to boundaries",
}


@dataclass(frozen=True, eq=False)
class RunView:
    """What the page shows of a run: the result, pictures of usual and of large width, what queries looked at."""

    anchor: str
    result: Result
    pictures: Mapping[str, Markup]
    large: Mapping[str, Markup]
    retrievals: Sequence[Retrieval]


class Room:
    """How many bytes of a page are left for something, and the runs that found no room."""

    def __init__(self, nbytes: int) -> None:
        self.left = nbytes
        self.left_out: list[Path] = []

    def take(self, nbytes: int, run: Path) -> bool:
        """Return whether some bytes of a run still fit; from then on, they are taken."""
        if nbytes > self.left:
            self.left_out.append(run)
            return False
        self.left -= nbytes
        return True

    def lines(self, what: str) -> list[str]:
        """Return a line about the runs that found no room."""
        count = len(self.left_out)
        return [f"no room for what {count} runs {what}. One alone: mmcl report {self.left_out[0]}"] if count else []


def run_views(results: Sequence[Result], addresses: Mapping[Path, str]) -> tuple[list[RunView], list[str]]:
    """Return what the page shows of runs, and lines about what could not be read or had no room.

    Args:
        results: the runs that get a section.
        addresses: where on the page each of them is, by the path of its result.
    """
    problems: list[str] = []
    retrieved, drew = Room(RETRIEVAL_BYTES), Room(DRAWN_BYTES)
    views = []
    for result in results:
        run = result.path.parent
        traces, unreadable = read_traces(run) if result.evaluations else ([], [])
        retrievals, skipped = read_retrievals(run)
        problems += [*unreadable, *skipped, *result.confusion_problems]
        if not retrieved.take(sum(retrieval.nbytes for retrieval in retrievals), run):
            retrievals = []
        drawn = _drawn_pictures(run)
        if not drew.take(sum(map(len, drawn.values())), run):
            drawn = {}
        large = _marked(_dataset_accuracies(result) | _trace_pictures(result, traces) | drawn)
        views.append(RunView(addresses[result.path], result, _marked(_run_pictures(result)), large, retrievals))
    return views, [*problems, *retrieved.lines("retrieved"), *drew.lines("drew")]


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
        pictures[caption] = figures.accuracy_curves(curves, over="distributions met", width=figures.SMALL_WIDTH)
    for readout, entry in result.readouts_on(TEST).items():
        if entry.get("accuracy_matrix") and several:
            matrix = entry["accuracy_matrix"]
            pictures |= _matrix_pictures(readout, matrix, "distribution", "distribution", "after distribution")
        if readout in result.confusions:
            pictures[f"{readout}: confusion matrix"] = heatmaps.confusion_matrix(result.confusions[readout], ())
    return pictures


def _answer_pictures_of_datasets(result: Result) -> dict[str, str]:
    names = result.task_names
    curves = _dataset_curves(result).values()
    evaluated = [index for curve in curves for index, value in enumerate(curve) if value is not None]
    latest = names[max(evaluated, default=len(names) - 1)]
    return {
        f"{readout}: confusion matrix of {latest}": heatmaps.confusion_matrix(counts, ())
        for readout, counts in result.confusions.items()
    }


def _dataset_accuracies(result: Result) -> dict[str, str]:
    """Draw accuracies where tasks are several data sets."""
    curves = {} if result.evaluations or len(result.task_names) < 2 else _dataset_curves(result)
    return {"accuracy on each data set": figures.dataset_accuracies(result.task_names, curves)} if curves else {}


def _dataset_curves(result: Result) -> dict[str, list[float | None]]:
    """Return percent on each data set by readout, without readouts that have none."""
    curves = {
        readout: _percent_entries(entry.get("accuracy_curve"), len(result.task_names))
        for readout, entry in result.readouts.items()
    }
    return {readout: curve for readout, curve in curves.items() if any(value is not None for value in curve)}


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
        pictures["accuracy over classes"] = figures.accuracy_curves(curves, width=figures.SMALL_WIDTH)
    for readout, entry in result.readouts.items():
        matrix = entry.get("accuracy_matrix")
        if matrix:
            pictures |= _matrix_pictures(readout, matrix, "task", "classes of task", "after task")
        if readout in result.confusions:
            counts = result.confusions[readout]
            pictures[f"{readout}: confusion matrix"] = heatmaps.confusion_matrix(counts, result.task_sizes)
    return pictures


def _matrix_pictures(readout: str, matrix: Matrix, step: str, columns: str, rows: str) -> dict[str, str]:
    """Draw accuracies after each task: of few tasks as lines that show what is forgotten, of all as a matrix."""
    pictures = {f"{readout}: accuracy matrix": heatmaps.accuracy_matrix(matrix, columns, rows)}
    if 1 < len(matrix) <= figures.MAX_LINES:
        pictures[f"{readout}: what became of each {step}"] = figures.task_accuracies(matrix, step)
    return pictures
