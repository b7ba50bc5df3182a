"""Methods on one benchmark by accuracy, bytes and time, from the same runs, and which of them no other beats."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import Any

from mmcl.config.identity import WITHOUT_INFLUENCE
from mmcl.report.setting_labels import Flat, flattened, in_brackets, labels_of, shortened
from mmcl.results.costs import hardware_of
from mmcl.results.result import Result

MIN_METHODS = 3
# A budget counts as the papers do, without heads, statistics and labels; what keeps this many times as much ignores it.
SLACK = 1.5
TEXT, FUSED, SECOND = "text", "fused", "nme"
UNSEEN = "unseen"
READOUT_RULE = (
    "The accuracy is that of a method's own readout: what it fuses before the parts, a text classifier only where "
    "there is nothing else. Where a method also answers by the nearest class mean of its memory, that is a square. "
    "Bytes are those of model, heads, buffers and memory after the last task, as measured. A point is on the front "
    "where no other is at least as good in accuracy, bytes and time and better in one"
)
WEIGHTS_KEY = "method.first_task_weights"
SEEDED_KEYS = ("order_seed", "split_seed")
AVERAGE, LAST = "average_incremental_accuracy", "last_accuracy"


@dataclass(frozen=True)
class PlanePoint:
    """One configuration of a method with one of its readouts; means over seeds.

    Attributes:
        label: the method, and what tells its configurations in this plane apart.
        family: the same without the budget: points of one family and readout are one method with more or less memory.
        method: name of the method.
        readout: name of the readout.
        second: whether it is the readout beside the method's own.
        accuracy: what its plane is about (``Plane.axis``), fraction.
        accuracy_spread: standard deviation of it; None below two seeds.
        average: average incremental accuracy, fraction; None of a method that answers after the last task alone.
        last: accuracy after the last task, fraction.
        spread: standard deviation of ``average``; None below two seeds.
        kept_bytes: model, heads, buffers and memory after the last task, as measured.
        seconds: wall time of a run; None where a run does not say.
        seeds: number of runs behind it.
        on_front: whether no other point of its plane beats it.
        beyond: whether it keeps far more than the budget of its plane: a bound, which beats nothing.
    """

    label: str
    family: str
    method: str
    readout: str
    second: bool
    accuracy: float
    accuracy_spread: float | None
    average: float | None
    last: float
    spread: float | None
    kept_bytes: int
    seconds: float | None
    seeds: int
    on_front: bool = False
    beyond: bool = False


@dataclass(frozen=True)
class Plane:
    """The methods of one benchmark, all of them or those within one budget.

    Attributes:
        title: the benchmark, and the budget where there is one.
        readout: the rules behind accuracy, bytes and front, in words.
        axis: what the accuracy of its points is, in words.
        budget: bytes that every method was given, or did without; None for a plane of all configurations.
        points: by the name of the method, its own readouts first.
    """

    title: str
    readout: str
    axis: str
    budget: int | None
    points: tuple[PlanePoint, ...]


@dataclass(frozen=True, eq=False)
class _Configuration:
    """Runs that differ by their seed alone, the newest of each seed."""

    runs: tuple[Result, ...]

    @property
    def method(self) -> str:
        return self.runs[0].name_of("method")

    @property
    def kept_bytes(self) -> int:
        return round(fmean(run.kept_bytes or 0 for run in self.runs))

    @property
    def budget(self) -> int | None:
        """Bytes that it was given."""
        found = self._node("memory").get("bytes") or self._node("method").get("total_bytes")
        return found if isinstance(found, int) else None

    def within(self, budget: int) -> bool:
        """Whether it was given this budget; or keeps no more, and there is none that it could be given."""
        if "bytes" in self._node("memory") or "total_bytes" in self._node("method"):
            return self.budget == budget
        return self.kept_bytes <= budget

    def settings(self) -> Flat:
        """Return what may tell it from others of its method."""
        flat = flattened({name: self._node(name) for name in ("method", "memory", "backbone")})
        if flat.get(WEIGHTS_KEY, "None") != "None":
            flat[WEIGHTS_KEY] = "given"
        return flat

    def _node(self, name: str) -> Mapping[str, Any]:
        return _node(self.runs[0].config, name)


def find_planes(results: Sequence[Result]) -> list[Plane]:
    """Return a plane for each benchmark and each budget in bytes with at least three methods.

    Runs belong together where all that decides their benchmark is the same but the seed, and a class order that
    follows it. A benchmark whose runs do not all lie in the plane of one budget has a plane of all of them as well.

    Args:
        results: in the order of their dates; unfinished ones and those without measured bytes are passed over.
    """
    benchmarks: dict[str, list[Result]] = {}
    for result in results:
        if result.finished and result.kept_bytes is not None:
            benchmarks.setdefault(_benchmark_key(result), []).append(result)
    several = {
        key: _configurations(runs)
        for key, runs in benchmarks.items()
        if len({run.name_of("method") for run in runs}) >= MIN_METHODS
    }
    titles = _titles({key: found[0].runs[0] for key, found in several.items()})
    planes = [plane for key, found in several.items() for plane in _planes_of(titles[key], found)]
    return sorted(planes, key=lambda plane: plane.title)


def front(costs: Sequence[Sequence[float]]) -> list[bool]:
    """Return which of some points are not dominated: no other is as small in every cost and smaller in one."""
    ordered = sorted(set(map(tuple, costs)))
    kept: list[tuple[float, ...]] = []
    for point in ordered:  # whatever dominates a point comes before it
        if not any(all(a <= b for a, b in zip(other, point, strict=True)) for other in kept):
            kept.append(point)
    on_it = set(kept)
    return [tuple(point) in on_it for point in costs]


def shown_readouts(names: Sequence[str]) -> list[str]:
    """Return the readouts of a run that stand for its method, its own first; accuracy has no say in it."""
    own = FUSED if FUSED in names else next((name for name in names if name != TEXT), TEXT)
    return [own, SECOND] if SECOND in names and own != SECOND else [own]


def _benchmark_key(result: Result) -> str:
    benchmark = {key: value for key, value in _node(result.config, "benchmark").items() if key not in WITHOUT_INFLUENCE}
    for name in SEEDED_KEYS:
        if name in benchmark and benchmark[name] == result.seed:
            benchmark[name] = "seed"
    names = [] if benchmark.get("split_seed") == "seed" else sorted(result.class_names)  # the seed draws the classes
    return json.dumps([benchmark, result.task_names, result.task_sizes, names], sort_keys=True)


def _configurations(runs: Sequence[Result]) -> list[_Configuration]:
    groups: dict[str, dict[str, Result]] = {}
    for run in runs:
        key = run.deciding_config("seed")
        given = _node(run.config, "method").get("first_task_weights")
        if given is not None:  # a file of each seed
            key = key.replace(json.dumps(given), "true")
        groups.setdefault(key, {})[str(run.seed)] = run
    return [_Configuration(tuple(by_seed.values())) for by_seed in groups.values()]


def _planes_of(title: str, configurations: Sequence[_Configuration]) -> list[Plane]:
    budgets = sorted({one.budget for one in configurations if one.budget is not None})
    planes, covered = [], False
    for budget in budgets:
        within = [one for one in configurations if one.within(budget)]
        plane = _plane(f"{title}, {budget:,} bytes", within, budget)
        if _compares(plane):
            planes.append(plane)
            covered |= len(within) == len(configurations)
    everything = _plane(title, configurations, None)
    return planes if covered or not _compares(everything) else [*planes, everything]


def _compares(plane: Plane) -> bool:
    return len({point.method for point in plane.points if not point.beyond}) >= MIN_METHODS


def _plane(title: str, configurations: Sequence[_Configuration], budget: int | None) -> Plane:
    runs = [run for one in configurations for run in one.runs]
    points = [
        point
        for one, (label, family) in zip(configurations, _labels(configurations), strict=True)
        for index, readout in enumerate(shown_readouts(list(one.runs[0].readouts_on())))
        if (point := _point(one, readout, bool(index), label, family)) is not None
    ]
    points.sort(key=lambda point: (point.method, point.family, point.second, point.kept_bytes))
    timed = len({hardware_of(run) for run in runs}) == 1 and all(point.seconds is not None for point in points)
    points = [replace(one, beyond=budget is not None and one.kept_bytes > SLACK * budget) for one in points]
    compared = [one for one in points if not one.beyond]
    costs = [(-one.accuracy, float(one.kept_bytes), (one.seconds or 0.0) if timed else 0.0) for one in compared]
    winners = {id(one) for one, on_it in zip(compared, front(costs), strict=True) if on_it}
    points = [replace(one, on_front=id(one) in winners) for one in points]
    machines = "." if timed else "; times of several machines do not compare, and the front leaves them out."
    bounds = " What keeps far more than the budget is a bound, a dashed line." if any(p.beyond for p in points) else ""
    return Plane(title, READOUT_RULE + machines + bounds, _axis(runs[0]), budget, tuple(points))


def _point(one: _Configuration, readout: str, second: bool, label: str, family: str) -> PlanePoint | None:
    """Return a point, or None where a run has no accuracy for it."""
    figures = [run.readouts.get(readout, {}) for run in one.runs]
    accuracies, averages, lasts = (
        _known(values)
        for values in (
            [_shown_accuracy(run, entry) for run, entry in zip(one.runs, figures, strict=True)],
            [entry.get(AVERAGE) for entry in figures],
            [entry.get(LAST) for entry in figures],
        )
    )
    if not accuracies or not lasts:
        return None
    seconds = _known([run.timing.get("wall_seconds") for run in one.runs])
    return PlanePoint(
        label=label,
        family=family,
        method=one.method,
        readout=readout,
        second=second,
        accuracy=fmean(accuracies),
        accuracy_spread=_spread(accuracies),
        average=fmean(averages) if averages else None,
        last=fmean(lasts),
        spread=_spread(averages),
        kept_bytes=one.kept_bytes,
        seconds=fmean(seconds) if seconds else None,
        seeds=len(one.runs),
    )


def _shown_accuracy(run: Result, figures: Mapping[str, Any]) -> Any:
    """Return the accuracy that a plane is about: after the last task, over data sets, or on unseen classes."""
    if not _asks_memories(run):
        return figures.get(AVERAGE if _has_data_sets(run) else LAST)
    curve, task = figures.get("accuracy_curve") or [], _shown_evaluation(run)
    return curve[task] if task < len(curve) else None


def _axis(run: Result) -> str:
    """Say what :func:`_shown_accuracy` returns."""
    if _asks_memories(run):
        return f"accuracy on {run.task_names[_shown_evaluation(run)]} (%)"
    return "mean accuracy over data sets (%)" if _has_data_sets(run) else "accuracy after the last task (%)"


def _shown_evaluation(run: Result) -> int:
    return run.task_names.index(UNSEEN) if UNSEEN in run.task_names else len(run.task_names) - 1


def _asks_memories(run: Result) -> bool:
    """Whether tasks are evaluations, each with a memory of its own."""
    return bool(run.task_names) and "evaluations" in _node(run.config, "benchmark")


def _has_data_sets(run: Result) -> bool:
    """Whether tasks are data sets that count alike."""
    return len(run.task_names) > 1 and not run.evaluations


def _labels(configurations: Sequence[_Configuration]) -> list[tuple[str, str]]:
    """Return of each configuration its label in a plane, and that of its family."""
    settings: dict[str, list[Flat]] = {}
    places = []
    for one in configurations:
        kin = settings.setdefault(one.method, [])
        places.append((one.method, len(kin)))
        kin.append(one.settings())
    labels = {method: labels_of(method, kin) for method, kin in settings.items()}
    return [labels[method][index] for method, index in places]


def _titles(runs: Mapping[str, Result]) -> dict[str, str]:
    """Return a title for each benchmark, with what tells those of one name apart."""
    flat = {key: flattened(json.loads(key)[0]) for key in runs}
    titles = {}
    for key, run in runs.items():
        benchmark, name = _node(run.config, "benchmark"), run.name_of("benchmark")
        split = f" B{benchmark.get('base')} Inc{benchmark['increment']}" if benchmark.get("increment") else ""
        alike = [flat[other] for other, kin in runs.items() if kin.name_of("benchmark") == name]
        varying = [part for part in flat[key] if len({other.get(part) for other in alike}) > 1]
        told = [f"{part}={shortened(flat[key][part])}" for part in varying if part not in ("base", "increment")]
        titles[key] = f"{name}{split}{in_brackets(told)}"
    return titles


def _node(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    node = config.get(name)
    return node if isinstance(node, Mapping) else {}


def _known(values: Sequence[Any]) -> list[float]:
    """Return all values as numbers, or nothing where one is missing."""
    return [] if any(value is None for value in values) else [float(value) for value in values]


def _spread(values: Sequence[float]) -> float | None:
    return stdev(values) if len(values) > 1 else None
