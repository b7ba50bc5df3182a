"""The list of all runs on the page, one short line for each, and which of them get a section of their own."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmcl.report.run_section import DRAWN
from mmcl.results.comparison import ComparedTable, overrides_of
from mmcl.results.result import Result

SECTIONS = 60  # runs that get one, of very many


@dataclass(frozen=True)
class RunLine:
    """A line of the list; accuracies are fractions of the named readout, ``address`` is that of the run's section.

    The directory of the run is told from the one that holds all runs of the page.
    """

    result: Result
    address: str | None
    readout: str
    average: float | None
    last: float | None
    kept_bytes: int | None
    seconds: float | None
    settings: str
    directory: str

    @property
    def split(self) -> str:
        """How a class-incremental benchmark is split, such as ``B0 Inc10``."""
        benchmark = self.result.config.get("benchmark")
        sizes: Mapping[str, Any] = benchmark if isinstance(benchmark, Mapping) else {}
        return f"B{sizes.get('base')} Inc{sizes['increment']}" if sizes.get("increment") else ""


def run_lines(
    results: Sequence[Result], tables: Sequence[ComparedTable], addresses: Mapping[Path, str]
) -> list[RunLine]:
    """Return a line for each run, newest first, with the readout that a table shows of it, or else its first one."""
    named = {result.path: entry.row.readout for table in tables for entry in table.rows for result in entry.results}
    root = common_folder(results)
    return [_line(result, named.get(result.path, ""), addresses, root) for result in reversed(results)]


def common_folder(results: Sequence[Result]) -> str:
    """Return the innermost folder that holds the directories of all runs; nothing where there is none."""
    parents = {str(result.path.parent.parent) for result in results}
    return os.path.commonpath(parents) if parents and len({path[:1] == "/" for path in parents}) == 1 else ""


def _line(result: Result, named: str, addresses: Mapping[Path, str], root: str) -> RunLine:
    readout = named if named in result.readouts else next(iter(result.readouts), "")
    figures = result.readouts.get(readout, {})
    return RunLine(
        result,
        addresses.get(result.path),
        readout,
        figures.get("average_incremental_accuracy"),
        figures.get("last_accuracy"),
        result.kept_bytes,
        result.timing.get("wall_seconds"),
        " ".join(overrides_of(result)),
        os.path.relpath(result.path.parent, root) if root else str(result.path.parent),
    )


def with_section(results: Sequence[Result], tables: Sequence[ComparedTable], count: int = SECTIONS) -> list[Result]:
    """Return the runs that get a section, in the given order: all, or the ``count`` that a reader wants most.

    These are the newest of each method on each benchmark, the newest of each that kept decision regions, queries or
    exemplars, then the newest behind each row of a table, then the newest.

    Args:
        results: oldest first.
        tables: whose rows name runs.
        count: at most so many.
    """
    if len(results) <= count:
        return list(results)
    kinds = {_kind(result): result.path for result in results}
    pictured = {_kind(result): result.path for result in results if _kept_pictures(result.path.parent)}
    newest_first = [result.path for result in reversed(results)]
    of_kinds, with_pictures = set(kinds.values()), set(pictured.values())
    of_rows = [entry.results[-1].path for table in tables for entry in table.rows if entry.results]
    wanted: Iterable[Path] = [
        *(path for path in newest_first if path in of_kinds),
        *(path for path in newest_first if path in with_pictures),
        *of_rows,
        *newest_first,
    ]
    chosen = set(list(dict.fromkeys(wanted))[:count])
    return [result for result in results if result.path in chosen]


def _kind(result: Result) -> tuple[str, str]:
    return result.name_of("method"), result.name_of("benchmark")


def _kept_pictures(run: Path) -> bool:
    names = os.listdir(run)
    return "traces" in names or any(name in DRAWN or name.startswith("retrieved_") for name in names)


def addresses_of(results: Sequence[Result]) -> dict[Path, str]:
    """Return an address on the page for each run: its identity, numbered where several runs share it."""
    taken: dict[str, int] = {}
    addresses = {}
    for result in results:
        number = taken[result.identity] = taken.get(result.identity, 0) + 1
        addresses[result.path] = f"run-{result.identity}" + (f"-{number}" if number > 1 else "")
    return addresses
