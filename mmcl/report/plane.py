"""The plane of accuracy, bytes and time: its picture; its points are found in :mod:`mmcl.report.plane_points`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from mmcl.report import plot
from mmcl.report.figures import COLOURS
from mmcl.report.label_places import Box, place_labels
from mmcl.report.plane_points import Plane, PlanePoint, find_planes
from mmcl.report.plot import Scale

__all__ = ["Plane", "PlanePoint", "find_planes", "plane_picture"]

WIDTH, HEIGHT = 560.0, 300.0
LEFT, RIGHT, TOP, BELOW = 46.0, 14.0, 12.0, 44.0
LARGEST, SMALLEST = 11.0, 3.2  # radii of marks
LOGARITHMIC = 10.0  # from this ratio of the largest to the smallest value on
MAX_LABELS = 12  # of more, those on the front get one, and one of each other method
LABEL_WIDTH = 190.0
LEADER = 8.0  # labels farther from their mark than this have a line to it
FAINT = 0.5
MEBIBYTE, KIBIBYTE = 2.0**20, 2.0**10


@dataclass(frozen=True)
class _Quantity:
    """What a direction, or the area of the marks, shows: a value of each point in a unit."""

    words: str
    unit: str
    of: Callable[[PlanePoint], float]


@dataclass(frozen=True)
class _Canvas:
    """Where the points of a plane are drawn; those beyond its budget are none of them."""

    plane: Plane
    points: tuple[PlanePoint, ...]
    across: _Quantity
    area: _Quantity
    x: Callable[[float], float]
    y: Scale
    largest: float

    def place(self, point: PlanePoint) -> tuple[float, float]:
        return self.x(self.across.of(point)), self.y(100 * point.accuracy)

    def radius(self, value: float) -> float:
        """Return a radius whose circle's area grows with the value; the smallest can still be seen."""
        return max(LARGEST * math.sqrt(value / self.largest), SMALLEST)

    def box(self, point: PlanePoint) -> Box:
        (x, y), radius = self.place(point), self.radius(self.area.of(point))
        return Box(x - radius, y - radius, 2 * radius, 2 * radius)


def plane_picture(plane: Plane) -> str:
    """Draw a plane: accuracy upwards, bytes to the right, time as the area of the marks.

    With one budget for all, bytes differ little: there, time is to the right and bytes are the area. A colour is a
    method; circles are its own readouts, squares the nearest class means of the same run. Marks with a rim are on the
    front. Lines join one method with more and less memory; dashed ones across are what keeps far more than the budget.
    """
    canvas = _canvas(plane)
    methods = dict.fromkeys(point.method for point in plane.points)
    colours = {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(methods)}
    parts = [*_axes(canvas), *_bounds(canvas, colours), *_joints(canvas, colours)]
    for point in sorted(canvas.points, key=canvas.area.of, reverse=True):  # small marks above large ones
        parts.append(_mark(canvas, point, colours[point.method]))
    parts += _labels(canvas)
    legend, height = _legend(canvas)
    words = f"{plane.title}: {plane.axis} over {canvas.across.words}"
    return plot.picture(WIDTH, TOP + HEIGHT + BELOW + height, [*parts, *legend], words)


def _canvas(plane: Plane) -> _Canvas:
    points = tuple(point for point in plane.points if not point.beyond)
    bytes_, time = _bytes(points), _time(points)
    known = all(point.seconds for point in points)
    across, area = (time, bytes_) if plane.budget is not None and known else (bytes_, time)
    ends = [100 * (point.accuracy + (point.accuracy_spread or 0.0)) for point in plane.points]
    ends += [100 * (point.accuracy - (point.accuracy_spread or 0.0)) for point in plane.points]
    y = Scale(*plot.limits(ends, 0.08), TOP + HEIGHT, TOP)
    largest = max(map(area.of, points)) or 1.0
    return _Canvas(plane, points, across, area, _across([across.of(point) for point in points]), y, largest)


def _bytes(points: Sequence[PlanePoint]) -> _Quantity:
    unit, size = ("MiB", MEBIBYTE) if max(point.kept_bytes for point in points) >= MEBIBYTE / 10 else ("KiB", KIBIBYTE)
    return _Quantity(f"model and memory kept ({unit})", unit, lambda point: point.kept_bytes / size)


def _time(points: Sequence[PlanePoint]) -> _Quantity:
    unit, size = ("min", 60.0) if max(point.seconds or 0.0 for point in points) >= 300 else ("s", 1.0)
    return _Quantity(f"time of a run ({unit})", unit, lambda point: (point.seconds or 0.0) / size)


