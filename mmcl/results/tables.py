"""Tables of papers as data: rows, the overrides that produce each, printed values and their source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from mmcl.config.locate import shipped_folder
from mmcl.errors import UserError, nearest

PERCENT_FIGURES = (
    "average_incremental_accuracy",
    "last_accuracy",
    "forgetting",
    "first_task_forgetting",
    "forward_transfer",
    "top5_average",
    "top5_last",
    "acc_oracle",
)
CURVE_FIGURES = ("accuracy_curve", "acc_oracle_curve")
SWEEP_FIGURES = ("auc_average", "auc_last", "apm_start", "apm_end")
FIGURES = (*PERCENT_FIGURES, *CURVE_FIGURES, *SWEEP_FIGURES)
# Where a printed figure stands: in the paper, in a survey, in a released log, in a released README; measured with the
# authors' code; read off a plot; or typed from memory, by nobody who saw it in print.
SOURCES = ("paper", "survey", "log", "readme", "measured", "plot", "unverified")
# Folders and files of experiments/ that hold no tables.
OTHERS = ("readme", "results", "search")
ALL = "all"
TEXTS = ("title", "paper", "source", "cost", "notes")

Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# A curve has an entry for each task, and None where the paper prints nothing.
PrintedCurve = tuple[float | None, ...]
Printed = float | PrintedCurve


@dataclass(frozen=True)
class SweepPoint:
    """One memory budget of a sweep.

    Attributes:
        memory_mb: budget in MB as the paper's axis prints it.
        overrides: overrides of the run at this budget.
    """

    memory_mb: float
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """One row of a table: a single run, a sweep over budgets, or a printed value alone.

    Attributes:
        label: name of the row.
        overrides: overrides of the run; ``None`` for a printed value that no run produces.
        readout: readout whose figures the row shows.
        printed: printed figures: percent, curves as tuples of percent, areas in fraction times MB, ratios in
            percent per MB. ``acc_oracle`` and ``acc_oracle_curve`` are accuracies with weights that were chosen on
            the test labels.
        source: where the printed figures are from, one of ``SOURCES``; ``None`` when nothing is printed.
        sweep: budgets of a sweep; empty for a single run.
        note: what a reader should know about this row.
    """

    label: str
    overrides: tuple[str, ...] | None
    readout: str
    printed: Mapping[str, Printed]
    source: str | None = None
    sweep: tuple[SweepPoint, ...] = ()
    note: str = ""

    @property
    def runs(self) -> tuple[tuple[str, ...], ...]:
        """Overrides of every run that the row needs; empty for a printed value alone."""
        if self.sweep:
            return tuple(point.overrides for point in self.sweep)
        return () if self.overrides is None else (self.overrides,)

    @property
    def test_tuned(self) -> bool:
        """Whether the printed figures were chosen on the test labels; ours are then chosen there, too."""
        return any(name.startswith("acc_oracle") for name in self.printed)

    @property
    def dataset_figures(self) -> tuple[str, str]:
        """Figure of the accuracies of single data sets, and that of their mean."""
        if self.test_tuned:
            return "acc_oracle_curve", "acc_oracle"
        return "accuracy_curve", "average_incremental_accuracy"


@dataclass(frozen=True)
class Table:
    """A table or figure of a paper as data.

    Attributes:
        name: file name without suffix, below ``experiments/`` (``memo/cifar100_b0_inc10``).
        title: what it compares, in one line.
        paper: the work that the setting is from.
        source: number of the printed table or figure, such as ``Table 3``, or where else the values stand.
        tolerance: allowed difference in percentage points; of areas and ratios, in percent of the print.
        cost: what it takes to run all rows, and where that is known from.
        data: names of the data sets needed; empty when all is embedded.
        rows: the rows in printed order.
        notes: what a reader should know before comparing.
        columns: names of the data sets, one for each entry of a curve, where every task is a data set of its own;
            empty for class-incremental tables.
        mean: whether the mean over the columns says something; not where some of them are controls.
        hours: estimated hours of one run on one GPU, the mean over the runs of the table; ``None`` where a run takes
            minutes on two CPU cores, or nothing is run. What a table costs is this times the runs that are not there.
    """

    name: str
    title: str
    paper: str
    source: str
    tolerance: float
    cost: str
    data: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: str = ""
    columns: tuple[str, ...] = ()
    mean: bool = True
    hours: float | None = None

    @property
    def runs(self) -> tuple[tuple[str, ...], ...]:
        """Overrides of the runs that the rows need, each once, in the order of the rows."""
        return tuple(dict.fromkeys(overrides for row in self.rows for overrides in row.runs))


def with_rows(tables: Sequence[Table], pattern: str | None) -> list[Table]:
    """Return tables with the rows whose labels a pattern such as ``MEMO*`` matches; all without one.

    Raises:
        UserError: no row of any table does.
    """
    if pattern is None:
        return list(tables)
    chosen = [
        replace(table, rows=tuple(row for row in table.rows if pattern == row.label or fnmatchcase(row.label, pattern)))
        for table in tables
    ]
    if not any(table.rows for table in chosen):
        labels = list(dict.fromkeys(row.label for table in tables for row in table.rows))
        raise UserError(f"--rows {pattern!r}: no row is called so.{nearest(pattern, labels)} Rows: {', '.join(labels)}")
    return [table for table in chosen if table.rows]


def find_tables() -> list[Path]:
    """Return the files of all shipped tables, sorted by name."""
    places = [place for place in shipped_folder("experiments").iterdir() if place.stem not in OTHERS]
    folders = [path for place in places if place.is_dir() for path in place.rglob("*.yaml")]
    return sorted([*folders, *(place for place in places if place.suffix == ".yaml")])


def table_names() -> list[str]:
    """Return the names of all shipped tables, sorted as :func:`find_tables` sorts their files."""
    return [_name(file) for file in find_tables()]


def tables_named(name: Path | str) -> list[Path]:
    """Return the files of the tables that a name stands for.

    ``all`` is every shipped table. The whole name of one is that table alone, even where others begin with it. Else
    it is every table whose name begins so and goes on with ``/`` or ``_``: ``memo``, ``memo/imagenet100``. A file is
    that file.

    Raises:
        UserError: no table is called so; names the nearest.
    """
    shipped = {_name(file): file for file in find_tables()}
    if str(name) == ALL:
        return list(shipped.values())
    if str(name) in shipped:
        return [shipped[str(name)]]
    begun = str(name).rstrip("/_")
    found = [file for known, file in shipped.items() if begun and known.startswith((f"{begun}/", f"{begun}_"))]
    if found:
        return found
    if Path(name).is_file():
        return [Path(name)]
    prefixes = sorted({known.rpartition("/")[0] for known in shipped} - {""})
    raise UserError(
        f"no table '{name}'.{nearest(str(name), [*shipped, *prefixes, ALL])}\nTables: {', '.join(shipped)}; or type "
        f"how several begin ({', '.join(prefixes)}), {ALL}, or a file."
    )


def load_table(path: Path | str) -> Table:
    """Read a table from a YAML file, or a shipped one by name (``quick``, ``memo/cifar100_b0_inc10``).

    Raises:
        UserError: no such table, not YAML, an unknown or missing key, or a value of the wrong kind.
    """
    file = _find(path)
    try:
        node = yaml.load(file.read_text(encoding="utf-8"), Loader)  # noqa: S506 - safe, and in C where there is one
    except yaml.YAMLError as error:
        raise UserError(f"{file}: not valid YAML: {error}") from error
    where = str(file)
    keys = _checked(Table, node, where, given=("name",))
    keys["tolerance"] = _number(keys["tolerance"], f"{where}: tolerance")
    keys["data"] = _strings(keys["data"], f"{where}: data")
    if not isinstance(keys["rows"], list) or not keys["rows"]:
        raise UserError(f"{where}: rows: expected a list of at least one row")
    keys["rows"] = tuple(_row(row, f"{where}: rows[{index}]") for index, row in enumerate(keys["rows"]))
    keys["columns"] = _strings(keys.get("columns", []), f"{where}: columns")
    _check_columns(keys["columns"], keys["rows"], where)
    if not isinstance(keys.get("mean", True), bool):
        raise UserError(f"{where}: mean: {keys['mean']!r}: expected true or false")
    if keys.get("hours") is not None:
        keys["hours"] = _number(keys["hours"], f"{where}: hours")
    for key in TEXTS:
        if not isinstance(keys.get(key, ""), str):
            raise UserError(f"{where}: {key}: expected text, got {keys[key]!r}. Put it in quotes")
    _check_labels(keys["rows"], where)
    return Table(name=_name(file), **keys)


def _find(path: Path | str) -> Path:
    if isinstance(path, Path) and path.is_file():
        return path
    shipped = {_name(file): file for file in find_tables()}
    if str(path) in shipped:
        return shipped[str(path)]
    if Path(path).is_file():
        return Path(path)
    raise UserError(f"no table '{path}'.{nearest(str(path), shipped)}\nTables: {', '.join(shipped)}; or name a file.")


def _name(file: Path) -> str:
    folder = shipped_folder("experiments")
    relative = file.resolve().relative_to(folder) if file.resolve().is_relative_to(folder) else Path(file.name)
    return relative.with_suffix("").as_posix()


def _check_columns(columns: Sequence[str], rows: Sequence[Row], where: str) -> None:
    """Refuse a curve whose entries the columns do not name."""
    for index, row in enumerate(rows):
        for name, value in row.printed.items():
            if columns and isinstance(value, tuple) and len(value) != len(columns):
                raise UserError(
                    f"{where}: rows[{index}]: printed: {name}: expected {len(columns)} entries, one for each of the "
                    f"columns {', '.join(columns)}; got {len(value)}. Write null where nothing is printed."
                )


def _check_labels(rows: Sequence[Row], where: str) -> None:
    """Refuse two rows that a reader cannot tell apart."""
    seen: dict[tuple[str, str], int] = {}
    for index, row in enumerate(rows):
        first = seen.setdefault((row.label, row.readout), index)
        if first != index:
            raise UserError(
                f"{where}: rows[{index}]: label '{row.label}' with readout {row.readout} is that of rows[{first}]. "
                "Give each its own label"
            )


def _row(node: Any, where: str) -> Row:
    keys = _checked(Row, node, where)
    if keys["overrides"] is not None:
        keys["overrides"] = _strings(keys["overrides"], f"{where}: overrides")
    keys["sweep"] = tuple(_point(point, f"{where}: sweep[{i}]") for i, point in enumerate(keys.get("sweep", ())))
    if keys["sweep"] and keys["overrides"] is not None:
        raise UserError(f"{where}: a row has overrides or a sweep, not both. Set overrides: null")
    if not isinstance(keys["printed"], dict):
        raise UserError(f"{where}: printed: expected figures such as {{last_accuracy: 61.98}}, or {{}}")
    keys["printed"] = {name: _printed(name, value, f"{where}: printed") for name, value in keys["printed"].items()}
    if keys["printed"] and keys.get("source") not in SOURCES:
        known = ", ".join(SOURCES)
        found = f"source: {keys['source']!r} is not one of" if keys.get("source") else "key 'source' is missing:"
        raise UserError(f"{where} ({keys['label']}): {found} {known}. Say where the printed values are from.")
    return Row(**keys)


def _point(node: Any, where: str) -> SweepPoint:
    keys = _checked(SweepPoint, node, where)
    memory_mb = _number(keys["memory_mb"], f"{where}: memory_mb")
    return SweepPoint(memory_mb, _strings(keys["overrides"], f"{where}: overrides"))


def _printed(name: str, value: Any, where: str) -> Printed:
    if name not in FIGURES:
        raise UserError(
            f"{where}: unknown figure '{name}'.{nearest(str(name), FIGURES)}\nFigures: {', '.join(FIGURES)}"
        )
    if name not in CURVE_FIGURES:
        return _number(value, f"{where}: {name}")
    if not isinstance(value, list):
        raise UserError(f"{where}: {name}: expected a list with one percentage per task, got {value!r}")
    entries = enumerate(value)
    return tuple(None if entry is None else _number(entry, f"{where}: {name}[{task}]") for task, entry in entries)


def _checked(kind: type[Any], node: Any, where: str, given: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return a mapping whose keys are those of the dataclass; ``given`` are set by the caller instead."""
    known = {entry.name: entry for entry in fields(kind) if entry.name not in given}
    if not isinstance(node, dict):
        raise UserError(f"{where}: expected keys {', '.join(known)}; got {node!r}")
    for key in node:
        if key not in known:
            raise UserError(f"{where}: unknown key '{key}'.{nearest(str(key), known)}\nKeys: {', '.join(known)}")
    for key, entry in known.items():
        if key not in node and entry.default is MISSING:
            raise UserError(f"{where}: key '{key}' is missing. Keys: {', '.join(known)}")
    return dict(node)


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise UserError(f"{where}: expected a number, got {value!r}")
    return float(value)


def _strings(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise UserError(f"{where}: expected a list of strings such as [+method=memo, seed=1993], got {value!r}")
    return tuple(value)
