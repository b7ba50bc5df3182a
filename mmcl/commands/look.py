"""The commands ``mmcl ls`` and ``mmcl show``: what there is, and one page about each."""

from __future__ import annotations

import inspect
import sys
from typing import Any

from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table as Grid

from mmcl.config.locate import GROUPS, options, shipped_folder
from mmcl.errors import UserError, nearest

KINDS = {f"{group}s": group for group in GROUPS if group not in ("memory", "recipe")} | {"tables": "table"}
console = Console(highlight=False, soft_wrap=True)


def add_look_commands(commands: Any) -> None:
    """Add ``ls`` and ``show`` to the commands of ``mmcl``."""
    ls = commands.add_parser("ls", help="list methods, benchmarks, backbones, experiments, tables, trainers, loggers")
    ls.add_argument("kind", nargs="?", choices=sorted(KINDS))
    ls.set_defaults(action=lambda parsed: _ls(parsed.kind))

    show = commands.add_parser("show", help="one page about a method, benchmark, backbone, experiment or table")
    show.add_argument("name")
    show.set_defaults(action=lambda parsed: _show(parsed.name))


def names_of(kind: str) -> list[str]:
    """Return the names of everything of a kind: the options of a group of ``conf/``, or the tables."""
    if kind == "table":
        from mmcl.report.tables import find_tables

        folder = shipped_folder("experiments")
        return [path.relative_to(folder).with_suffix("").as_posix() for path in find_tables()]
    return options(kind)


def _ls(kind: str | None) -> None:
    for plural in [kind] if kind else KINDS:
        console.print(f"[bold]{plural}[/bold]")
        for name in names_of(KINDS[plural]):
            console.print(f"  {name}", markup=False)


def _show(name: str) -> None:
    groups = [group for group in KINDS.values() if name in names_of(group)]
    if not groups:
        known = [known for group in KINDS.values() for known in names_of(group)]
        raise UserError(f"nothing is called '{name}'.{nearest(name, known)} Type: mmcl ls")
    for group in groups:
        if group == "table":
            _show_table(name)
        elif group in ("method", "benchmark", "backbone"):
            _show_component(group, name)
        else:
            _show_file(group, name)


def _show_file(group: str, name: str) -> None:
    console.print(f"[bold]{group} {name}[/bold]\n")
    console.print((shipped_folder("conf") / group / f"{name}.yaml").read_text(), markup=False)


def _show_table(name: str) -> None:
    from mmcl.report.tables import load_table

    table = load_table(name)
    console.print(f"[bold]table {name}[/bold]: {table.title}\n{table.paper}; {table.source}\ncost: {table.cost}\n")
    for row in table.rows:
        for overrides in row.runs:
            console.print(f"  {row.label}: python -m mmcl.run {' '.join(overrides)}", markup=False)


def _show_component(group: str, name: str) -> None:
    """Print what a component is, its paper, and its keys with values and meanings."""
    from mmcl.config.components import describe, locate, schema_of
    from mmcl.config.compose import compose_unchecked

    choice = f"{group}={name}"
    node = compose_unchecked([choice, "recipe=paper"])[group]
    component = locate(node["_target_"])
    console.print(f"[bold]{group} {name}[/bold]\n")
    for text in (inspect.getdoc(sys.modules[component.__module__]), inspect.getdoc(component)):
        console.print(f"{text}\n", markup=False)
    grid = Grid(box=None, pad_edge=False)
    grid.add_column("key", no_wrap=True)
    grid.add_column("value")
    grid.add_column("meaning", ratio=1)
    for key, meaning in describe(schema_of(node["_target_"])):
        value = OmegaConf.select(node, key)
        if not OmegaConf.is_config(value) or OmegaConf.is_list(value):
            grid.add_row(f"{group}.{key}", str(value), meaning)
    console.print(grid)
    lines = (shipped_folder("conf") / group / f"{name}.yaml").read_text().splitlines()
    example = next(line for line in lines if line.startswith("# python"))
    console.print(f"\n{example.removeprefix('# ')}", markup=False)
