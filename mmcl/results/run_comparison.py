"""Two runs side by side: settings, figures, accuracies over tasks and of each class, bytes and time."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmcl.results.predicted import Answers, read_answers
from mmcl.results.result import Result, decides

MISSING = ""
BYTE_NAMES = {
    "model_bytes": "model",
    "head_bytes": "heads",
    "buffer_bytes": "buffers",
    "memory_bytes": "memory",
    "teacher_bytes": "teacher",
}
NO_FIGURES = ("_curve", "_matrix", "_choices")
OF_ITS_OWN = ("date", "seed")  # parts of the provenance that stand elsewhere
NOTHING: Mapping[str, Any] = {}


@dataclass(frozen=True)
class Difference:
    """What stands under one dotted key in either run, as text; empty where the key is missing."""

    key: str
    first: str
    second: str


@dataclass(frozen=True)
class Pair:
    """A number of either run; None where it is missing."""

    name: str
    first: float | None
    second: float | None

    @property
    def difference(self) -> float | None:
        """The second less the first."""
        return None if self.first is None or self.second is None else self.second - self.first


@dataclass(frozen=True)
class ReadoutComparison:
    """One readout of both runs. Accuracies are fractions.

    Attributes:
        name: of the readout.
        figures: every figure that is one number.
        curve: accuracy after each task that either run had, or on each data set.
        classes: accuracy on each class that both were asked about at the end, the largest gain first.
        images: test images of these classes; None where the runs had other ones.
        changed: images that the runs answer differently; None where that is not known.
        at_least: images that they answer differently at least, by the confusion matrices alone.
    """

    name: str
    figures: tuple[Pair, ...]
    curve: tuple[Pair, ...] = ()
    classes: tuple[Pair, ...] = ()
    images: int | None = None
    changed: int | None = None
    at_least: int | None = None

    @property
    def gained(self) -> tuple[Pair, ...]:
        """Classes on which the second run is better, the largest gain first."""
        return tuple(pair for pair in self.classes if pair.difference and pair.difference > 0)

    @property
    def lost(self) -> tuple[Pair, ...]:
        """Classes on which the second run is worse, the largest loss first."""
        return tuple(pair for pair in reversed(self.classes) if pair.difference and pair.difference < 0)


@dataclass(frozen=True, eq=False)
class RunComparison:
    """All about two runs.

    Attributes:
        first: a run.
        second: another.
        deciding: keys of the configuration that decide figures, where they differ.
        other: other keys, where they differ: hardware, folders, loggers.
        provenance: commit, versions and hardware, where they differ.
        readouts: those that both have.
        sizes: bytes after the last task of each; the sum of model and memory first.
        seconds: wall time, and the time of each stage, summed over tasks.
        notes: what one must know to read the rest.
    """

    first: Result
    second: Result
    deciding: tuple[Difference, ...]
    other: tuple[Difference, ...]
    provenance: tuple[Difference, ...]
    readouts: tuple[ReadoutComparison, ...]
    sizes: tuple[Pair, ...]
    seconds: tuple[Pair, ...]
    notes: tuple[str, ...]

    @property
    def word(self) -> str:
        """What stands before the name of a task: its accuracy is one on a data set, or after what was learned."""
        return "on" if asks_data_sets(self.first) else "after"


def asks_data_sets(result: Result) -> bool:
    """Whether each task of a run is a data set of its own, or an evaluation with classes of its own."""
    return bool(result.task_names) and not result.evaluations


def compare_runs(first: Result, second: Result) -> RunComparison:
    """Set two runs side by side, whatever state they are in."""
    settings = differences(first.config, second.config)
    provenance = differences(
        *({k: v for k, v in run.provenance.items() if k not in OF_ITS_OWN} for run in (first, second))
    )
    return RunComparison(
        first,
        second,
        deciding=tuple(entry for entry in settings if decides(entry.key)),
        other=tuple(entry for entry in settings if not decides(entry.key)),
        provenance=provenance,
        readouts=tuple(_compare_readout(first, second, name) for name in first.readouts if name in second.readouts),
        sizes=_sizes(first, second),
        seconds=_seconds(first, second),
        notes=tuple(_notes(first, second, provenance)),
    )


# Settings


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> tuple[Difference, ...]:
    """Return the dotted keys whose values differ, sorted."""
    flat = [dict(_flat(values)) for values in (first, second)]
    keys = sorted(flat[0].keys() | flat[1].keys())
    pairs = (Difference(key, *(values.get(key, MISSING) for values in flat)) for key in keys)
    return tuple(pair for pair in pairs if pair.first != pair.second)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str) and value else json.dumps(value)


# Figures


def _compare_readout(first: Result, second: Result, name: str) -> ReadoutComparison:
    figures = first.readouts[name], second.readouts[name]
    left_out = (*NO_FIGURES, "last_accuracy") if asks_data_sets(first) else NO_FIGURES  # no data set is the last one
    names = [key for key in dict.fromkeys([*figures[0], *figures[1]]) if not key.endswith(left_out)]
    pairs = (Pair(key, figures[0].get(key), figures[1].get(key)) for key in names)
    compared = ReadoutComparison(
        name,
        tuple(pair for pair in pairs if (pair.first, pair.second) != (None, None)),
        curve=_join_curves(_curve(first, name), _curve(second, name)),
    )
    return _with_classes(compared, first, second)


def _curve(result: Result, readout: str) -> dict[str, float]:
    """Return the accuracies after each task by what it is called: classes seen, or the name of a data set."""
    curve = result.readouts[readout].get("accuracy_curve") or ()
    names = result.task_names or [f"{seen} classes" for seen in np.cumsum(result.task_sizes).tolist()]
    return {name: value for name, value in zip(unique(names), curve, strict=False) if value is not None}


def _join_curves(first: Mapping[str, float], second: Mapping[str, float]) -> tuple[Pair, ...]:
    """Return the entries of both curves in order; none where they have no task in common."""
    if not first.keys() & second.keys():
        return ()
    names = list(dict.fromkeys([*first, *second]))
    if all(name.removesuffix(" classes").isdecimal() for name in names):
        names.sort(key=lambda name: int(name.removesuffix(" classes")))
    return tuple(Pair(name, first.get(name), second.get(name)) for name in names)


def unique(names: Sequence[str]) -> list[str]:
    """Return names of which each is there once: later ones of the same name get a number."""
    seen: Counter[str] = Counter()
    told = []
    for name in names:
        seen[name] += 1
        told.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return told


# Classes


def _with_classes(compared: ReadoutComparison, first: Result, second: Result) -> ReadoutComparison:
    """Add what the confusion matrices and, where they are kept, the answers of both runs say about the classes."""
    runs = (first, second)
    matrices = [run.confusions[compared.name] for run in runs if compared.name in run.confusions]
    if len(matrices) < 2 or last_data_set(first) != last_data_set(second):
        return compared
    names = [confused_classes(run, len(matrix)) for run, matrix in zip(runs, matrices, strict=True)]
    common = [name for name in names[0] if name in set(names[1])]
    parts = [_rows_of(matrix, own, common) for matrix, own in zip(matrices, names, strict=True)]
    asked = [part.sum(axis=1) for part in parts]
    both = (asked[0] > 0) & (asked[1] > 0)
    shares = [np.diagonal(part) / np.maximum(part.sum(axis=1), 1) for part in parts]
    classes = [Pair(common[row], float(shares[0][row]), float(shares[1][row])) for row in np.flatnonzero(both)]
    classes.sort(key=lambda pair: -(pair.difference or 0.0))
    same_images = len(classes) > 0 and np.array_equal(asked[0], asked[1])
    return ReadoutComparison(
        compared.name,
        compared.figures,
        compared.curve,
        tuple(classes),
        images=int(asked[0].sum()) if same_images else None,
        at_least=least_changed(*parts) if same_images else None,
        changed=_changed(first, second, compared.name, names) if same_images else None,
    )


def last_data_set(result: Result) -> str | None:
    """Return the name of the data set that was asked last; None for runs whose tasks share their classes."""
    return result.task_names[_last_asked(result)] if asks_data_sets(result) else None


def confused_classes(result: Result, count: int) -> list[str]:
    """Return the names of the ``count`` classes of a confusion matrix; numbers where they are not known."""
    names = list(result.class_names)
    if asks_data_sets(result):
        start = sum(result.task_sizes[: _last_asked(result)])
        names = names[start : start + result.task_sizes[_last_asked(result)]]
    return unique(names) if len(names) == count else [f"class {number}" for number in range(count)]


def _last_asked(result: Result) -> int:
    curves = [figures.get("accuracy_curve") or () for figures in result.readouts.values()]
    asked = [index for curve in curves for index, value in enumerate(curve) if value is not None]
    return min(max(asked, default=0), len(result.task_names) - 1)


def _rows_of(matrix: NDArray[np.int64], names: Sequence[str], wanted: Sequence[str]) -> NDArray[np.int64]:
    """Return the rows ``(W, W + 1)`` of wanted classes; answers with other classes are counted in the last column."""
    places = {name: place for place, name in enumerate(names)}
    rows = matrix[[places[name] for name in wanted]].reshape(len(wanted), len(names))
    kept = rows[:, [places[name] for name in wanted]]
    return np.concatenate([kept, rows.sum(axis=1, keepdims=True) - kept.sum(axis=1, keepdims=True)], axis=1)


def least_changed(first: NDArray[np.int64], second: NDArray[np.int64]) -> int:
    """Return how many images are answered differently at least, from counts ``(C, A)`` of answers to the same images.

    Of each true class, as many as the counts of its answers moved: half the sum of their absolute differences.
    """
    return int(np.abs(first - second).sum() // 2)


def _changed(first: Result, second: Result, readout: str, names: Sequence[Sequence[str]]) -> int | None:
    answers = [read_answers(run.path.parent, readout) for run in (first, second)]
    if answers[0] is None or answers[1] is None:
        return None
    return changed_answers(_named(answers[0], names[0]), _named(answers[1], names[1]))


def _named(answers: Answers, names: Sequence[str]) -> Answers:
    known = np.array([*names, MISSING])
    return Answers(*(known[np.minimum(column, len(names))] for column in answers))


def changed_answers(first: Answers, second: Answers) -> int | None:
    """Return how many samples have another answer; None where the samples are not the same ones in the same order."""
    if not np.array_equal(first.truths, second.truths):
        return None
    return int((first.answers != second.answers).sum())


# Bytes, time, notes


def _sizes(first: Result, second: Result) -> tuple[Pair, ...]:
    last = [run.bytes_per_task[-1] if run.bytes_per_task else NOTHING for run in (first, second)]
    total = Pair("model and memory", first.kept_bytes, second.kept_bytes)
    parts = [Pair(name, *(entry.get(key) for entry in last)) for key, name in BYTE_NAMES.items()]
    return tuple(pair for pair in (total, *parts) if pair.first or pair.second)


def _seconds(first: Result, second: Result) -> tuple[Pair, ...]:
    wall = Pair("wall", *(run.timing.get("wall_seconds") for run in (first, second)))
    stages = [_stage_seconds(run) for run in (first, second)]
    names = dict.fromkeys([*stages[0], *stages[1]])
    return (wall, *(Pair(name, *(seconds.get(name) for seconds in stages)) for name in names))


def _stage_seconds(result: Result) -> dict[str, float]:
    seconds: dict[str, float] = {}
    for stage in result.timing.get("stages", ()):
        name = str(stage.get("stage", ""))
        seconds[name] = seconds.get(name, 0.0) + float(stage.get("seconds") or 0.0)
    return seconds


def _notes(first: Result, second: Result, provenance: Sequence[Difference]) -> Iterable[str]:
    for letter, run, other in (("A", first, second), ("B", second, first)):
        if not run.finished:
            tasks = max((len(_curve(run, name)) for name in run.readouts), default=0)
            yield f"{letter} is {run.status}: its figures are of {tasks} of {len(run.task_sizes)} tasks."
        if alone := [name for name in run.readouts if name not in other.readouts]:
            yield f"Only {letter} has the readout{'s' if len(alone) > 1 else ''} {', '.join(alone)}."
        yield from run.confusion_problems
    if (first.task_names, first.task_sizes) != (second.task_names, second.task_sizes):
        yield "The tasks differ: an average is over those of its own run."
    if first.identity == second.identity:
        yield "Both have the same identity: the same figures are expected, bit for bit on the same hardware."
    if last_data_set(first) != last_data_set(second):
        yield "The confusion matrices are of different data sets: classes are not compared."
    if any(entry.key.startswith("hardware") for entry in provenance):
        yield "The hardware differs: times do not compare."
