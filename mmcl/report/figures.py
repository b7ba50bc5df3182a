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
MARKERS = "os^D"  # the second round of colours gets another one
MAX_ANNOTATED = 12
BYTE_PARTS = {
    "model": ("model_bytes", "head_bytes", "buffer_bytes"),
    "memory": ("memory_bytes",),
    "teacher": ("teacher_bytes",),
}
Curve = tuple[Sequence[float], Sequence[float | None]]


def accuracy_curves(ours: Mapping[str, Curve], printed: Mapping[str, Curve] | None = None) -> str:
    """Draw accuracy (percent) over the number of classes; printed curves are dashed, in our colour."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _axes("classes seen", "accuracy (%)")
        printed = printed or {}
        for index, label in enumerate(dict.fromkeys([*ours, *printed])):
            colour = COLOURS[index % len(COLOURS)]
            marker = MARKERS[index // len(COLOURS) % len(MARKERS)]
            if label in ours:
                axes.plot(*_floats(ours[label]), marker=marker, color=colour, label=label)
            if label in printed:
                axes.plot(*_floats(printed[label]), linestyle="--", color=colour, label=f"{label}, printed")
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
        return _svg(figure)


def dataset_accuracies(
    names: Sequence[str],
    ours: Mapping[str, Sequence[float | None]],
    printed: Mapping[str, Sequence[float | None]] | None = None,
) -> str:
    """Draw accuracies (percent) of data sets, one line of dots for each; printed ones are hollow, in our colour."""
    with matplotlib.rc_context(STYLE):
        printed = printed or {}
        legend_columns = 2 if max(map(len, ours)) < 30 else 1
        height = 0.8 + len(names) * max(0.3, 0.035 * len(ours)) + 0.17 * -(-len(ours) // legend_columns)
        figure, axes = _axes("accuracy (%)", "", size=(5.6, height))
        offsets = np.linspace(-0.3, 0.3, len(ours)) if len(ours) > 1 else np.zeros(1)
        for index, (label, offset) in enumerate(zip(ours, offsets, strict=True)):
            style: Any = {"color": COLOURS[index % len(COLOURS)], "linestyle": "none"}
            style["marker"] = MARKERS[index // len(COLOURS) % len(MARKERS)]
            rows = np.arange(len(names)) + offset
            axes.plot(np.array(ours[label], dtype=np.float64), rows, label=label, **style)
            if label in printed:
                axes.plot(np.array(printed[label], dtype=np.float64), rows, fillstyle="none", **style)
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.grid(axis="x", color="#808080", alpha=0.3, linewidth=0.5)
        figure.legend(loc="outside lower left", ncols=legend_columns)
        return _svg(figure)


def accuracy_matrix(matrix: Sequence[Sequence[float | None]]) -> str:
    """Draw accuracies (fractions) of each task's classes (columns) after each task (rows) in percent."""
    with matplotlib.rc_context(STYLE):
        percent = 100 * np.array(matrix, dtype=np.float64)
        figure, axes = _axes("classes of task", "after task", size=(4.2, 3.6))
        image = axes.imshow(np.ma.masked_invalid(percent), cmap="cividis", vmin=0, vmax=100, interpolation="none")
        figure.colorbar(image, ax=axes, label="accuracy (%)", fraction=0.046)
        if len(percent) <= MAX_ANNOTATED:
            for (row, column), value in np.ndenumerate(percent):
                if not np.isnan(value):
                    colour = "#ffffff" if value < 50 else "#000000"
                    axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=7, color=colour)
        _whole_ticks(axes)
        return _svg(figure)


def confusion_matrix(counts: NDArray[np.int64], task_sizes: Sequence[int]) -> str:
    """Draw counts ``(C, C)``, true class by predicted class, as shares of the true class."""
    with matplotlib.rc_context(STYLE):
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        figure, axes = _axes("predicted class", "true class", size=(4.2, 3.6))
        image = axes.imshow(shares, cmap="magma", vmin=0, vmax=1, interpolation="none")
        figure.colorbar(image, ax=axes, label="share of the true class", fraction=0.046)
        for end in np.cumsum(task_sizes)[:-1]:
            axes.axhline(end - 0.5, color="#808080", linewidth=0.4)
            axes.axvline(end - 0.5, color="#808080", linewidth=0.4)
        _whole_ticks(axes)
        return _svg(figure)


def bytes_per_task(entries: Sequence[Mapping[str, Any]]) -> str:
    """Draw measured bytes after each task, stacked, in MiB; heads and buffers count as model."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _axes("after task", "MiB", size=(4.2, 3.0))
        tasks = [entry.get("task", index) for index, entry in enumerate(entries)]
        below = np.zeros(len(tasks))
        for (label, keys), colour in zip(BYTE_PARTS.items(), COLOURS, strict=False):
            mebibytes = np.array([sum(entry.get(key) or 0 for key in keys) for entry in entries]) / 2**20
            if mebibytes.any():
                axes.bar(tasks, mebibytes, bottom=below, color=colour, label=label)
            below += mebibytes
        if below.any():
            axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        return _svg(figure)


def accuracy_over_memory(sweeps: Mapping[str, Curve]) -> str:
    """Draw accuracy (percent) over memory (MB), one line for each sweep."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _axes("memory (MB)", "average incremental accuracy (%)")
        for index, (label, curve) in enumerate(sweeps.items()):
            axes.plot(*_floats(curve), marker="o", color=COLOURS[index % len(COLOURS)], label=label)
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
        return _svg(figure)


def _axes(x_label: str, y_label: str, size: tuple[float, float] = (6.4, 3.4)) -> tuple[Figure, Axes]:
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    return figure, axes


def _floats(curve: Curve) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x, y = (np.array(values, dtype=np.float64) for values in curve)
    return x, y


def _whole_ticks(axes: Axes) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))


def _svg(figure: Figure) -> str:
    """Return the picture without document type, addresses and style sheet."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "mmcl"}):
        metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=metadata, transparent=True, bbox_inches="tight")
    text = buffer.getvalue()
    text = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", text[text.index("<svg") :]).replace(INK, "currentColor")
    text = re.sub(r"<style.*?</style>", "", text, count=1)  # it would hold for the whole page
    return re.sub(r"<svg[^>]*?viewBox=(\"[^\"]*\")[^>]*>", r'<svg viewBox=\1 role="img">', text, count=1)
