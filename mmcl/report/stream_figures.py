"""Pictures of learners on online streams: where they decide for which class, and which of their units win."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmcl.report import heatmaps, plot
from mmcl.report.figures import COLOURS
from mmcl.report.plot import Entry, Frame, Scale
from mmcl.results.traces import Plane, Trace

PANEL, GAP = 156.0, 14.0
LEFT, TOP = 34.0, 34.0
OPACITY = 0.55  # of regions, so that keys stand out
REACH = 0.5  # keys are drawn up to this far beyond the grid, in widths of the grid
SMALLEST, LARGEST = 55.0, 260.0  # areas of keys over pi; numbers fit into the smallest
USAGE_WIDTH = 440.0
MAX_COLUMNS = 600  # of the picture of usage
Corner = NDArray[np.float64]


def decision_regions(traces: Sequence[Trace], class_names: Sequence[str], windows: int) -> str:
    """Draw the class of each place side by side after some windows, and the keys as numbered dots.

    The area of a dot grows with the wins of its unit since that was last scrambled, as a share of the most in the
    same picture.

    Args:
        traces: each with a plane.
        class_names: names of all classes.
        windows: of the whole stream.
    """
    planes = [(trace, trace.plane) for trace in traces if trace.plane is not None]
    low, high = _frame(planes)
    height = PANEL * min(max(float((high - low)[1] / (high - low)[0]), 0.5), 1.6)
    parts: list[str] = []
    for index, (trace, plane) in enumerate(planes):
        left = LEFT + index * (PANEL + GAP)
        x = Scale(float(low[0]), float(high[0]), left, left + PANEL)
        frame = Frame(x, Scale(float(low[1]), float(high[1]), TOP + height, TOP))
        keys, outside = _keys(frame, trace, low, high)
        parts += [_regions(frame, plane), *_ticks(frame, with_y=index == 0), *keys]
        parts.append(plot.text(left, TOP - 22, _title(trace.windows, windows)))
        if outside:
            parts.append(plot.text(left, TOP - 8, f"{outside} keys farther out"))
    present = sorted({int(label) for _, plane in planes for label in np.unique(plane.classes)})
    entries = [Entry(_name(class_names, label), _colour(label), "s") for label in present]
    width = LEFT + len(planes) * (PANEL + GAP)
    below, taken = plot.legend(entries, LEFT, TOP + height + 24, width - LEFT - GAP)
    return plot.picture(width, TOP + height + 28 + taken, [*parts, *below], "decision regions")


def unit_usage(traces: Sequence[Trace]) -> str:
    """Draw each unit's share of the wins of its bank over the stream and, below, scrambles a window.

    Args:
        traces: two or more, each with a usage of one shape; between those that are far apart, shares are means.
    """
    windows = np.array([trace.windows for trace in traces])
    shares = win_shares(np.stack([trace.usage for trace in traces if trace.usage is not None]))
    banks, units = shares.shape[1:]
    rows = shares.reshape(len(shares), -1).T
    height = min(max(11.0 * len(rows), 90.0), 280.0)
    x = Scale(float(windows[0]), float(windows[-1]), LEFT + 14, LEFT + 14 + USAGE_WIDTH)
    y = Scale(-0.5, len(rows) - 0.5, 8.0, 8.0 + height)
    frame = Frame(x, y, y_label="unit" if banks == 1 else "unit, bank after bank")
    parts = [_usage_image(frame, rows, windows), *plot.labels(frame)]
    for value in plot.ticks(0, len(rows) - 1, 6, whole=True):
        parts.append(plot.text(x.start - 6, y(value), f"{value:g}", "end"))
    for end in units * np.arange(1, banks):
        parts.append(plot.rule(x.start, y(end - 0.5), x.end, y(end - 0.5), 0.7))
    parts += heatmaps.colour_bar("cividis", x.end + 12, 8.0, height, "0", f"{rows.max():.2g}", "share of wins")
    bottom = frame.bottom
    scrambles = [trace.scrambles for trace in traces if trace.scrambles is not None]
    if len(scrambles) == len(traces):
        bottom += 64
        parts += _stairs(x, bottom, np.diff(scrambles) / np.diff(windows), windows)
    below = Frame(x, Scale(0, 1, bottom, bottom - 1), "distributions met")
    for value in plot.ticks(x.low, x.high, 8, whole=True):
        parts.append(plot.rule(x(value), bottom, x(value), bottom + 4, 0.8))
        parts.append(plot.text(x(value), bottom + 12, f"{value:g}", "middle"))
    parts += plot.labels(below)
    return plot.picture(x.end + 62, bottom + 38, parts, "share of wins of each unit")


def win_shares(usage: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return each unit's share of the wins of its bank between traces; 0 in a bank that counted none.

    Usage counts the wins of training since the unit was last scrambled, so that what a unit won before a scramble
    between two traces is lost. Where usage fell, the present count stands for the difference. (Wins counted over the
    life of a unit are no help: they include those of every evaluation, which by far outnumber the stream.)

    Args:
        usage: ``(n, q, m)`` of n traces.

    Returns:
        ``(n - 1, q, m)``; each bank sums to 1 or 0.
    """
    before, after = usage[:-1], usage[1:]
    wins = np.where(after >= before, after - before, after)
    shares: NDArray[np.float64] = wins / np.maximum(wins.sum(axis=2, keepdims=True), 1)
    return shares


