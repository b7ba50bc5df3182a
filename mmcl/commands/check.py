"""The command ``mmcl check``: compose and check runs without running anything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console

from mmcl.commands.look import names_of
from mmcl.config.locate import options
from mmcl.errors import UserError, nearest

console = Console(highlight=False, soft_wrap=True)


def add_check_command(commands: Any) -> None:
    """Add ``check`` to the commands of ``mmcl``."""
    check = commands.add_parser("check", help="check an experiment, a table or overrides without running anything")
    check.add_argument("what", nargs="+", metavar="EXPERIMENT|TABLE|OVERRIDE")
    check.set_defaults(action=lambda parsed: _check(parsed.what))


def _check(what: Sequence[str]) -> None:
    """Compose and check every run that a name or a list of overrides stands for; all errors at once."""
    from mmcl.config.compose import compose_sweep
    from mmcl.config.identity import identity
    from mmcl.report.tables import load_table

    typed = tuple(what[1:]) if all("=" in word for word in what[1:]) else ()
    if len(what) == 1 + len(typed) and what[0] in names_of("table"):
        runs = {f"{row.label}": (*overrides, *typed) for row in load_table(what[0]).rows for overrides in row.runs}
    elif len(what) == 1 + len(typed) and what[0] in options("experiment"):
        runs = {what[0]: (f"+experiment={what[0]}", *typed)}
    elif all("=" in word for word in what):
        runs = {" ".join(what): tuple(what)}
    else:
        known = [*options("experiment"), *names_of("table")]
        raise UserError(f"no experiment or table '{what[0]}'.{nearest(what[0], known)} Type: mmcl ls experiments")
    problems = []
    for label, overrides in runs.items():
        try:
            for config in compose_sweep(list(overrides)):
                console.print(f"ok  {identity(config)}  {label}", markup=False)
        except UserError as error:
            problems.append(f"{label}: {error}")
    if problems:
        raise UserError("\n".join(problems))
