"""The commands ``mmcl ls`` and ``mmcl show``: what there is, and one page about each."""

from __future__ import annotations

import inspect
import itertools
import re
import sys
from collections.abc import Sequence
from functools import cache
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
        from mmcl.results.tables import table_names

        return table_names()
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
    from mmcl.results.tables import load_table

    table = load_table(name)
    console.print(f"[bold]table {name}[/bold]: {table.title}\n{table.paper}; {table.source}\ncost: {table.cost}\n")
    for row in table.rows:
        for overrides in row.runs:
            console.print(f"  {row.label}: python -m mmcl.run {' '.join(overrides)}", markup=False)


def _show_component(group: str, name: str) -> None:
    """Print what a component is, its paper, what it goes with, its keys with values and meanings, and its command."""
    from mmcl.config.components import locate
    from mmcl.config.compose import compose_unchecked

    config = compose_unchecked([f"{group}={name}", "recipe=paper"])
    component = locate(config[group]["_target_"])
    console.print(f"[bold]{group} {name}[/bold]\n")
    for text in (inspect.getdoc(sys.modules[component.__module__]), inspect.getdoc(component)):
        console.print(f"{prose(text or '')}\n", markup=False)
    if group == "method":
        _print_facts(
            readouts=component.readouts,
            benchmarks=_default_first(benchmarks_for(component), config.benchmark.name),
            tables=tables_by_method().get(name, []) or ["none"],
        )
    elif group == "benchmark":
        _print_facts(methods=[method for method in options("method") if name in benchmarks_for(_class_of(method))])
    _print_keys(group, config[group])
    console.print()
    for line in comment_lines(group, name):
        console.print(line, markup=False)


def _print_facts(**facts: Sequence[str]) -> None:
    grid = Grid(box=None, pad_edge=False, show_header=False)
    grid.add_column(no_wrap=True)
    grid.add_column(ratio=1)
    for fact, values in facts.items():
        grid.add_row(fact, ", ".join(values))
    console.print(grid)
    console.print()


def _print_keys(group: str, node: Any) -> None:
    from mmcl.config.components import describe, locate, schema_of
    from mmcl.config.schema import ComponentConfig

    documented = {**dict(describe(ComponentConfig)), **arguments(inspect.getdoc(locate(node["_target_"])) or "")}
    grid = Grid(box=None, pad_edge=False)
    grid.add_column("key", no_wrap=True)
    grid.add_column("value", overflow="fold")
    grid.add_column("meaning", ratio=1)
    for key, meaning in describe(schema_of(node["_target_"])):
        value = OmegaConf.select(node, key)
        if not OmegaConf.is_config(value) or OmegaConf.is_list(value):
            grid.add_row(f"{group}.{key}", str(value), meaning or documented.get(key, ""))
    console.print(grid)


def prose(docstring: str) -> str:
    """Return what a docstring says before its first section such as ``Attributes:``, without markup."""
    text = re.split(r"^(?:Args|Attributes|Raises):$", docstring, maxsplit=1, flags=re.MULTILINE)[0]
    return re.sub(r":\w+:`~?([^`]+)`", r"\1", text).replace("``", "").strip()


def arguments(docstring: str) -> dict[str, str]:
    """Return the meanings that the section ``Args:`` of a docstring gives, by argument, without markup."""
    _, _, section = docstring.partition("\nArgs:\n")
    found = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", section.split("\n\n")[0], flags=re.MULTILINE)
    meanings = {name: prose(" ".join(meaning.split())) for name, meaning in found}
    return {name: meaning[:1].upper() + meaning[1:] for name, meaning in meanings.items()}


def comment_lines(group: str, name: str) -> list[str]:
    """Return the comment at the head of a shipped configuration file: its command, then what it is for."""
    lines = (shipped_folder("conf") / group / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    comment = itertools.takewhile(lambda line: line.startswith("#"), lines)
    return [line.removeprefix("# ") for line in comment if not line.startswith("# @package")]


def benchmarks_for(method: Any) -> list[str]:
    """List the benchmarks that a method's class can go through, some of them on another backbone."""
    from mmcl.methods.class_incremental import ClassIncremental

    trains_on_images = issubclass(method, ClassIncremental)
    found = []
    for name in options("benchmark"):
        benchmark = _class_of(name, "benchmark")
        is_features = hasattr(benchmark, "dimension")
        if issubclass(benchmark.task_type, method.task_type) and not (trains_on_images and is_features):
            found.append(name)
    return found


@cache
def tables_by_method() -> dict[str, list[str]]:
    """List for each method the shipped tables that have a run of it."""
    from mmcl.results.tables import load_table, table_names

    found: dict[str, list[str]] = {}
    for name in table_names():
        for method in sorted({method_of(overrides) for overrides in load_table(name).runs}):
            found.setdefault(method, []).append(name)
    return found


def method_of(overrides: Sequence[str]) -> str:
    """Return the method that a run's overrides choose, themselves or by their experiment; empty if none."""
    typed = dict(override.lstrip("+").split("=", 1) for override in overrides if "=" in override)
    return typed.get("method") or (_method_of_experiment(typed["experiment"]) if "experiment" in typed else "")


@cache
def _method_of_experiment(name: str) -> str:
    text = (shipped_folder("conf") / "experiment" / f"{name}.yaml").read_text(encoding="utf-8")
    chosen = re.search(r"^ +- override /method: (\w+)$", text, flags=re.MULTILINE)
    return chosen[1] if chosen else ""


@cache
def _class_of(name: str, group: str = "method") -> Any:
    from mmcl.config.components import locate

    text = (shipped_folder("conf") / group / f"{name}.yaml").read_text(encoding="utf-8")
    target = re.search(r"^ *_target_: (\S+)$", text, flags=re.MULTILINE)
    assert target is not None, f"conf/{group}/{name}.yaml names no _target_"
    return locate(target[1])


def _default_first(names: Sequence[str], default: str) -> list[str]:
    return [f"{default} (default)", *(name for name in names if name != default)]
