"""Pictures of learners on online streams: where they decide for which class, and which of their units win."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from mmcl.report.figures import COLOURS, STYLE, svg_text, whole_ticks
from mmcl.report.traces import Plane, Trace

PANEL = 2.9  # inches
OPACITY = 0.55  # of regions, so that keys stand out
REACH = 0.5  # keys are drawn up to this far beyond the grid, in widths of the grid
SMALLEST, LARGEST = 55.0, 260.0  # of keys, in square points; numbers fit into the smallest
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
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(PANEL * len(planes), height + 0.8), layout="constrained")
        panels = figure.subplots(1, len(planes), sharex=True, sharey=True, squeeze=False)[0]
        for axes, (trace, plane) in zip(panels, planes, strict=True):
            _draw_regions(axes, plane, f"regions_{trace.windows}")
            outside = _draw_keys(axes, trace, low, high)
            title = _title(trace.windows, windows)
            axes.set_title(f"{title}, {outside} keys farther out" if outside else title, fontsize=9)
            axes.set_xlim(low[0], high[0])
            axes.set_ylim(low[1], high[1])
        present = sorted({int(label) for _, plane in planes for label in np.unique(plane.classes)})
        patches = [Patch(facecolor=_colour(label), label=_name(class_names, label)) for label in present]
        figure.legend(handles=patches, loc="outside lower center", ncols=8)
        return svg_text(figure)


def unit_usage(traces: Sequence[Trace]) -> str:
    """Draw each unit's share of the wins of its bank over the stream and, below, scrambles a window.

    Args:
        traces: two or more, each with a usage of one shape; between those that are far apart, shares are means.
    """
    windows = np.array([trace.windows for trace in traces])
    shares = win_shares(np.stack([trace.usage for trace in traces if trace.usage is not None]))
    banks, units = shares.shape[1:]
    rows = shares.reshape(len(shares), -1).T
    spans = np.diff(windows)
    scrambles = [trace.scrambles for trace in traces if trace.scrambles is not None]
    with_scrambles = len(scrambles) == len(traces)
    height = min(max(0.12 * len(rows), 1.4), 4.0)
    with matplotlib.rc_context(STYLE):
        ratios = [height, 0.8] if with_scrambles else [height]
        figure = Figure(figsize=(3 * PANEL, sum(ratios) + 0.7), layout="constrained")
        panels = figure.subplots(len(ratios), 1, sharex=True, squeeze=False, height_ratios=ratios)[:, 0]
        extent = (windows[0], windows[-1], len(rows) - 0.5, -0.5)
        image = panels[0].imshow(
            np.repeat(rows, spans, axis=1), cmap="cividis", vmin=0, aspect="auto", interpolation="none", extent=extent
        )
        figure.colorbar(image, ax=panels[0], label="share of wins", fraction=0.046)
        for end in units * np.arange(1, banks):
            panels[0].axhline(end - 0.5, color="#ffffff", linewidth=0.4)
        panels[0].set_ylabel("unit" if banks == 1 else "unit, bank after bank")
        whole_ticks(panels[0])
        if with_scrambles:
            panels[1].stairs(np.diff(scrambles) / spans, windows, color=COLOURS[1], fill=True)
            panels[1].set_ylabel("scrambles")
            panels[1].yaxis.set_major_locator(MaxNLocator(3, integer=True))
        panels[-1].set_xlabel("distributions met")
        panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
        return svg_text(figure)


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
    reach = REACH * (high - low)
    points = np.concatenate([low[None], high[None], *(trace.keys for trace, _ in planes if trace.keys is not None)])
    near = points[((points >= low - reach) & (points <= high + reach)).all(axis=1)]
    border = 0.05 * (high - low)  # whole dots, where keys lie beyond the grid
    lowest, highest = near.min(axis=0), near.max(axis=0)
    return np.where(lowest < low, lowest - border, low), np.where(highest > high, highest + border, high)


def _draw_regions(axes: Axes, plane: Plane, name: str) -> None:
    """Draw the classes; without a name, equal pictures would share an id."""
    half = (plane.xs[1] - plane.xs[0]) / 2, (plane.ys[1] - plane.ys[0]) / 2
    extent = (plane.xs[0] - half[0], plane.xs[-1] + half[0], plane.ys[0] - half[1], plane.ys[-1] + half[1])
    colours = np.array([_colour(label) for label in range(int(plane.classes.max()) + 1)])
    image = axes.imshow(colours[plane.classes], origin="lower", extent=extent, interpolation="none", aspect="equal")
    image.set_gid(name)


def _draw_keys(axes: Axes, trace: Trace, low: Corner, high: Corner) -> int:
    """Draw the keys inside the frame, much used ones below little used ones; return how many are outside."""
    if trace.keys is None:
        return 0
    usage = np.zeros(len(trace.keys)) if trace.usage is None else trace.usage.ravel()
    sizes = SMALLEST + (LARGEST - SMALLEST) * usage / max(usage.max(), 1)
    outside = 0
    for key in np.argsort(-usage, kind="stable"):
        position = trace.keys[key]
        if (position < low).any() or (position > high).any():
            outside += 1
            continue
        axes.scatter(position[0], position[1], s=sizes[key], color="#000000", edgecolors="#ffffff", linewidths=0.8)
        axes.annotate(
            str(key), (position[0], position[1]), color="#ffffff", fontsize=6, ha="center", va="center_baseline"
        )
    return outside


def _title(passed: int, windows: int) -> str:
    if passed == windows:
        return "after the stream"
    return f"after {passed} of {windows} distributions" if passed else "before the stream"


def _colour(label: int) -> tuple[float, float, float, float]:
    return to_rgba(COLOURS[label % len(COLOURS)], OPACITY)


def _name(class_names: Sequence[str], label: int) -> str:
    name = class_names[label] if label < len(class_names) else str(label)
    return f"class {name}" if name.isdecimal() else name
