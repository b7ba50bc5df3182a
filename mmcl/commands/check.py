"""The command ``mmcl check``: compose and check runs without running anything."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from mmcl.config.locate import options
from mmcl.errors import UserError, nearest

if TYPE_CHECKING:  # composing takes seconds to import
    from mmcl.launch.table_check import CheckedTable

console = Console(highlight=False, soft_wrap=True)
Data = dict[Path, tuple[str, bool]]  # what a path holds, and whether it is there


def add_check_command(commands: Any) -> None:
    """Add ``check`` to the commands of ``mmcl``."""
    check = commands.add_parser("check", help="check experiments, tables or overrides without running anything")
    check.add_argument(
        "what",
        nargs="+",
        metavar="EXPERIMENT|TABLE|all|OVERRIDE",
        help="all tables and experiments; those that begin so, such as memo; one of them; or overrides. Overrides "
        "behind a name hold for all its runs; behind paths.data=FOLDER it is said which data is there",
    )
    check.set_defaults(action=lambda parsed: _check(parsed.what))


def _check(what: Sequence[str]) -> None:
    """Check what a name or a list of overrides stands for; all errors at once."""
    name, typed = what[0], tuple(what[1:])
    if all("=" in word for word in what):
        return _check_overrides(what)
    if not all("=" in word for word in typed):
        raise UserError(f"'{' '.join(what)}': type one name, or overrides such as +method=memo; see mmcl check --help")
    tables, experiments = _tables(name), _experiments(name)
    if not tables and not experiments:
        from mmcl.results.tables import table_names

        names = [*options("experiment"), *table_names()]
        known = [*names, *{begun.partition("/")[0] for begun in names}, "all"]
        raise UserError(f"no experiment or table '{name}'.{nearest(name, known)} Type: mmcl ls experiments")
    if len(tables) == 1 and name != "all":
        return _check_one(tables[0], typed)
    if not tables and experiments == [name]:
        return _check_overrides((f"+experiment={name}", *typed), name)
    return _check_many(tables, experiments, typed)


def _tables(name: str) -> list[Path]:
    from mmcl.results.tables import tables_named

    try:
        return tables_named(name)
    except UserError:
        return []


def _experiments(name: str) -> list[str]:
    known = options("experiment")
    return [name] if name in known else [entry for entry in known if name == "all" or entry.startswith(f"{name}/")]


def _check_overrides(overrides: Sequence[str], label: str = "") -> None:
    """Check the runs of a sweep, which may be a single one."""
    from mmcl.config.compose import compose_sweep
    from mmcl.config.identity import identity

    for config in compose_sweep(list(overrides)):
        console.print(f"ok  {identity(config)}  {label or ' '.join(overrides)}", markup=False)


def _check_one(file: Path, typed: Sequence[str]) -> None:
    """Check one table: a line for each run of each row."""
    from mmcl.launch.table_check import check_tables

    (checked,) = check_tables([file], typed)
    for row in checked.rows:
        console.print(f"{'ok' if row.identity else '--'}  {row.identity or 16 * '-'}  {row.label}", markup=False)
    _warn(checked)
    if _asks_for_data(typed):
        _print_data(_data(checked.benchmarks))
    _raise(checked.errors)


def _check_many(files: Sequence[Path], experiments: Sequence[str], typed: Sequence[str]) -> None:
    """Check many tables, a line for each, and experiments, a line for all of them."""
    from mmcl.config.compose_many import compose_runs
    from mmcl.launch.table_check import check_tables

    tables = check_tables(files, typed)
    width = max((len(table.name) for table in tables), default=0)
    needed: Data = {}
    for table in tables:
        state = "ERROR" if table.errors else "ok   "
        line = f"{state}  {table.name:<{width}}  {table.count:>4} rows  {len(table.identities):>4} runs"
        if _asks_for_data(typed):
            data = _data(table.benchmarks)
            needed |= data
            line += f"  data: {sum(present for _, present in data.values())} of {len(data)} there"
        console.print(line, markup=False)
        _warn(table)
    _print_data(needed)
    configs = compose_runs([(f"+experiment={name}", *typed) for name in experiments])
    refused = {name: config for name, config in zip(experiments, configs, strict=True) if isinstance(config, UserError)}
    distinct = {identity for table in tables for identity in table.identities}
    console.print(
        f"{len(tables)} tables, {sum(table.count for table in tables)} rows, {len(distinct)} different runs; "
        f"{len(experiments)} experiments"
    )
    _raise(
        [
            *(error for table in tables for error in table.errors),
            *(f"conf/experiment/{name}.yaml: {error}" for name, error in refused.items()),
        ]
    )


def _warn(table: CheckedTable) -> None:
    """Print which rows look alike."""
    for warning in table.warnings:
        console.print(f"warning  {warning}", style="yellow", markup=False)


def _asks_for_data(typed: Sequence[str]) -> bool:
    return any(word.lstrip("+").startswith(("paths.data=", "paths.features=")) for word in typed)


def _data(benchmarks: Sequence[Any]) -> Data:
    """Return what the benchmarks need, each path once: what it is, and whether it is there."""
    from mmcl.config.components import build

    items = (item for benchmark in benchmarks for item in build(benchmark).describe_data())
    return {item.path: (item.meaning, item.present) for item in items}


def _print_data(data: Data) -> None:
    for path, (meaning, present) in data.items():
        console.print(f"{'there  ' if present else 'MISSING'}  {path}  {meaning}", markup=False)


def _raise(errors: Sequence[str]) -> None:
    if errors:
        raise UserError("\n".join(errors))
