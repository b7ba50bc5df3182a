"""Rows of a table joined with the runs that produced them: ours, printed, difference."""

from __future__ import annotations

import json
import shlex
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

from mmcl.results.memory_sweep import Sweep, make_sweep
from mmcl.results.store import Result, decides
from mmcl.results.tables import SWEEP_FIGURES, Printed, Row, Table

Overrides = tuple[str, ...]
Pick = Callable[[Overrides], Sequence[Result]]
ALWAYS_SHOWN = ("average_incremental_accuracy", "last_accuracy")
MEAN = "mean"


@dataclass(frozen=True)
class Cell:
    """One figure of one row: ours, printed, difference.

    Attributes:
        figure: which figure it is, one of ``tables.FIGURES``.
        ours: mean over seeds in the units of the table, or ``None``.
        spread: standard deviation over seeds; ``None`` below two.
        printed: the printed value, or ``None``.
        tolerance: of the table.
    """

    figure: str
    ours: float | None = None
    spread: float | None = None
    printed: float | None = None
    tolerance: float = 0.0

    @property
    def difference(self) -> float | None:
        """Ours minus printed, or ``None`` where either is missing."""
        return None if self.ours is None or self.printed is None else self.ours - self.printed

    @property
    def within(self) -> bool | None:
        """Whether the difference is within the tolerance, or ``None`` where there is none."""
        if self.difference is None or self.printed is None:
            return None
        relative = self.figure in SWEEP_FIGURES
        return abs(self.difference) <= (self.tolerance * abs(self.printed) / 100 if relative else self.tolerance)


@dataclass(frozen=True, eq=False)
class Comparison:
    """One row with what was measured for it.

    Attributes:
        row: the row.
        measured: our figures in the units of ``row.printed``, means over seeds; empty while a run is missing.
        results: the runs behind the figures: those of all seeds, or one for each budget of a sweep.
        changes: overrides that the runs had beside those of the row (shorter schedule, another seed).
        sweep: accuracy over memory, for rows that sweep over budgets.
        spread: standard deviations over seeds, like ``measured``; empty below two seeds.
    """

    row: Row
    measured: Mapping[str, Printed]
    results: tuple[Result, ...] = ()
    changes: Overrides = ()
    sweep: Sweep | None = None
    spread: Mapping[str, Printed] = field(default_factory=dict)

    @property
    def seeds(self) -> int:
        """Number of seeds behind the figures."""
        return 1 if self.row.sweep else len(self.results)

    def cell(self, figure: str, tolerance: float = 0.0) -> Cell:
        """Return a figure that is one number."""
        ours, spread, printed = (
            value if isinstance(value, float) else None
            for value in (figures.get(figure) for figures in (self.measured, self.spread, self.row.printed))
        )
        return Cell(figure, ours, spread, printed, tolerance)

    def curve_cells(self, figure: str, count: int, tolerance: float = 0.0) -> list[Cell]:
        """Return the ``count`` entries of a curve; all are empty where it has another length."""
        curves = []
        for figures in (self.measured, self.spread, self.row.printed):
            values = figures.get(figure)
            curves.append(values if isinstance(values, tuple) and len(values) == count else (None,) * count)
        return [Cell(figure, ours, spread, printed, tolerance) for ours, spread, printed in zip(*curves, strict=True)]