def _across(values: Sequence[float]) -> Callable[[float], float]:
    start, end = LEFT + LARGEST, WIDTH - RIGHT - LARGEST
    if _logarithmic(values):
        scale = Scale(*plot.limits([math.log10(value) for value in values], 0.03), start, end)
        return lambda value: scale(math.log10(value))
    low, high = min(values), max(values)
    if high - low < 0.05 * high:  # all the same but for some labels of the kept images
        low, high = 0.95 * low, 1.05 * high
    return Scale(*plot.limits([low, high], 0.03), start, end)


def _logarithmic(values: Sequence[float]) -> bool:
    return min(values) > 0 and max(values) > LOGARITHMIC * min(values)


def _axes(canvas: _Canvas) -> list[str]:
    values = [canvas.across.of(point) for point in canvas.points]
    bottom, end, parts = TOP + HEIGHT, WIDTH - RIGHT, []
    for value in plot.ticks(canvas.y.low, canvas.y.high, 6):
        if 0 <= value <= 100:
            parts += [plot.rule(LEFT, canvas.y(value), end, canvas.y(value))]
            parts += [plot.text(LEFT - 6, canvas.y(value), f"{value:g}", "end")]
    for value in _ticks_across(values):
        if LEFT <= canvas.x(value) <= end:
            parts += [plot.rule(canvas.x(value), bottom, canvas.x(value), bottom + 4, 0.8)]
            parts += [plot.text(canvas.x(value), bottom + 13, f"{value:g}", "middle")]
    middle = TOP + HEIGHT / 2
    parts += [plot.rule(LEFT, bottom, end, bottom, 0.8)]
    parts += [plot.text((LEFT + end) / 2, bottom + 30, canvas.across.words, "middle")]
    parts += [plot.text(9, middle, canvas.plane.axis, "middle", f' transform="rotate(-90 9 {middle:.1f})"')]
    return parts


def _ticks_across(values: Sequence[float]) -> list[float]:
    low, high = min(values), max(values)
    if not _logarithmic(values):
        return plot.ticks(low - 0.1 * high, 1.1 * high, 6)
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    return [factor * 10.0**power for power in powers for factor in (1, 2, 5)]


def _bounds(canvas: _Canvas, colours: Mapping[str, str]) -> list[str]:
    """Return lines across for what keeps far more than the budget, with their names at the right."""
    parts = []
    for point in canvas.plane.points:
        if point.beyond:
            y = canvas.y(100 * point.accuracy)
            line = [(LEFT, y), (WIDTH - RIGHT, y)]
            words = f"{point.label}, {point.readout}: {100 * point.accuracy:.2f} %, {point.kept_bytes:,} bytes"
            named = f"<g><title>{escape(words)}</title>{plot.line(line, colours[point.method], dashed=True)}</g>"
            parts += [named, plot.text(WIDTH - RIGHT, y - plot.FONT, f"{point.label}, beyond the budget", "end")]
    return parts


def _joints(canvas: _Canvas, colours: Mapping[str, str]) -> list[str]:
    """Return lines through one method with more and less memory, and from its own readout to the second."""
    solid: dict[tuple[str, str], list[PlanePoint]] = {}
    dotted: dict[str, list[PlanePoint]] = {}
    for point in canvas.points:
        solid.setdefault((point.family, point.readout), []).append(point)
        dotted.setdefault(point.label, []).append(point)
    parts = []
    for points, dash in [*((line, "") for line in solid.values()), *((line, "1 3") for line in dotted.values())]:
        if len(points) > 1:
            path = "L".join(f"{x:.1f} {y:.1f}" for x, y in map(canvas.place, points))
            style = f'stroke="{colours[points[0].method]}" stroke-dasharray="{dash or "none"}"'
            parts.append(f'<path d="M{path}" fill="none" {style}/>')
    return parts


def _mark(canvas: _Canvas, point: PlanePoint, colour: str) -> str:
    (x, y), radius = canvas.place(point), canvas.radius(canvas.area.of(point))
    accuracy, spread = 100 * point.accuracy, point.accuracy_spread
    bar = ""
    if spread is not None:
        top, bottom = canvas.y(accuracy + 100 * spread), canvas.y(accuracy - 100 * spread)
        bar = f'<path class="spread" d="M{x:.1f} {top:.1f}V{bottom:.1f}" stroke="{colour}" fill="none"/>'
    rim = ' stroke="currentColor" stroke-width="1.4"' if point.on_front else f' fill-opacity="{FAINT}"'
    seconds = "" if point.seconds is None else f", {point.seconds:.0f} s"
    around = "" if spread is None else f" ± {100 * spread:.2f}"
    words = f"{point.label}, {point.readout}: {accuracy:.2f}{around} %, {point.kept_bytes:,} bytes{seconds}"
    return bar + _shape(x, y, radius, point.second, f'fill="{colour}"{rim}', words)


