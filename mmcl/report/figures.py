"""Pictures of the report, one function per picture; each returns SVG text to be placed inside a page.

Ids are unique within a picture only; the page that holds several numbers them.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

# Drawn in this colour, then replaced by the page's text colour, so that a picture suits light and dark pages.
INK = "#010203"
# Distinguishable with any colour vision, and readable on light and on dark.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#999999")
STYLE: Any = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.6,
    "lines.markersize": 4,
}
GREY = "#808080"
MARKERS = "os^D"  # the second round of colours gets another one
MAX_ANNOTATED = 12
MAX_MARKED = 50
BAND = 0.85  # of the height of a line is for dots
BAR: Any = {"elinewidth": 1.0, "capsize": 1.5}
BYTE_PARTS = {
    "model": ("model_bytes", "head_bytes", "buffer_bytes"),
    "memory": ("memory_bytes",),
    "teacher": ("teacher_bytes",),
}
SMALL_BYTES = 2**20 / 10  # below this, KiB tell more
Curve = tuple[Sequence[float], Sequence[float | None]]


def accuracy_curves(
    ours: Mapping[str, Curve], printed: Mapping[str, Curve] | None = None, over: str = "classes seen"
) -> str:
    """Draw accuracy (percent) over the number of classes, or what ``over`` says; printed curves are dashed."""
    with matplotlib.rc_context(STYLE):
        figure, axes = one_axes(over, "accuracy (%)")
        printed = printed or {}
        for index, label in enumerate(dict.fromkeys([*ours, *printed])):
            colour = COLOURS[index % len(COLOURS)]
            marker = MARKERS[index // len(COLOURS) % len(MARKERS)]
            if label in ours:
                marker = marker if len(ours[label][0]) <= MAX_MARKED else ""
                axes.plot(*_floats(ours[label]), marker=marker, color=colour, label=label)
            if label in printed:
                axes.plot(*_floats(printed[label]), linestyle="--", color=colour, label=f"{label}, printed")
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        return svg_text(figure)


def dataset_accuracies(
    names: Sequence[str],
    ours: Mapping[str, Sequence[float | None]],
    printed: Mapping[str, Sequence[float | None]] | None = None,
    spread: Mapping[str, Sequence[float | None]] | None = None,
) -> str:
    """Draw accuracies (percent) of data sets, one line of dots for each.

    Args:
        names: of the data sets, or of other settings that have a line each.
        ours: accuracies by the name of a row, one for each of the lines.
        printed: likewise; hollow, in our colour.
        spread: half the lengths of the bars through our dots.
    """
    with matplotlib.rc_context(STYLE):
        printed, spread = printed or {}, spread or {}
        legend_columns = 2 if max(map(len, ours)) < 30 else 1
        height = 0.8 + len(names) * max(0.3, 0.045 * len(ours)) + 0.17 * -(-len(ours) // legend_columns)
        figure, axes = one_axes("accuracy (%)", "", size=(5.6, height))
        offsets = BAND * ((np.arange(len(ours)) + 0.5) / len(ours) - 0.5)
        for index, (label, offset) in enumerate(zip(ours, offsets, strict=True)):
            style: Any = {"color": COLOURS[index % len(COLOURS)], "linestyle": "none"}
            style["marker"] = MARKERS[index // len(COLOURS) % len(MARKERS)]
            rows = np.arange(len(names)) + offset
            values = np.array(ours[label], dtype=np.float64)
            axes.plot(values, rows, label=label, **style)
            if label in printed:
                axes.plot(np.array(printed[label], dtype=np.float64), rows, fillstyle="none", **style)
            if label in spread:
                halves = np.array(spread[label], dtype=np.float64)
                axes.errorbar(values, rows, xerr=halves, fmt="none", ecolor=style["color"], **BAR)
        if printed:
            axes.plot([], [], marker="o", color=INK, linestyle="none", fillstyle="none", label="printed")
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        for end in range(1, len(names)):
            axes.axhline(end - 0.5, color=GREY, alpha=0.3, linewidth=0.5)
        axes.grid(axis="x", color=GREY, alpha=0.3, linewidth=0.5)
        figure.legend(loc="outside lower left", ncols=legend_columns)
        return svg_text(figure)


def accuracy_matrix(
    matrix: Sequence[Sequence[float | None]], columns: str = "classes of task", rows: str = "after task"
) -> str:
    """Draw accuracies (fractions) of each task's classes (columns) after each task (rows) in percent."""
    with matplotlib.rc_context(STYLE):
        percent = 100 * np.array(matrix, dtype=np.float64)
        figure, axes = one_axes(columns, rows, size=(4.2, 3.6))
        image = axes.imshow(np.ma.masked_invalid(percent), cmap="cividis", vmin=0, vmax=100, interpolation="none")
        figure.colorbar(image, ax=axes, label="accuracy (%)", fraction=0.046)
        if len(percent) <= MAX_ANNOTATED:
            for (row, column), value in np.ndenumerate(percent):
                if not np.isnan(value):
                    colour = "#ffffff" if value < 50 else "#000000"
                    axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=7, color=colour)
        whole_ticks(axes)
        return svg_text(figure)


