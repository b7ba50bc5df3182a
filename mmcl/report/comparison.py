"""Rows of a table joined with the runs that produced them: ours, printed, difference."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mmcl.config.identity import DECIDING_TRAINER_KEYS, WITHOUT_INFLUENCE
from mmcl.report.memory_sweep import Sweep, make_sweep
from mmcl.report.store import Result
from mmcl.report.tables import SWEEP_FIGURES, Printed, Row, Table

Overrides = tuple[str, ...]
Pick = Callable[[Overrides], Result | None]
GROUPS_WITHOUT_INFLUENCE = ("paths", "logger", "force", "hydra")
ALWAYS_SHOWN = ("average_incremental_accuracy", "last_accuracy")


@dataclass(frozen=True, eq=False)
class Comparison:
    """One row with what was measured for it.

    Attributes:
        row: the row.
        measured: our figures in the units of ``row.printed``; empty while a run is missing.
        results: the runs behind the figures, one for each entry of ``row.runs``.
        changes: overrides that the runs had beside those of the row (shorter schedule, another seed).
        sweep: accuracy over memory, for rows that sweep over budgets.
    """

    row: Row
    measured: Mapping[str, Printed]
    results: tuple[Result, ...] = ()
    changes: Overrides = ()
    sweep: Sweep | None = None

    def difference(self, figure: str) -> float | None:
        """Return ours minus printed, or ``None`` where either is missing or a curve."""
        ours, printed = self.measured.get(figure), self.row.printed.get(figure)
        if ours is None or printed is None or isinstance(ours, tuple) or isinstance(printed, tuple):
            return None
        return ours - printed

    def within(self, figure: str, tolerance: float) -> bool | None:
        """Return whether the difference is within the table's tolerance, or ``None`` where there is none."""
        difference, printed = self.difference(figure), self.row.printed.get(figure)
        if difference is None or printed is None or isinstance(printed, tuple):
            return None
        return abs(difference) <= (tolerance * abs(printed) / 100 if figure in SWEEP_FIGURES else tolerance)


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
        shown = SWEEP_FIGURES if sweeps else (*ALWAYS_SHOWN, "forgetting", "top5_average", "top5_last")
        return tuple(name for name in shown if name in printed or (name in ALWAYS_SHOWN and not sweeps))

    @property
    def printed(self) -> bool:
        """Whether any row has a printed value."""
        return any(entry.row.printed for entry in self.rows)

    @property
    def measured(self) -> bool:
        """Whether any row has a run behind it."""
        return any(entry.measured for entry in self.rows)


def compare(table: Table, pick: Pick) -> ComparedTable:
    """Join every row of a table with the results that ``pick`` names for its overrides."""
    return ComparedTable(table, tuple(_compare_row(row, pick) for row in table.rows))


def pick_from(results: Sequence[Result]) -> Pick:
    """Return a rule that finds the newest finished run of given overrides; another seed is the one thing it may add.

    Any other override could turn the run into another row's, or into none of a paper.
    """
    finished = [(frozenset(overrides_of(result)), result) for result in results if result.finished]

    def pick(overrides: Overrides) -> Result | None:
        wanted = frozenset(map(canonical, overrides))
        matching = [result for typed, result in finished if wanted == typed or wanted == _without_seed(typed)]
        return max(matching, key=lambda result: str(result.provenance.get("date", "")), default=None)

    return pick


def _without_seed(typed: frozenset[str]) -> frozenset[str]:
    return frozenset(override for override in typed if not override.startswith("seed="))


def overrides_of(result: Result) -> Overrides:
    """Return the overrides of a result's command that may change figures, in canonical spelling."""
    typed = [word for word in shlex.split(result.command) if "=" in word and not word.startswith("-")]
    return tuple(word for word in map(canonical, typed) if _decides(word))


def _decides(override: str) -> bool:
    group, _, key = override.partition("=")[0].partition(".")
    if group == "trainer":
        return key in DECIDING_TRAINER_KEYS
    return group not in GROUPS_WITHOUT_INFLUENCE and not (group == "benchmark" and key in WITHOUT_INFLUENCE)


def canonical(override: str) -> str:
    """Return an override without leading plus signs: ``+method=memo`` and ``method=memo`` mean the same."""
    return override.lstrip("+")


def figures_in_percent(result: Result, readout: str) -> dict[str, Printed]:
    """Return a readout's figures as tables print them; figures that the run does not have are left out."""
    figures = result.readouts.get(readout, {})
    percent: dict[str, Printed] = {
        name: 100 * float(figures[name])
        for name in ("average_incremental_accuracy", "last_accuracy", "forgetting")
        if figures.get(name) is not None
    }
    for name, prefix in (("accuracy_curve", ""), ("top5_curve", "top5")):
        values = [100 * float(value) for value in figures.get(name) or () if value is not None]
        if not values or len(values) < len(figures[name]):
            continue
        if prefix:
            percent |= {f"{prefix}_average": sum(values) / len(values), f"{prefix}_last": values[-1]}
        else:
            percent[name] = tuple(values)
    return percent


def _compare_row(row: Row, pick: Pick) -> Comparison:
    found = [pick(overrides) for overrides in row.runs]
    results = tuple(result for result in found if result is not None)
    changes = sorted(
        {
            typed
            for overrides, result in zip(row.runs, found, strict=True)
            if result is not None
            for typed in overrides_of(result)
            if typed not in set(map(canonical, overrides))
        }
    )
    if row.sweep:
        budgets = [point.memory_mb for point in row.sweep]
        points = list(zip(budgets, results, strict=False))
        sweep = make_sweep(row.label, row.readout, points) if len(results) == len(budgets) else None
        return Comparison(row, sweep.figures() if sweep else {}, results, tuple(changes), sweep)
    measured = figures_in_percent(results[0], row.readout) if results else {}
    return Comparison(row, measured, results, tuple(changes))
