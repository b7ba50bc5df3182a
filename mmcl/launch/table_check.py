"""Whether the rows of tables make valid runs, and which of them are the same run by accident."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from mmcl.config.compose_many import compose_runs
from mmcl.config.identity import identity
from mmcl.errors import UserError
from mmcl.results.tables import Row, Table, load_table

Overrides = tuple[str, ...]


@dataclass(frozen=True)
class CheckedRun:
    """One run of a row.

    Attributes:
        label: label of the row, with the budget where the row sweeps over budgets.
        identity: hash of what decides its figures; ``None`` where it is refused.
    """

    label: str
    identity: str | None


@dataclass(frozen=True)
class CheckedTable:
    """What was found in one table.

    Attributes:
        name: the table, or its file where that cannot be read.
        count: number of its rows.
        rows: the runs of its rows.
        errors: what is wrong, each with the file and the row.
        warnings: rows that look as if an override were forgotten.
        benchmarks: the different benchmark nodes of its runs.
    """

    name: str
    count: int = 0
    rows: tuple[CheckedRun, ...] = ()
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    benchmarks: tuple[DictConfig, ...] = ()

    @property
    def identities(self) -> frozenset[str]:
        """The different runs of the table."""
        return frozenset(row.identity for row in self.rows if row.identity)


def check_tables(files: Sequence[Path], typed: Sequence[str] = ()) -> list[CheckedTable]:
    """Read tables and compose all their runs, each once; ``typed`` goes behind the overrides of every row."""
    tables: dict[Path, Table | UserError] = {}
    for file in files:
        try:
            tables[file] = load_table(file)
        except UserError as error:
            tables[file] = error
    readable = [table for table in tables.values() if isinstance(table, Table)]
    runs = list(dict.fromkeys((*overrides, *typed) for table in readable for overrides in table.runs))
    composed = dict(zip(runs, compose_runs(runs), strict=True))
    return [
        _check(file, table, typed, composed)
        if isinstance(table, Table)
        else CheckedTable(str(file), errors=(str(table),))
        for file, table in tables.items()
    ]


def _check(
    file: Path, table: Table, typed: Sequence[str], composed: Mapping[Overrides, DictConfig | UserError]
) -> CheckedTable:
    found: list[CheckedRun] = []
    refused: dict[str, list[str]] = {}
    of_rows: list[tuple[int, Row, str]] = []
    benchmarks: dict[str, DictConfig] = {}
    for index, row in enumerate(table.rows):
        for overrides, label in zip(row.runs, _labels(row), strict=True):
            arguments = (*overrides, *typed)
            config = composed[arguments]
            if isinstance(config, UserError):
                refused.setdefault(str(config), []).append(f"rows[{index}] '{label}'")
                found.append(CheckedRun(label, None))
                continue
            found.append(CheckedRun(label, identity(config)))
            benchmarks.setdefault(OmegaConf.to_yaml(config.benchmark), config.benchmark)
            if not row.sweep:
                of_rows.append((index, row, identity(config)))
    errors = [f"{file}: {_first_of(where)}: {error}" for error, where in refused.items()]
    warnings = [f"{file}: {warning}" for warning in _alike(of_rows)]
    return CheckedTable(
        table.name, len(table.rows), tuple(found), tuple(errors), tuple(warnings), tuple(benchmarks.values())
    )


def _first_of(rows: Sequence[str]) -> str:
    """Name the first of the rows that one error is about, and how many more there are."""
    return rows[0] if len(rows) == 1 else f"{rows[0]} and {len(rows) - 1} more"


def _labels(row: Row) -> list[str]:
    return [f"{row.label}, {point.memory_mb:g} MB" for point in row.sweep] or [row.label for _ in row.runs]


def _alike(rows: Iterable[tuple[int, Row, str]]) -> list[str]:
    """Name pairs of rows that are one run with one readout, although they are set beside different values."""
    seen: dict[tuple[str, str], list[tuple[int, Row]]] = {}
    warnings = []
    for index, row, run in rows:
        same_run = seen.setdefault((run, row.readout), [])
        for other_index, other in same_run:
            if _contradict(row, other):
                warnings.append(
                    f"rows[{other_index}] '{other.label}' and rows[{index}] '{row.label}' are the same run, read by "
                    f"{row.readout}. Is an override missing?"
                )
        same_run.append((index, row))
    return warnings


def _contradict(row: Row, other: Row) -> bool:
    """Whether two rows of one run print a figure differently, from one source, or both print nothing.

    One run may well stand in several rows: beside values of several sources, beside several figures, or twice in a
    paper.
    """
    if not row.printed and not other.printed:
        return True
    common = set(row.printed) & set(other.printed)
    return row.source == other.source and any(row.printed[name] != other.printed[name] for name in common)
