"""Pictures of exemplars: before and after they were learned, how far they moved, where they lie among features."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from mmcl.report.exemplars import CHOICES, Choice, Record, places
from mmcl.report.figures import COLOURS, GREY, STYLE

DPI = 150
THUMB = 0.52  # inches
GAP = 0.06  # of a thumbnail, between neighbours
CLASS_GAP = 0.35  # likewise, between classes
SHOWN_EXEMPLARS = 10  # of a class
FACTORS = (1, 2, 5, 10, 20, 50, 100)
MIDDLE, REACH = 128, 127  # grey values of no change, and from there to the largest one
OUTLIERS = 99.0  # percentile of changes that may reach black or white
BINS = 30
MAX_NAMED = 60  # classes with a name each beside a histogram
PANEL = 3.3  # inches
MARKERS = "os^DvP"
MARKED: Any = {"linestyle": "none", "markeredgecolor": "#ffffff", "markeredgewidth": 0.7}


def image_grid(records: Sequence[Record]) -> bytes:
    """Draw exemplars of the shown classes before and after, and their amplified difference, as PNG.

    Args:
        records: side by side; differences are amplified alike in all of them.
    """
    factor = amplification(records)
    rows, columns = len(records[0].shown), max(map(_columns, records))
    width, height = columns * THUMB * (1 + GAP), rows * THUMB * (3 * (1 + GAP) + CLASS_GAP)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(len(records) * (width + 2.0), height + 0.6), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.15)  # type: ignore[union-attr,call-arg]
        for axes, record in zip(figure.subplots(1, len(records), squeeze=False)[0], records, strict=True):
            _draw_grid(axes, record, factor)
        return _png(figure)


def amplification(records: Sequence[Record]) -> int:
    """Return by how much differences are multiplied: as much as leaves all but the largest inside of 0..255."""
    sizes = np.concatenate([np.abs(_change(record)).ravel() for record in records])
    usual = float(np.percentile(sizes[sizes > 0], OUTLIERS)) if sizes.any() else REACH
    return max((factor for factor in FACTORS if factor * usual <= REACH), default=1)


def _change(record: Record) -> NDArray[np.int16]:
    change: NDArray[np.int16] = record.images_after.astype(np.int16) - record.images_before
    return change


def _columns(record: Record) -> int:
    return min(SHOWN_EXEMPLARS, max(int((record.labels == label).sum()) for label in record.shown))


def _draw_grid(axes: Axes, record: Record, factor: int) -> None:
    """Place thumbnails in units of their side: three lines a class."""
    amplified = np.clip(MIDDLE + factor * _change(record).astype(np.int64), 0, 255).astype(np.uint8)
    lines = {"before": record.images_before, "after": record.images_after, f"difference ×{factor}": amplified}
    top, ticks, columns = 0.0, {}, _columns(record)
    for label in record.shown:
        rows = np.flatnonzero(record.labels == label)[:columns]
        chosen = sorted(set(record.chosen_in[rows].tolist()))
        words = "" if chosen == [record.task] else f"\nchosen in task {', '.join(map(str, chosen))}"
        axes.text(-1.95, top + 0.5, record.name_of(label) + words, ha="right", va="center", fontsize=9)
        for name, images in lines.items():
            for column, row in enumerate(rows):
                left = column * (1 + GAP)
                axes.imshow(images[row], extent=(left, left + 1, top + 1, top))
            ticks[top + 0.5] = name
            top += 1 + GAP
        top += CLASS_GAP
    axes.set(xlim=(0, columns * (1 + GAP)), ylim=(top - CLASS_GAP, 0), aspect="equal", xticks=[])
    axes.set_yticks(list(ticks), list(ticks.values()), fontsize=7)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    still = "" if _change(record).any() else ": no pixel changed"
    axes.set_title(f"exemplars after task {record.task}, mode {record.mode}{still}", fontsize=10)


def drift_histograms(records: Sequence[Record]) -> bytes:
    """Draw how many exemplars of each class moved how far, as PNG.

    Args:
        records: side by side on one scale, each with some drift.
    """
    largest = max(float(record.drift.max()) for record in records)
    edges = np.linspace(0, largest or 1.0, BINS + 1)
    classes = [np.unique(record.drift_labels) for record in records]
    counts = [
        np.stack([np.histogram(record.drift[record.drift_labels == label], edges)[0] for label in labels])
        for record, labels in zip(records, classes, strict=True)
    ]
    height = min(max(0.16 * max(map(len, classes)), 1.6), 9.0)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(1 + 4.4 * len(records), height + 2.0), layout="constrained")
        panels = figure.subplots(2, len(records), sharex=True, squeeze=False, height_ratios=[1.0, height])
        for column, (record, labels, found) in enumerate(zip(records, classes, counts, strict=True)):
            total, per_class = panels[:, column]
            total.stairs(found.sum(axis=0), edges, color=COLOURS[0], fill=True)
            total.yaxis.set_major_locator(MaxNLocator(3, integer=True))
            total.set_title(f"after task {record.task}, mode {record.mode}", fontsize=10)
            extent = (0, edges[-1], len(labels) - 0.5, -0.5)
            image = per_class.imshow(
                np.ma.masked_equal(found, 0),
                cmap="cividis_r",
                vmin=0,
                aspect="auto",
                interpolation="none",
                extent=extent,
            )
            _name_classes(per_class, record, labels)
            bar = figure.colorbar(image, ax=per_class, label="exemplars", fraction=0.046)
            bar.locator = MaxNLocator(4, integer=True)
            bar.update_ticks()
            per_class.set_xlabel("change of an exemplar (L2, normalised pixels)")
        panels[0, 0].set_ylabel("exemplars")
        return _png(figure)


def _name_classes(axes: Axes, record: Record, labels: NDArray[np.int64]) -> None:
    if len(labels) <= MAX_NAMED:
        names = [record.class_names[label] for label in labels]
        axes.set_yticks(range(len(labels)), names, fontsize=8 if len(labels) <= 12 else 6)
        axes.set_ylabel("class" if all(name.isdecimal() for name in names) else "")
    else:
        axes.yaxis.set_major_locator(MaxNLocator(10, integer=True))
        axes.set_ylabel("class, in their order")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
    for end in range(1, len(labels)):
        axes.axhline(end - 0.5, color=GREY, alpha=0.3, linewidth=0.4)


def exemplar_map(records: Sequence[Record], chosen: Sequence[Sequence[Choice]]) -> bytes:
    """Draw exemplars among training images by t-SNE, as PNG: a line of panels for each record, a panel for each choice.

    Light points are training images, dark ones of the same hue exemplars, grey crosses means of other seen classes.
    """
    classes = sorted({label for record in records for label in record.shown})
    with matplotlib.rc_context(STYLE):
        size = (len(CHOICES) * PANEL + 0.3, len(records) * (PANEL + 0.25) + 0.8)
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(len(records), len(CHOICES), squeeze=False)
        for axes, name in zip(panels[0], CHOICES, strict=True):
            axes.set_title(f"kept by the run, mode {records[0].mode}" if name == "kept" else name, fontsize=10)
        for line, record, of_record in zip(panels, records, chosen, strict=True):
            found = {choice.name: choice for choice in of_record}
            for axes, name in zip(line, CHOICES, strict=True):
                axes.set(xticks=[], yticks=[])
                if name in found:
                    _draw_map(axes, found[name], classes)
            line[0].set_ylabel(f"after task {record.task}, {len(record.class_names)} classes seen", fontsize=10)
        figure.legend(handles=_legend(records[0], classes), loc="outside lower center", ncols=4)
        return _png(figure)


def _draw_map(axes: Axes, choice: Choice, classes: Sequence[int]) -> None:
    points, exemplars, crosses = places(choice)
    axes.plot(crosses[:, 0], crosses[:, 1], linestyle="none", marker="x", color=GREY, markersize=5, markeredgewidth=1.2)
    for index, label in enumerate(classes):
        light, dark, marker = _look(index)
        of_class = points[choice.point_labels == label]
        axes.plot(of_class[:, 0], of_class[:, 1], linestyle="none", marker=".", color=light, markersize=4, zorder=1)
        of_class = exemplars[choice.labels == label]
        axes.plot(of_class[:, 0], of_class[:, 1], marker=marker, color=dark, markersize=6, zorder=3, **MARKED)
    axes.margins(0.04)
    axes.spines[:].set_visible(True)
    axes.spines[:].set(color=GREY, linewidth=0.6)
    numbers = {"silhouette": choice.silhouette, "margin": choice.margin}
    words = [f"{name} {value:.3f}" for name, value in numbers.items() if value is not None]
    axes.set_xlabel(", ".join([f"{len(choice.labels)} exemplars", *words]), fontsize=9)


def _legend(record: Record, classes: Sequence[int]) -> list[Line2D]:
    handles = []
    for index, label in enumerate(classes):
        _, dark, marker = _look(index)
        handles.append(Line2D([], [], color=dark, marker=marker, markersize=6, label=record.name_of(label), **MARKED))
    light, dark, _ = _look(0)
    handles.append(Line2D([], [], color=light, linestyle="none", marker=".", label="light: training images"))
    handles.append(Line2D([], [], color=dark, marker="o", markersize=6, label="dark: exemplars", **MARKED))
    handles.append(Line2D([], [], color=GREY, linestyle="none", marker="x", label="mean of another class"))
    return handles


def _look(index: int) -> tuple[Any, Any, str]:
    """Return the light and the dark colour of a class, and the shape of its exemplars."""
    hue = np.array(to_rgb(COLOURS[index % len(COLOURS)]))
    return tuple(0.45 * hue + 0.55), tuple(0.72 * hue), MARKERS[index % len(MARKERS)]


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, facecolor="#ffffff", bbox_inches="tight", metadata={"Software": None})
    return buffer.getvalue()
