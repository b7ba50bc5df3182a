"""Pictures of the report, one function per picture; each returns SVG text to be placed inside a page.

None has an id or a style sheet, which would hold for the whole page.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from mmcl.report import plot
from mmcl.report.plot import MARKS, Entry, Frame, Scale

INK = "#1b1b1b"
# Distinguishable with any colour vision, and readable on light and on dark.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#999999")
STYLE: Any = {  # of pictures that matplotlib draws into files
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
MAX_MARKED = 50  # values of a line that get a mark each
MAX_POINTS = 400  # of a line or of bars; of more, some at equal distances are drawn
MAX_LINES = 20  # of tasks
WIDTH, HEIGHT = 480.0, 200.0
LEFT, RIGHT, TOP = 52.0, 12.0, 10.0
BELOW = 40.0  # for ticks and what the axis says
SMALL_WIDTH = 340.0
ROW = 17.0  # height of a line of dots or bars
PANEL_GAP = 12.0
BAND = 0.85  # of the height of a line is for dots
BYTE_PARTS = {
    "model": ("model_bytes", "head_bytes", "buffer_bytes"),
    "memory": ("memory_bytes",),
    "teacher": ("teacher_bytes",),
}
SMALL_BYTES = 2**20 / 10  # below this, KiB tell more
Curve = tuple[Sequence[float], Sequence[float | None]]


def accuracy_curves(
    ours: Mapping[str, Curve],
    printed: Mapping[str, Curve] | None = None,
    over: str = "classes seen",
    width: float = WIDTH,
) -> str:
    """Draw accuracy (percent) over the number of classes, or what ``over`` says; printed curves are dashed."""
    printed = printed or {}
    lines: list[tuple[Entry, Curve]] = []
    for index, label in enumerate(dict.fromkeys([*ours, *printed])):
        colour, mark = _colour(index), _mark(index)
        if label in ours:
            lines.append(
                (Entry(label, colour, mark if len(ours[label][0]) <= MAX_MARKED else "", line=True), ours[label])
            )
        if label in printed:
            lines.append((Entry(f"{label}, printed", colour, "", line=True, dashed=True), printed[label]))
    return _line_picture(lines, over, "accuracy (%)", width, whole_x=True)


def accuracy_over_memory(sweeps: Mapping[str, Curve]) -> str:
    """Draw accuracy (percent) over memory (MB), one line for each sweep."""
    lines = [
        (Entry(label, _colour(index), _mark(index), line=True), curve)
        for index, (label, curve) in enumerate(sweeps.items())
    ]
    return _line_picture(lines, "memory (MB)", "average incremental accuracy (%)")


def task_accuracies(matrix: Sequence[Sequence[float | None]], step: str = "task") -> str:
    """Draw what became of each task: accuracy (percent) on its classes after it and after each later one.

    Args:
        matrix: accuracies (fractions) of each task's classes (columns) after each task (rows).
        step: what a task is.
    """
    lines = []
    for task in range(min(len(matrix), MAX_LINES)):
        values = [None if row[task] is None else 100 * row[task] for row in matrix[task:] if task < len(row)]  # type: ignore[operator]
        curve = (range(task, task + len(values)), values)
        lines.append((Entry(str(task), _colour(task), _mark(task), line=True), curve))
    words = f"accuracy on each {step} (%)"
    return _line_picture(lines, f"after {step}", words, width=SMALL_WIDTH, whole_x=True)


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
    printed, spread = printed or {}, spread or {}
    height = max(ROW, 7.0 * len(ours))
    left = _gutter(names)
    known = [value for rows in (ours, printed) for values in rows.values() for value in values if value is not None]
    for label, halves in spread.items():
        pairs = [(a, b) for a, b in zip(ours[label], halves, strict=False) if a is not None and b is not None]
        known += [value + half for value, half in pairs] + [value - half for value, half in pairs]
    x = Scale(*plot.limits(known or [0.0, 100.0]), left, WIDTH - RIGHT)
    y = Scale(-0.5, len(names) - 0.5, TOP, TOP + height * len(names))
    frame = Frame(x, y, "accuracy (%)")
    parts = _dotted_frame(frame, names, left)
    for index, label in enumerate(ours):
        colour, mark = _colour(index), _mark(index)
        offset = BAND * ((index + 0.5) / len(ours) - 0.5)
        for row, name in enumerate(names):
            place = y(row + offset)
            value, print_, half = (_entry(values.get(label), row) for values in (ours, printed, spread))
            if value is not None and half is not None:
                parts.append(_error_bar(x(value - half), x(value + half), place, colour))
            if print_ is not None:
                parts.append(plot.mark(x(print_), place, mark, colour, False, f"{label}, {name}: {print_:.2f} printed"))
            if value is not None:
                parts.append(plot.mark(x(value), place, mark, colour, True, f"{label}, {name}: {value:.2f}"))
    entries = [Entry(label, _colour(index), _mark(index)) for index, label in enumerate(ours)]
    if printed:
        entries.append(Entry("printed", "currentColor", filled=False))
    return _with_legend(parts, entries, frame.bottom + BELOW, WIDTH, "accuracies of data sets")


def bytes_per_task(entries: Sequence[Mapping[str, Any]], after: str = "after task") -> str:
    """Draw measured bytes after each task, stacked, in MiB or, where that is little, KiB; heads count as model."""
    entries = _some(entries)
    parts_of = {
        label: [float(sum(entry.get(key) or 0 for key in keys)) for entry in entries]
        for label, keys in BYTE_PARTS.items()
    }
    totals = [sum(column) for column in zip(*parts_of.values(), strict=True)]
    unit, size = ("MiB", 2.0**20) if max(totals) >= SMALL_BYTES else ("KiB", 2.0**10)
    tasks = [float(entry.get("task", index)) for index, entry in enumerate(entries)]
    half = 0.4 * min((after - before for before, after in zip(tasks, tasks[1:], strict=False)), default=1.0)
    x = Scale(min(tasks) - 2 * half, max(tasks) + 2 * half, LEFT, SMALL_WIDTH - RIGHT)
    y = Scale(0, max(max(totals) / size, 1e-9) * 1.05, TOP + HEIGHT, TOP)
    parts = plot.axes(Frame(x, y, after, unit, whole_x=True))
    below = [0.0] * len(tasks)
    shown = []
    for (label, values), colour in zip(parts_of.items(), COLOURS, strict=False):
        if any(values):
            shown.append(Entry(label, colour, "s"))
        for index, (task, value) in enumerate(zip(tasks, values, strict=True)):
            if value:
                top = y((below[index] + value) / size)
                words = f"{label} {after} {task:g}: {value / size:.2f} {unit}"
                parts.append(
                    plot.box(x(task - half), top, x(half) - x(-half), y(below[index] / size) - top, colour, words)
                )
            below[index] += value
    return _with_legend(parts, shown, TOP + HEIGHT + BELOW, SMALL_WIDTH, "bytes of model and memory")


def row_bars(labels: Sequence[str], panels: Mapping[str, Sequence[float | None]]) -> str:
    """Draw a bar with its number for each row and figure, the figures side by side, each with a scale of its own."""
    left = _gutter(labels)
    span = (WIDTH - left) / len(panels)
    room = span - PANEL_GAP - 34  # a number stands behind its bar
    parts = []
    for row, label in enumerate(labels):
        parts.append(plot.text(0, TOP + ROW * (row + 1.5), plot.shortened(label, left - 8)))
    for index, (title, values) in enumerate(panels.items()):
        start = left + index * span
        parts.append(plot.text(start, TOP + ROW * 0.4, title))
        longest = max((abs(value) for value in values if value is not None), default=0.0) or 1.0
        for row, value in enumerate(values):
            if value is not None:
                length, top = max(room * abs(value) / longest, 0.8), TOP + ROW * (row + 1.15)
                colour = COLOURS[index % len(COLOURS)] if value >= 0 else GREY
                parts.append(plot.box(start, top, length, ROW * 0.7, colour))
                parts.append(plot.text(start + length + 4, TOP + ROW * (row + 1.5), short_number(value)))
    return plot.picture(WIDTH, TOP + ROW * (len(labels) + 1.5), parts, ", ".join(panels))


def short_number(value: float) -> str:
    """Return a number of about three digits: 1234, 56.7, 0.0120."""
    return f"{value:.0f}" if abs(value) >= 100 or value == 0 else f"{value:#.3g}".rstrip(".")


def as_file(picture: str) -> str:
    """Return a picture of a page as the text of a file of its own: dark on white, whatever the theme around it."""
    width, height = (float(size) for size in re.findall(r'viewBox="0 0 (\S+) (\S+)"', picture)[0])
    opening = (
        '<svg xmlns="http://www.w3.org/2000/svg" '
        f'width="{width:g}pt" height="{height:g}pt" style="color: #1b1b1b; background: #ffffff"'
    )
    return picture.replace("<svg", opening, 1)


def _line_picture(
    lines: Sequence[tuple[Entry, Curve]], x_label: str, y_label: str, width: float = WIDTH, whole_x: bool = False
) -> str:
    lines = [(entry, (_some(curve[0]), _some(curve[1]))) for entry, curve in lines]
    xs = [float(x) for _, curve in lines for x in curve[0]] or [0.0]
    ys = [float(y) for _, curve in lines for y in curve[1] if y is not None] or [0.0]
    x = Scale(*plot.limits(xs, 0.03), LEFT, width - RIGHT)
    y = Scale(*plot.limits(ys), TOP + HEIGHT, TOP)
    parts = plot.axes(Frame(x, y, x_label, y_label, whole_x))
    for entry, curve in lines:
        places = [(x(px), None if py is None else y(py)) for px, py in zip(*curve, strict=False)]
        parts.append(plot.line(places, entry.colour, entry.dashed))
        for (px, py), value in zip(places, curve[1], strict=False):
            if py is not None and entry.mark:
                parts.append(plot.mark(px, py, entry.mark, entry.colour, True, f"{entry.label}: {value:.2f}"))
    return _with_legend(parts, [entry for entry, _ in lines], TOP + HEIGHT + BELOW, width, f"{y_label} over {x_label}")


def _with_legend(parts: list[str], entries: Sequence[Entry], top: float, width: float, label: str) -> str:
    below, height = plot.legend(entries, 6, top, width - 12)
    return plot.picture(width, top + height + 4, [*parts, *below], label)


def _dotted_frame(frame: Frame, names: Sequence[str], left: float) -> list[str]:
    parts = []
    for value in plot.ticks(frame.x.low, frame.x.high):
        parts.append(plot.rule(frame.x(value), frame.top, frame.x(value), frame.bottom))
        parts.append(plot.text(frame.x(value), frame.bottom + 12, f"{value:g}", "middle"))
    for row, name in enumerate(names):
        parts.append(plot.text(left - 8, frame.y(row), plot.shortened(name, left - 8), "end"))
        parts.append(plot.rule(left, frame.y(row + 0.5), frame.x.end, frame.y(row + 0.5), 0.4))
    return parts + plot.labels(frame)


def _error_bar(start: float, end: float, y: float, colour: str) -> str:
    path = f"M{start:.1f} {y:.1f}H{end:.1f}M{start:.1f} {y - 2:.1f}v4M{end:.1f} {y - 2:.1f}v4"
    return f'<path class="spread" d="{path}" stroke="{colour}" fill="none"/>'


def _gutter(names: Sequence[str]) -> float:
    """Return the width for labels at the left: as wide as they are, within limits."""
    return min(max(max(map(plot.text_width, names), default=0.0) + 12, 40.0), 0.4 * WIDTH)


def _entry(values: Sequence[float | None] | None, index: int) -> float | None:
    return values[index] if values is not None and index < len(values) else None


def _some(values: Sequence[Any]) -> list[Any]:
    """Return all values or, of very many, some at equal distances and the last."""
    step = -(-len(values) // MAX_POINTS)
    return list(values) if step <= 1 else [*values[:-1:step], values[-1]]


def _colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def _mark(index: int) -> str:
    """Return a mark; each round of colours gets another one."""
    return MARKS[index // len(COLOURS) % len(MARKS)]