@dataclass(frozen=True, eq=False)
class ComparedTable:
    """A table with a comparison for each of its rows."""

    table: Table
    rows: tuple[Comparison, ...]

    @property
    def figures(self) -> tuple[str, ...]:
        """Figures that any row prints, curves apart, in a fixed order; always the two accuracies."""
        printed = {name for entry in self.rows for name in entry.row.printed}
        sweeps = any(entry.row.sweep for entry in self.rows)
        single = (*ALWAYS_SHOWN, "forgetting", "first_task_forgetting", "forward_transfer", "top5_average", "top5_last")
        shown = SWEEP_FIGURES if sweeps else single
        return tuple(name for name in shown if name in printed or (name in ALWAYS_SHOWN and not sweeps))

    @property
    def columns(self) -> tuple[str, ...]:
        """What the cells of a row are: figures or, where tasks are data sets, their names and the mean over them."""
        if not self.table.columns:
            return self.figures
        return (*self.table.columns, MEAN) if self._shows_mean else self.table.columns

    @property
    def _shows_mean(self) -> bool:
        return self.table.mean and len(self.table.columns) > 1

    def cells(self, entry: Comparison) -> list[Cell]:
        """Return one cell of a row for each of the columns."""
        tolerance, datasets = self.table.tolerance, self.table.columns
        if not datasets:
            return [entry.cell(figure, tolerance) for figure in self.figures]
        curve, mean = entry.row.dataset_figures
        cells = entry.curve_cells(curve, len(datasets), tolerance)
        return [*cells, _with_mean_of(cells, entry.cell(mean, tolerance))] if self._shows_mean else cells

    @property
    def printed(self) -> bool:
        """Whether any row has a printed value."""
        return any(entry.row.printed for entry in self.rows)

    def measured_rows(self) -> ComparedTable:
        """Return the table with the rows alone that have a run behind them."""
        return replace(self, rows=tuple(entry for entry in self.rows if entry.measured))

    @property
    def measured(self) -> bool:
        """Whether any row has a run behind it."""
        return any(entry.measured for entry in self.rows)


def _with_mean_of(cells: Sequence[Cell], mean: Cell) -> Cell:
    """Return the cell of the mean; where no mean is printed, it is that of the printed entries."""
    printed = [cell.printed for cell in cells if cell.printed is not None]
    if mean.printed is not None or len(printed) < len(cells):
        return mean
    return replace(mean, printed=statistics.fmean(printed))


def compare(table: Table, pick: Pick) -> ComparedTable:
    """Join every row of a table with the results that ``pick`` names for its overrides."""
    return ComparedTable(table, tuple(_compare_row(row, pick) for row in table.rows))


def pick_from(results: Sequence[Result]) -> Pick:
    """Return a rule that finds the finished runs of given overrides; another seed is the one thing they may add.

    Any other override could turn a run into another row's, or into none of a paper. The newest run decides: with it
    come those that differ from it by their seed alone, the newest of each seed, in the order of their dates.
    """
    made: dict[frozenset[str], list[Result]] = {}
    for result in results:
        if result.finished:
            typed = frozenset(overrides_of(result))
            for overrides in {typed, _without_seed(typed)}:
                made.setdefault(overrides, []).append(result)

    def pick(overrides: Overrides) -> list[Result]:
        matching = sorted(made.get(frozenset(map(canonical, overrides)), ()), key=_date)
        kin = [result for result in matching if _kin(result, matching[-1])]
        return sorted({str(result.seed): result for result in kin}.values(), key=_date)

    return pick


def _date(result: Result) -> str:
    return str(result.provenance.get("date", ""))


def _kin(one: Result, other: Result) -> bool:
    """Return whether two results differ by their seed alone; the order of classes follows it, or is one for all."""
    return _whatever_the_seed(one) == _whatever_the_seed(other) or _one_order(one) == _one_order(other)


def _whatever_the_seed(result: Result) -> str:
    """Return what decides the figures but the seed: the configuration and, for data that a file brings, its classes."""
    follows = result.config.get("benchmark", {}).get("split_seed") == result.seed  # then the seed draws the classes
    names = [] if follows else sorted(result.class_names)
    return f"{result.deciding_config('seed')} {result.task_names} {result.task_sizes} {names}"


def _one_order(result: Result) -> str:
    """Return the same where orders are numbers that seeds have nothing to do with, even if one equals the seed."""
    config, benchmark = json.loads(result.deciding_config("seed")), result.config.get("benchmark", {})
    config["benchmark"] |= {name: benchmark[name] for name in ("order_seed", "split_seed") if name in benchmark}
    names = sorted(result.class_names)
    return f"{json.dumps(config, sort_keys=True)} {result.task_names} {result.task_sizes} {names}"