def _frame(planes: Sequence[tuple[Trace, Plane]]) -> tuple[Corner, Corner]:
    """Return the lower and upper corner of one frame for all pictures: the grids, and keys that are not far from it."""
    low = np.min([(plane.xs[0], plane.ys[0]) for _, plane in planes], axis=0)
    high = np.max([(plane.xs[-1], plane.ys[-1]) for _, plane in planes], axis=0)
    step = np.max([(plane.xs[1] - plane.xs[0], plane.ys[1] - plane.ys[0]) for _, plane in planes], axis=0)
    low, high = low - step / 2, high + step / 2  # each place of a grid is drawn half a step around it
    reach = REACH * (high - low)
    points = np.concatenate([low[None], high[None], *(trace.keys for trace, _ in planes if trace.keys is not None)])
    near = points[((points >= low - reach) & (points <= high + reach)).all(axis=1)]
    border = 0.05 * (high - low)  # whole dots, where keys lie beyond the grid
    lowest, highest = near.min(axis=0), near.max(axis=0)
    return np.where(lowest < low, lowest - border, low), np.where(highest > high, highest + border, high)


def _regions(frame: Frame, plane: Plane) -> str:
    """Return the classes of a grid as an image; each pixel reaches half a step around its place."""
    half = (plane.xs[1] - plane.xs[0]) / 2, (plane.ys[1] - plane.ys[0]) / 2
    left, right = frame.x(plane.xs[0] - half[0]), frame.x(plane.xs[-1] + half[0])
    top, bottom = frame.y(plane.ys[-1] + half[1]), frame.y(plane.ys[0] - half[1])
    classes = np.ascontiguousarray(plane.classes[::-1].astype(np.uint8))  # the first row is the lowest
    image = Image.frombytes("P", (classes.shape[1], classes.shape[0]), classes.tobytes())
    image.putpalette(b"".join(bytes.fromhex(_colour(label)[1:]) for label in range(int(classes.max()) + 1)))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    address = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    return (
        f'<image x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" height="{bottom - top:.1f}" '
        f'preserveAspectRatio="none" opacity="{OPACITY}" style="image-rendering:pixelated" href="{address}"/>'
    )


def _ticks(frame: Frame, with_y: bool) -> list[str]:
    parts = []
    for value in plot.ticks(frame.x.low, frame.x.high, 4):
        parts.append(plot.text(frame.x(value), frame.bottom + 11, f"{value:g}", "middle"))
    for value in plot.ticks(frame.y.low, frame.y.high, 4) if with_y else ():
        parts.append(plot.text(frame.x.start - 5, frame.y(value), f"{value:g}", "end"))
    return parts


def _keys(frame: Frame, trace: Trace, low: Corner, high: Corner) -> tuple[list[str], int]:
    """Return the keys inside the frame, much used ones below little used ones, and how many are outside."""
    if trace.keys is None:
        return [], 0
    usage = np.zeros(len(trace.keys)) if trace.usage is None else trace.usage.ravel()
    areas = SMALLEST + (LARGEST - SMALLEST) * usage / max(usage.max(), 1)
    parts: list[str] = []
    outside = 0
    for key in np.argsort(-usage, kind="stable"):
        position = trace.keys[key]
        if (position < low).any() or (position > high).any():
            outside += 1
            continue
        x, y = frame.x(float(position[0])), frame.y(float(position[1]))
        radius = math.sqrt(areas[key] / math.pi)
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.2f}" fill="#000" stroke="#fff" stroke-width=".8"/>'
        )
        parts.append(plot.text(x, y - 1.3, str(key), "middle", ' fill="#fff" font-size="7.5"'))
    return parts, outside


def _usage_image(frame: Frame, rows: NDArray[np.float64], windows: NDArray[np.int64]) -> str:
    columns = np.repeat(np.arange(rows.shape[1]), np.diff(windows))
    columns = columns[:: -(-len(columns) // MAX_COLUMNS)]
    address = heatmaps.image(rows[:, columns] / (rows.max() or 1.0), "cividis")
    width, height = frame.x.end - frame.x.start, frame.bottom - frame.top
    return heatmaps.placed(address, frame.x.start, frame.top, width, height)


def _stairs(x: Scale, bottom: float, values: NDArray[np.float64], windows: NDArray[np.int64]) -> list[str]:
    """Return values between windows as steps of 44 in height, with their axis."""
    y = Scale(0, float(values.max()) or 1.0, bottom, bottom - 44)
    steps = "".join(
        f"V{y(float(value)):.1f}H{x(float(end)):.1f}" for value, end in zip(values, windows[1:], strict=True)
    )
    parts = [f'<path d="M{x.start:.1f} {bottom:.1f}{steps}V{bottom:.1f}z" fill="{COLOURS[1]}"/>']
    for value in plot.ticks(0, y.high, 2, whole=True):
        parts.append(plot.text(x.start - 6, y(value), f"{value:g}", "end"))
    parts.append(plot.rule(x.start, bottom, x.end, bottom, 0.8))
    return parts + plot.labels(Frame(x, y, y_label="scrambles"))


def _title(passed: int, windows: int) -> str:
    if passed == windows:
        return "after the stream"
    return f"after {passed} of {windows} distributions" if passed else "before the stream"


def _colour(label: int) -> str:
    return COLOURS[label % len(COLOURS)]


def _name(class_names: Sequence[str], label: int) -> str:
    name = class_names[label] if label < len(class_names) else str(label)
    return f"class {name}" if name.isdecimal() else name
