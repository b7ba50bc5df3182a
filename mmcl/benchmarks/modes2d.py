"""MODES and MOONS, online streams of points of the plane (Tiezzi et al., CoLLAs 2024), drawn or from their files."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from mmcl.benchmarks.base import DataItem
from mmcl.benchmarks.modes2d_generator import CLASSES, DOMAINS, SHAPES, arranged, first_half, split_rows
from mmcl.benchmarks.online import OnlineBenchmark, OnlineBenchmarkConfig, OnlineStream
from mmcl.config.schema import setting
from mmcl.errors import MissingFileError, UserError, nearest
from mmcl.protocol import StreamSamples

ORDERS = ("iid", "ci", "cdi", "cdid")
SOURCES = ("generated", "files")
FOLDER = "modes2d"
_FILE_NAMES = {"modes": "bi-modals", "moons": "bi-moons"}
_SPLITS = {"train": "train", "validation": "val", "test": "test"}  # ours to the files'
_UNREADABLE = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error)


@dataclass
class Modes2DConfig(OnlineBenchmarkConfig):
    """Keys of the streams in the plane."""

    shape: str = setting("modes: Gaussians; moons: half circles.")
    order: str = setting(
        "iid: shuffled; ci: class by class; cdi: by domain, then class; cdid: so, and from left to right in each."
    )
    source: str = setting("generated: drawn here; files: the authors' npz files below paths.data/modes2d.")
    data_seed: int = setting("0 draws the published points, any other number others of the same distributions.")

    def __post_init__(self) -> None:
        """Refuse unknown spellings, and other points from the files than they hold."""
        super().__post_init__()
        for name, known in (("shape", tuple(SHAPES)), ("order", ORDERS), ("source", SOURCES)):
            value = getattr(self, name)
            if value not in known:
                raise UserError(f"benchmark.{name}={value}: expected one of {', '.join(known)}.{nearest(value, known)}")
        if self.source == "files" and self.data_seed != 0:
            raise UserError(
                f"benchmark.data_seed={self.data_seed}: the files hold the points of data seed 0. "
                "Type benchmark.source=generated for others"
            )


class Modes2D(OnlineBenchmark):
    """Four classes in two domains: 1000 points in the stream, 500 to test, and up to 300 to select by."""

    Config: ClassVar[type[Modes2DConfig]] = Modes2DConfig
    config: Modes2DConfig

    @property
    def file(self) -> Path:
        """The authors' file of this shape and order."""
        return self.root / FOLDER / f"{_FILE_NAMES[self.config.shape]}_{self.config.order.upper()}.npz"

    def read(self) -> OnlineStream:
        """Draw the stream, or read its file.

        Raises:
            UserError: the file is missing or damaged.
        """
        parts = self._generated() if self.config.source == "generated" else read_stream_file(self.file)
        return OnlineStream(
            **parts,
            class_names=[str(label) for label in range(CLASSES)],
            distribution_names=distribution_names(self.config.order),
        )

    def describe_data(self) -> list[DataItem]:
        """Say whether the file is there, where it is wanted."""
        if self.config.source == "generated":
            return []
        return [DataItem(self.file, "the stream, its validation and its test samples", self.file.is_file())]

    def _generated(self) -> dict[str, StreamSamples]:
        shape, order, data_seed = self.config.shape, self.config.order, self.config.data_seed
        points = SHAPES[shape](data_seed)
        parts = {}
        for name, rows in split_rows(len(points.labels), data_seed).items():
            arrangement = arranged(points, rows, order, data_seed)
            chosen, distributions = first_half(arrangement) if name == "validation" else arrangement
            parts[name] = _samples(points.positions[chosen], points.labels[chosen], distributions)
        return parts


def distribution_names(order: str) -> list[str]:
    """Name the distributions of an order in their turn."""
    classes = [f"class {label}" for label in range(CLASSES)]
    if order in ("cdi", "cdid"):
        return [f"domain {domain}, {name}" for domain in range(DOMAINS) for name in classes]
    return classes if order == "ci" else ["all"]


def read_stream_file(file: Path) -> dict[str, StreamSamples]:
    """Read ``X_*`` ``(N, 2)``, ``y_*`` and ``distributions_*`` ``(N,)`` of train, val and test.

    Raises:
        UserError: no such file, or one that is cut short or lacks something.
    """
    if not file.is_file():
        raise MissingFileError(
            f"{file} is missing. Put the file of the Memory Head authors there (type paths.data=FOLDER for another "
            "place), or type benchmark.source=generated, which draws the same points"
        )
    try:
        # The files also hold a pickled record of how they were made, which stays unread.
        with np.load(file, allow_pickle=False) as content:
            return {name: _part(content, suffix) for name, suffix in _SPLITS.items()}
    except _UNREADABLE as error:
        raise UserError(
            f"{file} cannot be read ({error}). Expected X_* of shape (N, 2), y_* and distributions_* of shape (N,) for "
            "train, val and test. Bring the file again, or type benchmark.source=generated"
        ) from error


def _part(content: Mapping[str, np.ndarray[Any, Any]], suffix: str) -> StreamSamples:
    positions, labels, distributions = (content[f"{name}_{suffix}"] for name in ("X", "y", "distributions"))
    if positions.shape != (len(labels), 2) or labels.shape != distributions.shape:
        shapes = ", ".join(str(values.shape) for values in (positions, labels, distributions))
        raise ValueError(f"the shapes of {suffix} are {shapes}")
    if not all(np.issubdtype(values.dtype, np.integer) for values in (labels, distributions)):
        raise ValueError(f"y_{suffix} and distributions_{suffix} are no integers")
    return _samples(positions, labels, distributions)


def _samples(
    positions: np.ndarray[Any, Any], labels: np.ndarray[Any, Any], distributions: np.ndarray[Any, Any]
) -> StreamSamples:
    integers = (torch.from_numpy(np.asarray(values, np.int64)) for values in (labels, distributions))
    return StreamSamples(torch.from_numpy(np.asarray(positions, np.float32)), *integers)
