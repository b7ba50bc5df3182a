"""What a run on an online stream wrote for pictures: ``traces/NNN.npz`` after NNN windows, 000 before the stream."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

FOLDER = "traces"
UNREADABLE = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error)
Item = TypeVar("Item")


@dataclass(frozen=True, eq=False)
class Plane:
    """The predicted classes of a grid of points of the plane.

    Attributes:
        classes: uint8 ``(G, H)``, row by row of y.
        xs: ``(H,)``, ascending.
        ys: ``(G,)``, ascending.
    """

    classes: NDArray[np.uint8]
    xs: NDArray[np.float64]
    ys: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Trace:
    """A learner after some windows of its stream; what it does not have is None.

    Attributes:
        windows: how many windows it has learned.
        plane: its decisions, where samples are points of the plane.
        keys: keys of the memory ``(q * m, 2)``, bank after bank, where they are points of the plane.
        usage: wins of each of m units of q banks since its last scramble ``(q, m)``.
        scrambles: units given away so far, in all banks.
    """

    windows: int
    plane: Plane | None = None
    keys: NDArray[np.float64] | None = None
    usage: NDArray[np.float64] | None = None
    scrambles: int | None = None


def read_traces(run: Path) -> tuple[list[Trace], list[str]]:
    """Read the traces beside a result, in the order of the stream.

    Args:
        run: the folder of the result.

    Returns:
        The traces, none for runs that wrote none, and one line for each file that was skipped.
    """
    traces: list[Trace] = []
    problems: list[str] = []
    for windows, path in trace_files(run).items():
        try:
            traces.append(read_trace(path, windows))
        except UNREADABLE as error:
            problems.append(f"{path}: skipped: {error}")
    return traces, problems


def trace_files(run: Path) -> dict[int, Path]:
    """Return the files of traces beside a result by their number of windows, ascending."""
    files = {int(path.stem): path for path in (run / FOLDER).glob("*.npz") if path.stem.isdecimal()}
    return dict(sorted(files.items()))


def read_trace(path: Path, windows: int) -> Trace:
    """Read one file.

    Raises:
        OSError: it cannot be read.
        ValueError: an array has another shape than the others ask for, or a value that is not finite; or it is no npz.
    """
    with np.load(path, allow_pickle=False) as content:
        values = {name: content[name] for name in content.files}
    for name, array in values.items():
        if not np.issubdtype(array.dtype, np.number) or not np.isfinite(array).all():
            raise ValueError(f"{name}: expected finite numbers")
    keys, usage, scrambles = _keys(values), values.get("mu"), values.get("scrambling_count")
    if usage is not None:
        usage = np.atleast_2d(usage).astype(np.float64)
        if usage.ndim != 2 or (keys is not None and usage.size != len(keys)):
            raise ValueError(f"mu: expected a count for each unit, got the shape {usage.shape}")
    return Trace(
        windows,
        plane=_plane(values) if "regions" in values else None,
        keys=keys,
        usage=usage,
        scrambles=None if scrambles is None else int(scrambles.sum()),
    )


def _plane(values: Mapping[str, NDArray[Any]]) -> Plane:
    classes = values["regions"]
    xs, ys = (values[name].astype(np.float64) for name in ("xs", "ys"))
    if classes.shape != (len(ys), len(xs)) or min(classes.shape) < 2:
        raise ValueError(f"regions: expected {len(ys)} rows of {len(xs)} classes, got the shape {classes.shape}")
    return Plane(classes.astype(np.uint8), xs, ys)


def _keys(values: Mapping[str, NDArray[Any]]) -> NDArray[np.float64] | None:
    """Return the keys if they are points of the plane that is drawn; keys of deeper layers may have another size."""
    keys = values.get("keys")
    if keys is None or "regions" not in values or keys.ndim not in (2, 3) or keys.shape[-1] != 2:
        return None
    return keys.reshape(-1, 2).astype(np.float64)


def pictured(items: Sequence[Item]) -> list[Item]:
    """Return start, middle and end; picking from them again changes nothing."""
    return [items[index] for index in sorted({0, len(items) // 2, len(items) - 1}) if items]


def with_usage(traces: Sequence[Trace]) -> list[Trace]:
    """Return the traces that tell the usage of their units; none where there is nothing to compare."""
    used = [trace for trace in traces if trace.usage is not None]
    shapes = {trace.usage.shape for trace in used if trace.usage is not None}
    return used if len(used) > 1 and len(shapes) == 1 else []