def _without_seed(typed: frozenset[str]) -> frozenset[str]:
    return frozenset(override for override in typed if not override.startswith("seed="))


def overrides_of(result: Result) -> Overrides:
    """Return the overrides of a result's command that may change figures, in canonical spelling."""
    return _deciding_words(result.command)


@cache  # a page asks several times, of thousands of results
def _deciding_words(command: str) -> Overrides:
    typed = [word for word in shlex.split(command) if "=" in word and not word.startswith("-")]
    return tuple(word for word in map(canonical, typed) if decides(word.partition("=")[0]))


def canonical(override: str) -> str:
    """Return the one spelling of an override: ``+method=memo`` is ``method=memo``, ``method.preset`` a group."""
    bare = override.lstrip("+")
    return bare.removeprefix("method.") if bare.startswith("method.preset=") else bare


def figures_in_percent(result: Result, readout: str) -> dict[str, Printed]:
    """Return a readout's figures as tables print them; figures that the run does not have are left out."""
    figures = result.readouts.get(readout, {})
    percent: dict[str, Printed] = {
        name: 100 * float(figures[name])
        for name in (*ALWAYS_SHOWN, "forgetting", "first_task_forgetting", "forward_transfer", "acc_oracle")
        if figures.get(name) is not None
    }
    for name, prefix in (("accuracy_curve", ""), ("acc_oracle_curve", ""), ("top5_curve", "top5")):
        values = [100 * float(value) for value in figures.get(name) or () if value is not None]
        if not values or len(values) < len(figures[name]):
            continue
        if prefix:
            percent |= {f"{prefix}_average": sum(values) / len(values), f"{prefix}_last": values[-1]}
        else:
            percent[name] = tuple(values)
    return percent


def _compare_row(row: Row, pick: Pick) -> Comparison:
    found = [list(pick(overrides)) for overrides in row.runs]
    if row.sweep:
        return _compare_sweep(row, [results[-1] if results else None for results in found])
    results = found[0] if found else []
    figures = [figures_in_percent(result, row.readout) for result in results]
    changes = frozenset(typed for result in results for typed in _changes(row.runs[0], result))
    if len(results) > 1:
        changes = _without_seed(changes)  # their number is told instead
    measured = _over_seeds(figures, statistics.fmean)
    spread = _over_seeds(figures, statistics.stdev) if len(results) > 1 else {}
    return Comparison(row, measured, tuple(results), tuple(sorted(changes)), spread=spread)


def _compare_sweep(row: Row, found: Sequence[Result | None]) -> Comparison:
    """Join a sweep over budgets with the newest run of each."""
    results = tuple(result for result in found if result is not None)
    changes = {
        typed
        for overrides, result in zip(row.runs, found, strict=True)
        if result is not None
        for typed in _changes(overrides, result)
    }
    budgets = [point.memory_mb for point in row.sweep]
    points = list(zip(budgets, results, strict=False))
    sweep = make_sweep(row.label, row.readout, points) if len(results) == len(budgets) else None
    return Comparison(row, sweep.figures() if sweep else {}, results, tuple(sorted(changes)), sweep)


def _changes(overrides: Overrides, result: Result) -> set[str]:
    return set(overrides_of(result)) - set(map(canonical, overrides))


def _over_seeds(
    figures: Sequence[Mapping[str, Printed]], summary: Callable[[Sequence[float]], float]
) -> dict[str, Printed]:
    """Summarise every figure that all seeds have; curves entry by entry."""
    summed: dict[str, Printed] = {}
    for name in figures[0] if figures else ():
        values = [entry.get(name) for entry in figures]
        curves = [value for value in values if isinstance(value, tuple)]
        numbers = [value for value in values if isinstance(value, float)]
        if len(numbers) == len(figures):
            summed[name] = summary(numbers)
        elif len(curves) == len(figures) and len({len(curve) for curve in curves}) == 1:
            summed[name] = tuple(summary(entries) for entries in zip(*curves, strict=True))  # type: ignore[arg-type]
    return summed
