"""Exemplars of a run as ``exemplars_<task>.npz`` tell of them, and how near to the boundaries of classes they lie."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SCHEMA = 1
PATTERN = "exemplars_*.npz"
UNREADABLE = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error)
CHOICES = ("random", "herding", "kept")
POINTS = 150  # of a class in a picture
PERPLEXITY = 30.0
SEED = 0
Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Record:
    """What a file holds; see :class:`mmcl.memory.exemplar_record.ExemplarRecord` for what is not said here.

    Attributes:
        task: after which it was written.
        images_before: uint8 ``(K, H, W, 3)``.
        images_after: uint8 ``(K, H, W, 3)``.
        features: float64 ``(N, D)``, rows of unit length like those of ``exemplar_features`` and ``class_means``.
        picks: rows of ``features`` by the name of a choice other than the run's own.
    """

    task: int
    mode: str
    class_names: tuple[str, ...]
    images_before: NDArray[np.uint8]
    images_after: NDArray[np.uint8]
    labels: Labels
    chosen_in: Labels
    drift: Floats
    drift_labels: Labels
    features: Floats
    feature_labels: Labels
    exemplar_features: Floats
    picks: Mapping[str, Labels]
    class_means: Floats

    @property
    def shown(self) -> list[int]:
        """Labels of the shown classes, ascending."""
        return [int(label) for label in np.unique(self.labels)]

    def name_of(self, label: int) -> str:
        """Return the name of a class; one that is a bare number gets a word."""
        name = self.class_names[label]
        return f"class {name}" if name.isdecimal() else name


@dataclass(frozen=True, eq=False)
class Choice:
    """Exemplars of the shown classes under one rule, among features of their classes.

    Attributes:
        task: of the record.
        name: one of :data:`CHOICES`; ``kept`` is what the run itself holds.
        points: features of training images that no choice of the record picked ``(n, D)``.
        point_labels: ``(n,)``.
        exemplars: ``(k, D)``.
        labels: of the exemplars ``(k,)``.
        crosses: means of the other seen classes ``(C, D)``.
        silhouette: mean over the exemplars of their silhouettes, -1 to 1, among points and exemplars by class: 0 on a
            boundary. None where one class is shown.
        margin: mean over the exemplars of their cosine with the nearest class mean less that with the second nearest,
            among all seen classes. None where one class was seen.
    """

    task: int
    name: str
    points: Floats
    point_labels: Labels
    exemplars: Floats
    labels: Labels
    crosses: Floats
    silhouette: float | None
    margin: float | None


def record_files(run: Path) -> list[Path]:
    """Return the records in the directory of a run in the order of the tasks."""
    return sorted(path for path in run.glob(PATTERN) if path.stem.rpartition("_")[2].isdecimal())


def read_record(path: Path) -> Record:
    """Read one file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no record, or of another form.
        zipfile.BadZipFile, zlib.error, EOFError, KeyError: it is damaged.
    """
    with np.load(path, allow_pickle=False) as content:
        values: dict[str, NDArray[Any]] = {name: content[name] for name in content.files}
    if "schema" not in values or values["schema"].tolist() != SCHEMA:
        raise ValueError(f"expected exemplars of schema {SCHEMA}")
    record = Record(
        task=int(path.stem.rpartition("_")[2]),
        mode=str(values["mode"]),
        class_names=tuple(values["class_names"].tolist()),
        images_before=np.moveaxis(values["images_before"], 1, -1),
        images_after=np.moveaxis(values["images_after"], 1, -1),
        labels=values["labels"].astype(np.int64),
        chosen_in=values["chosen_in"].astype(np.int64),
        drift=values["drift"].astype(np.float64),
        drift_labels=values["drift_labels"].astype(np.int64),
        features=_unit(values["features"]),
        feature_labels=values["feature_labels"].astype(np.int64),
        exemplar_features=_unit(values["exemplar_features"]),
        picks={name: values[f"picks_{name}"].astype(np.int64) for name in CHOICES[:-1]},
        class_means=_unit(values["class_means"]),
    )
    _check(record)
    return record


def _check(record: Record) -> None:
    """Raise ValueError where arrays do not fit together."""
    count, points, width = len(record.labels), len(record.feature_labels), record.features.shape[1]
    side = record.images_before.shape[1:]
    expected: dict[str, tuple[NDArray[Any], tuple[int, ...]]] = {
        "images_before": (record.images_before, (count, *side)),
        "images_after": (record.images_after, (count, *side)),
        "chosen_in": (record.chosen_in, (count,)),
        "exemplar_features": (record.exemplar_features, (count, width)),
        "features": (record.features, (points, width)),
        "class_means": (record.class_means, (len(record.class_means), width)),
        "drift": (record.drift, record.drift_labels.shape),
    }
    for name, (array, shape) in expected.items():
        if array.shape != shape:
            raise ValueError(f"{name}: expected the shape {shape}, got {array.shape}")
        if not np.isfinite(array).all():
            raise ValueError(f"{name}: expected finite numbers")
    kinds = {record.images_before.dtype, record.images_after.dtype}
    if count == 0 or side[-1] != 3 or kinds != {np.dtype(np.uint8)}:
        raise ValueError("images: expected uint8 (K, 3, H, W), at least one")
    bounds = dict.fromkeys(("labels", "drift_labels", "feature_labels"), len(record.class_names))
    rows = {name: getattr(record, name) for name in bounds}
    for name, picks in record.picks.items():
        rows[f"picks_{name}"], bounds[f"picks_{name}"] = picks, points
    for name, values in rows.items():
        if ((values < 0) | (values >= bounds[name])).any():
            raise ValueError(f"{name}: expected numbers from 0 to {bounds[name] - 1}")


def choices(record: Record) -> list[Choice]:
    """Return the exemplars of each rule that picked some, with their numbers, among the same points.

    Points are at most :data:`POINTS` of each class; those that a rule picked are left out, so that none lies twice.
    """
    picked = np.concatenate(list(record.picks.values()))
    rest = np.setdiff1d(np.arange(len(record.features)), picked)
    draw = np.random.default_rng(SEED)
    rows = [rest[record.feature_labels[rest] == label] for label in np.unique(record.feature_labels)]
    points = np.concatenate([np.sort(draw.permutation(of_class)[:POINTS]) for of_class in rows])
    shown = [record.features[record.feature_labels == label].mean(axis=0) for label in np.unique(record.feature_labels)]
    means = np.concatenate([_unit(np.stack(shown)), record.class_means])
    sets = {name: (record.features[rows], record.feature_labels[rows]) for name, rows in record.picks.items()}
    sets["kept"] = (record.exemplar_features, record.labels)
    return [
        Choice(
            task=record.task,
            name=name,
            points=record.features[points],
            point_labels=record.feature_labels[points],
            exemplars=exemplars,
            labels=labels,
            crosses=record.class_means,
            silhouette=_silhouette(record.features[points], record.feature_labels[points], exemplars, labels),
            margin=_margin(exemplars, means),
        )
        for name, (exemplars, labels) in sets.items()
        if len(labels)
    ]


def _silhouette(points: Floats, point_labels: Labels, exemplars: Floats, labels: Labels) -> float | None:
    from sklearn.metrics import silhouette_samples

    classes = np.concatenate([point_labels, labels])
    if not 2 <= len(np.unique(classes)) < len(classes):
        return None
    return float(silhouette_samples(np.concatenate([points, exemplars]), classes)[len(points) :].mean())


def _margin(exemplars: Floats, means: Floats) -> float | None:
    if len(means) < 2:
        return None
    cosines = np.sort(exemplars @ means.T, axis=1)
    return float((cosines[:, -1] - cosines[:, -2]).mean())


def places(choice: Choice) -> tuple[Floats, Floats, Floats]:
    """Lay points, exemplars and crosses of a choice out by one t-SNE (van der Maaten & Hinton 2008): ``(n, 2)`` each.

    Starts from principal components; perplexity 30, fewer for few points.
    """
    from sklearn.manifold import TSNE

    together = np.concatenate([choice.points, choice.exemplars, choice.crosses])
    perplexity = min(PERPLEXITY, (len(together) - 1) / 3)
    init = "pca" if min(together.shape) > 1 and np.ptp(together, axis=0).any() else "random"
    laid_out = TSNE(perplexity=perplexity, init=init, random_state=SEED).fit_transform(together)
    ends = np.cumsum([len(choice.points), len(choice.exemplars)])
    points, exemplars, crosses = np.split(laid_out, ends)
    return points, exemplars, crosses


def figures_of(record: Record, chosen: Sequence[Choice]) -> dict[str, Any]:
    """Return what the pictures show as numbers of plain types; ``chosen`` are the record's choices."""
    return {
        "task": record.task,
        "mode": record.mode,
        "classes_seen": len(record.class_names),
        "shown_classes": [record.class_names[label] for label in record.shown],
        "drift": _drift_figures(record.drift),
        "choices": {
            choice.name: {"exemplars": len(choice.labels), "silhouette": choice.silhouette, "margin": choice.margin}
            for choice in chosen
        },
    }


def _drift_figures(drift: Floats) -> dict[str, float | int | None]:
    some = len(drift) > 0
    return {
        "exemplars": len(drift),
        "median": float(np.median(drift)) if some else None,
        "largest": float(drift.max()) if some else None,
    }


def _unit(rows: NDArray[Any]) -> Floats:
    """Return rows of unit length in float64; float16 keeps three digits of them."""
    exact = rows.astype(np.float64)
    unit: Floats = exact / np.maximum(np.linalg.norm(exact, axis=1, keepdims=True), 1e-12)
    return unit
