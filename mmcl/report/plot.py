"""A small plotter: scales, axes, lines, marks, bars and legends as SVG in the colours of the page around it.

Lengths are in the units of a picture's view box, which a page shows at about one pixel each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

FONT = 11.0
# Widths of characters in font sizes: of a wide font, so that words fit in any.
NARROW, USUAL, CAPITAL, WIDE = 0.36, 0.62, 0.7, 0.92
LINE = 16.0  # height of a line of text
GREY = "#808080"
DOT = 3.2  # radius of a mark
MARKS = "osd^"  # circle, square, diamond, triangle


@dataclass(frozen=True)
class Scale:
    """A linear map from values to places."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return the place of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


@dataclass(frozen=True)
class Frame:
    """Where a picture draws its values: the scale of each direction, and what its axes say."""

    x: Scale
    y: Scale
    x_label: str = ""
    y_label: str = ""
    whole_x: bool = False
    whole_y: bool = False

    @property
    def bottom(self) -> float:
        """The lower edge."""
        return max(self.y.start, self.y.end)

    @property
    def top(self) -> float:
        """The upper edge."""
        return min(self.y.start, self.y.end)


@dataclass(frozen=True)
class Entry:
    """A line of a legend."""

    label: str
    colour: str
    mark: str = "o"
    filled: bool = True
    dashed: bool = False
    line: bool = False


def ticks(low: float, high: float, count: int = 6, whole: bool = False) -> list[float]:
    """Return round numbers from low to high, about ``count`` of them; whole ones where wanted."""
    span = max(high - low, 1e-12)
    power = 10 ** math.floor(math.log10(span / count))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power * count >= span * 0.999)
    if whole:
        step = max(1.0, float(math.ceil(step)))
    first = math.ceil(low / step - 1e-9)
    return [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]


def limits(values: Sequence[float], margin: float = 0.05) -> tuple[float, float]:
    """Return a range with some margin around all values; a range of 1 around a single one."""
    low, high = min(values), max(values)
    if high - low < 1e-9:
        return low - 0.5, high + 0.5
    return low - margin * (high - low), high + margin * (high - low)


def picture(width: float, height: float, parts: Sequence[str], label: str) -> str:
    """Return a picture of a size whose elements are ``parts``; ``label`` is read to those who cannot see it."""
    return (
        f'<svg viewBox="0 0 {width:g} {height:.0f}" role="img" aria-label="{escape(label)}" '
        f'font-family="system-ui, sans-serif" font-size="{FONT:g}" fill="currentColor">{"".join(parts)}</svg>'
    )


def text(x: float, y: float, words: str, anchor: str = "start", extra: str = "") -> str:
    """Return words whose line is centred at ``y``."""
    return f'<text x="{x:.1f}" y="{y + 0.35 * FONT:.1f}" text-anchor="{anchor}"{extra}>{escape(words)}</text>'


def text_width(words: str) -> float:
    """Return about how wide words are, rather more than less."""
    return FONT * sum(map(_width, words))


def _width(character: str) -> float:
    if character in " .,:;'|!()[]ijlt/-":
        return NARROW
    if character in "MWmw@%—…":
        return WIDE
    return CAPITAL if character.isupper() else USUAL


def shortened(words: str, width: float) -> str:
    """Return words cut to a width, an ellipsis at their end."""
    if text_width(words) <= width:
        return words
    while words and text_width(words) + FONT * WIDE > width:
        words = words[:-1]
    return words.rstrip(" ,") + "…"


def axes(frame: Frame) -> list[str]:
    """Return the two axes of a frame with ticks, faint lines across and labels."""
    parts: list[str] = []
    x, y = frame.x, frame.y
    for value in ticks(min(y.low, y.high), max(y.low, y.high), 5, frame.whole_y):
        parts.append(rule(x.start, y(value), x.end, y(value)))
        parts.append(text(x.start - 6, y(value), f"{value:g}", "end"))
    for value in ticks(x.low, x.high, 6, frame.whole_x):
        parts.append(rule(x(value), frame.bottom, x(value), frame.bottom + 4, 0.8))
        parts.append(text(x(value), frame.bottom + 12, f"{value:g}", "middle"))
    parts.append(rule(x.start, frame.bottom, x.end, frame.bottom, 0.8))
    return parts + labels(frame)


def labels(frame: Frame) -> list[str]:
    """Return what the axes say: below, and turned at the left edge of the picture."""
    parts = []
    if frame.x_label:
        parts.append(text((frame.x.start + frame.x.end) / 2, frame.bottom + 28, frame.x_label, "middle"))
    if frame.y_label:
        middle = (frame.top + frame.bottom) / 2
        parts.append(text(9, middle, frame.y_label, "middle", f' transform="rotate(-90 9 {middle:.1f})"'))
    return parts


def rule(x1: float, y1: float, x2: float, y2: float, opacity: float = 0.25) -> str:
    """Return a thin grey line."""
    return (
        f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" stroke="{GREY}" '
        f'stroke-opacity="{opacity:g}" stroke-width=".8"/>'
    )


def line(points: Sequence[tuple[float, float | None]], colour: str, dashed: bool = False) -> str:
    """Return a line through places, broken where one is missing."""
    path, move = [], "M"
    for x, y in points:
        if y is None:
            move = "M"
            continue
        path.append(f"{move}{x:.1f} {y:.1f}")
        move = "L"
    dash = ' stroke-dasharray="5 3"' if dashed else ""
    return f'<path d="{"".join(path)}" fill="none" stroke="{colour}" stroke-width="1.7"{dash}/>'


def mark(x: float, y: float, kind: str, colour: str, filled: bool = True, words: str = "") -> str:
    """Return one of :data:`MARKS` at a place; ``words`` appear under the pointer."""
    style = f'fill="{colour}"' if filled else f'fill="none" stroke="{colour}" stroke-width="1.4"'
    title = f"<title>{escape(words)}</title>" if words else ""
    if kind == "o":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{DOT}" {style}>{title}</circle>'
    shapes = {
        "s": "m-3-3h6v6h-6z",
        "d": "m0-4l4 4l-4 4l-4-4z",
        "^": "m0-4l4 7h-8z",
    }
    return f'<path d="M{x:.1f} {y:.1f}{shapes[kind]}" {style}>{title}</path>'


def box(x: float, y: float, width: float, height: float, colour: str, words: str = "") -> str:
    """Return a filled rectangle."""
    title = f"<title>{escape(words)}</title>" if words else ""
    return f'<path d="M{x:.1f} {y:.1f}h{width:.2f}v{height:.2f}h{-width:.2f}z" fill="{colour}">{title}</path>'


def legend(entries: Sequence[Entry], left: float, top: float, width: float) -> tuple[list[str], float]:
    """Return a legend of as many lines as it takes, and its height; labels too long for a line are cut."""
    parts: list[str] = []
    x, y = left, top + LINE / 2
    for entry in entries:
        label = shortened(entry.label, width - 26)
        needed = 26 + text_width(label) + 12
        if x > left and x + needed > left + width + 12:
            x, y = left, y + LINE
        if entry.line:
            parts.append(line([(x, y), (x + 18, y)], entry.colour, entry.dashed))
        if entry.mark:
            parts.append(mark(x + 9, y, entry.mark, entry.colour, entry.filled))
        parts.append(text(x + 24, y, label, "start"))
        x += needed
    return parts, y + LINE / 2 - top if entries else 0.0