def confusion_matrix(counts: NDArray[np.int64], task_sizes: Sequence[int]) -> str:
    """Draw counts ``(C, C)``, true class by predicted class, as shares of the true class."""
    with matplotlib.rc_context(STYLE):
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        figure, axes = one_axes("predicted class", "true class", size=(4.2, 3.6))
        image = axes.imshow(shares, cmap="magma", vmin=0, vmax=1, interpolation="none")
        figure.colorbar(image, ax=axes, label="share of the true class", fraction=0.046)
        for end in np.cumsum(task_sizes)[:-1]:
            axes.axhline(end - 0.5, color=GREY, linewidth=0.4)
            axes.axvline(end - 0.5, color=GREY, linewidth=0.4)
        whole_ticks(axes)
        return svg_text(figure)


def bytes_per_task(entries: Sequence[Mapping[str, Any]], after: str = "after task") -> str:
    """Draw measured bytes after each task, stacked, in MiB or, where that is little, KiB; heads count as model."""
    with matplotlib.rc_context(STYLE):
        parts = {
            label: np.array([sum(entry.get(key) or 0 for key in keys) for entry in entries], dtype=np.float64)
            for label, keys in BYTE_PARTS.items()
        }
        unit, size = ("MiB", 2**20) if sum(parts.values(), np.zeros(1)).max() >= SMALL_BYTES else ("KiB", 2**10)
        figure, axes = one_axes(after, unit, size=(4.2, 3.0))
        tasks = [entry.get("task", index) for index, entry in enumerate(entries)]
        below = np.zeros(len(tasks))
        for (label, values), colour in zip(parts.items(), COLOURS, strict=False):
            if values.any():
                axes.bar(tasks, values / size, bottom=below, color=colour, label=label)
            below += values / size
        if below.any():
            axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        return svg_text(figure)


def accuracy_over_memory(sweeps: Mapping[str, Curve]) -> str:
    """Draw accuracy (percent) over memory (MB), one line for each sweep."""
    with matplotlib.rc_context(STYLE):
        figure, axes = one_axes("memory (MB)", "average incremental accuracy (%)")
        for index, (label, curve) in enumerate(sweeps.items()):
            axes.plot(*_floats(curve), marker="o", color=COLOURS[index % len(COLOURS)], label=label)
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
        return svg_text(figure)


def one_axes(x_label: str, y_label: str, size: tuple[float, float] = (6.4, 3.4)) -> tuple[Figure, Axes]:
    """Return a figure of a size in inches with one labelled axes."""
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    return figure, axes


def _floats(curve: Curve) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x, y = (np.array(values, dtype=np.float64) for values in curve)
    return x, y


def whole_ticks(axes: Axes) -> None:
    """Label whole numbers alone, and no more of them than there is room for."""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))


def as_file(picture: str) -> str:
    """Return a picture of a page as the text of a file of its own: dark on white, whatever the theme around it."""
    width, height = (float(size) for size in re.findall(r'viewBox="0 0 (\S+) (\S+)"', picture)[0])
    opening = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{width:g}pt" height="{height:g}pt" style="color: #1b1b1b; background: #ffffff"'
    )
    return picture.replace("<svg", opening, 1)


def svg_text(figure: Figure) -> str:
    """Return the picture without document type, addresses and style sheet."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "mmcl"}):
        metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=metadata, transparent=True, bbox_inches="tight")
    text = buffer.getvalue()
    text = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", text[text.index("<svg") :]).replace(INK, "currentColor")
    text = re.sub(r"<style.*?</style>", "", text, count=1)  # it would hold for the whole page
    return re.sub(r"<svg[^>]*?viewBox=(\"[^\"]*\")[^>]*>", r'<svg viewBox=\1 role="img">', text, count=1)