def _shape(x: float, y: float, radius: float, square: bool, style: str, words: str = "") -> str:
    title = f"<title>{escape(words)}</title>" if words else ""
    if not square:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" {style}>{title}</circle>'
    half = radius * math.sqrt(math.pi) / 2  # a square of the same area
    outline = f"M{x - half:.1f} {y - half:.1f}h{2 * half:.1f}v{2 * half:.1f}h{-2 * half:.1f}z"
    return f'<path d="{outline}" {style}>{title}</path>'


def _labels(canvas: _Canvas) -> list[str]:
    named = _named(canvas.points)
    marks = [canvas.box(point) for point, _ in named]
    others = [canvas.box(point) for point in canvas.points]
    bounds = [canvas.y(100 * point.accuracy) for point in canvas.plane.points if point.beyond]
    others += [Box(LEFT, y - 1.6 * plot.FONT, WIDTH - LEFT, 1.7 * plot.FONT) for y in bounds]
    sizes = [(1.1 * plot.text_width(words), plot.FONT + 1) for _, words in named]  # fonts differ
    frame = Box(LEFT + 2, TOP, WIDTH - LEFT - 4, HEIGHT)
    parts = []
    for (_, words), mark, place in zip(named, marks, place_labels(marks, sizes, frame, others), strict=True):
        (x, y), right = mark.centre, place.left + place.width
        near_x = min(max(x, place.left), right)
        near_y = min(max(y, place.top), place.top + place.height)
        if math.hypot(near_x - x, near_y - y) > mark.width / 2 + LEADER:
            parts.append(plot.rule(x, y, near_x, near_y, 0.8))
        anchor, at = ("start", place.left) if place.left > x else ("end", right) if right < x else ("middle", near_x)
        parts.append(plot.text(place.centre[0] if anchor == "middle" else at, place.centre[1], words, anchor))
    return parts


def _named(points: Sequence[PlanePoint]) -> list[tuple[PlanePoint, str]]:
    """Return the points that get a label, and the label: one for each family, at its largest memory."""
    families: dict[str, PlanePoint] = {}
    for point in points:
        if not point.second:
            families[point.family] = point
    if len(families) > MAX_LABELS:
        of_front = {point.family for point in points if point.on_front}
        told = {point.method for point in points if point.on_front}
        rest = {point.method: point.family for point in families.values() if point.method not in told}
        families = {name: point for name, point in families.items() if name in {*of_front, *rest.values()}}
    return [(point, plot.shortened(family, LABEL_WIDTH)) for family, point in families.items()]


def _legend(canvas: _Canvas) -> tuple[list[str], float]:
    """Return what shapes, rims and areas mean, and its height."""
    y = TOP + HEIGHT + BELOW + LARGEST
    ink = 'fill="currentColor" fill-opacity="0.5"'
    entries = [("own readout", False, 4.0, ink)]
    if any(point.second for point in canvas.points):
        entries.append(("nearest class mean", True, 4.0, ink))
    if any(point.on_front for point in canvas.points):
        entries.append(("on the front", False, 4.0, 'fill="none" stroke="currentColor" stroke-width="1.4"'))
    for value in _three(canvas.largest):
        entries.append((f"{value:g} {canvas.area.unit}", False, canvas.radius(value), ink))
    parts, x = [], LEFT
    for words, square, radius, style in entries:
        width = 2 * radius + 5 + plot.text_width(words) + 14
        if x > LEFT and x + width > WIDTH:
            x, y = LEFT, y + plot.LINE + LARGEST
        parts.append(_shape(x + radius, y, radius, square, style))
        parts.append(plot.text(x + 2 * radius + 5, y, words))
        x += width
    return parts, y + LARGEST + 4 - (TOP + HEIGHT + BELOW)


def _three(largest: float) -> list[float]:
    """Return three round sizes up to the largest; fewer where they would look alike."""
    sizes = []
    for share in (1.0, 0.3, 0.1):
        power = 10.0 ** math.floor(math.log10(share * largest))
        sizes.append(max(factor * power for factor in (1, 2, 5) if factor * power <= share * largest * 1.0001))
    return list(dict.fromkeys(float(f"{size:.3g}") for size in sizes))
