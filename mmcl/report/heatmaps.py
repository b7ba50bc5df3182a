"""Matrices as pictures: one small image in a frame of ticks, so that many classes cost few bytes."""

from __future__ import annotations

import base64
import functools
import io
from collections.abc import Callable, Sequence

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmcl.report.plot import Frame, Scale, labels, picture, rule, text, text_width, ticks

Matrix = NDArray[np.float64]
WIDTH, SIDE = 340.0, 232.0
LEFT, TOP = 48.0, 8.0
LEVELS = 64  # colours of a map; more of them cannot be told apart, and cost bytes
ABSENT = LEVELS  # the transparent entry of the palette
MAX_SIDE = 500  # of an image; more classes than this are drawn as blocks of classes
MAX_ANNOTATED = 12


def accuracy_matrix(
    matrix: Sequence[Sequence[float | None]], columns: str = "classes of task", rows: str = "after task"
) -> str:
    """Draw accuracies (fractions) of each task's classes (columns) after each task (rows) in percent."""
    percent = 100 * np.array(matrix, dtype=np.float64)
    parts = _heatmap(_blocks(percent, np.nanmean, np.nanmean) / 100, percent.shape, "cividis")
    if max(percent.shape) <= MAX_ANNOTATED:
        parts += _numbers(percent)
    parts += labels(_frame(percent.shape, columns, rows))
    parts += colour_bar("cividis", LEFT + SIDE + 16, TOP, SIDE, "0", "100", "accuracy (%)")
    return picture(WIDTH, TOP + SIDE + 38, parts, f"accuracy in percent of {columns} {rows}")


def confusion_matrix(counts: NDArray[np.int64], task_sizes: Sequence[int]) -> str:
    """Draw counts ``(C, C)``, true class by predicted class, as shares of the true class; lines part the tasks."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    parts = _heatmap(_blocks(shares, np.mean, np.sum), shares.shape, "magma")
    frame = _frame(shares.shape, "predicted class", "true class")
    ends = np.cumsum(task_sizes)[:-1]
    for end in ends if len(ends) <= MAX_SIDE / 5 else ():
        parts.append(rule(LEFT, frame.y(end - 0.5), LEFT + SIDE, frame.y(end - 0.5), 0.6))
        parts.append(rule(frame.x(end - 0.5), TOP, frame.x(end - 0.5), TOP + SIDE, 0.6))
    parts += labels(frame) + colour_bar("magma", LEFT + SIDE + 16, TOP, SIDE, "0", "1", "share of the true class")
    return picture(WIDTH, TOP + SIDE + 38, parts, "confusion matrix, true class by predicted class")


def image(values: Matrix, colours: str) -> str:
    """Return values from 0 to 1 as the address of a PNG in a colour map; what is not a number is transparent."""
    levels = np.where(np.isnan(values), ABSENT, np.clip(np.nan_to_num(values), 0, 1) * (LEVELS - 1))
    drawn = Image.fromarray(np.round(levels).astype(np.uint8)).convert("L")
    drawn = Image.frombytes("P", drawn.size, drawn.tobytes())
    drawn.putpalette(palette(colours))
    buffer = io.BytesIO()
    drawn.save(buffer, "PNG", optimize=True, transparency=ABSENT)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def placed(address: str, left: float, top: float, width: float, height: float) -> str:
    """Return an image stretched over a place, each of its pixels with sharp edges."""
    return (
        f'<image x="{left:g}" y="{top:g}" width="{width:g}" height="{height:g}" preserveAspectRatio="none" '
        f'style="image-rendering:pixelated" href="{address}"/>'
    )


def colour_bar(colours: str, left: float, top: float, height: float, low: str, high: str, label: str) -> list[str]:
    """Return the colours of a map, the lowest below, with what they stand for."""
    bottom, middle = top + height, top + height / 2
    beside = left + (20 if text_width(label) < height - 40 else 40)  # between the two numbers, or behind them
    turned = f' transform="rotate(-90 {beside:.0f} {middle:.0f})"'
    return [
        placed(image(np.linspace(1, 0, LEVELS)[:, None], colours), left, top, 9, height),
        text(left + 13, top + 5, high),
        text(left + 13, bottom - 5, low),
        text(beside, middle, label, "middle", turned),
    ]


@functools.cache
def palette(colours: str) -> bytes:
    """Return the red, green and blue of each level of a colour map of matplotlib, and those of what is absent."""
    levels = matplotlib.colormaps[colours](np.linspace(0, 1, LEVELS))[:, :3]
    return bytes(np.round(255 * levels).astype(np.uint8).tobytes()) + b"\0\0\0"


def _heatmap(values: Matrix, shape: tuple[int, ...], colours: str) -> list[str]:
    frame = _frame(shape, "", "")
    parts = [placed(image(values, colours), LEFT, TOP, SIDE, SIDE)]
    for value in ticks(0, shape[1] - 1, 6, whole=True):
        parts.append(text(frame.x(value), TOP + SIDE + 11, f"{value:g}", "middle"))
    for value in ticks(0, shape[0] - 1, 6, whole=True):
        parts.append(text(LEFT - 5, frame.y(value), f"{value:g}", "end"))
    return parts


def _frame(shape: tuple[int, ...], columns: str, rows: str) -> Frame:
    x = Scale(-0.5, shape[1] - 0.5, LEFT, LEFT + SIDE)
    return Frame(x, Scale(-0.5, shape[0] - 0.5, TOP, TOP + SIDE), columns, rows)


def _numbers(percent: Matrix) -> list[str]:
    frame = _frame(percent.shape, "", "")
    return [
        text(frame.x(column), frame.y(row), f"{value:.0f}", "middle", f' fill="{"#fff" if value < 50 else "#000"}"')
        for (row, column), value in np.ndenumerate(percent)
        if not np.isnan(value)
    ]


def _blocks(
    values: Matrix, over_rows: Callable[..., Matrix], over_columns: Callable[..., Matrix], side: int = MAX_SIDE
) -> Matrix:
    """Return the matrix itself or, of a large one, blocks of equal rows and columns."""
    step = -(-max(values.shape) // side)
    if step == 1:
        return values
    for axis, summary in ((0, over_rows), (1, over_columns)):
        groups = np.array_split(values, -(-values.shape[axis] // step), axis=axis)
        values = np.stack([summary(group, axis=axis) for group in groups], axis=axis)
    return values
