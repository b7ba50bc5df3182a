"""The command ``mmcl``: look things up, check, run, reproduce a table, write a report."""

from __future__ import annotations

import argparse
import inspect
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table as Grid

from mmcl.config.locate import GROUPS, options, shipped_folder
from mmcl.data_command import add_data_command
from mmcl.errors import UserError, nearest
from mmcl.exemplars_command import add_exemplars_command
from mmcl.memory_command import add_memory_command
from mmcl.released_command import add_released_command

KINDS = {f"{group}s": group for group in GROUPS if group not in ("memory", "recipe")} | {"tables": "table"}
console = Console(highlight=False, soft_wrap=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line. Errors that a user can mend end in exit code 2."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["run"]:
        return _run(given[1:])
    parser = _parser()
    parsed, further = parser.parse_known_args(given)
    # argparse takes no overrides behind an option such as --runs
    if further and hasattr(parsed, "overrides") and all("=" in word and word[0] != "-" for word in further):
        parsed.overrides = [*parsed.overrides, *further]
    elif further and hasattr(parsed, "names") and all(word[0] != "-" for word in further):
        parsed.names = [*parsed.names, *further]
    elif further:
        parser.error(f"unknown arguments: {' '.join(further)}")
    try:
        code = parsed.action(parsed)
    except UserError as error:
        sys.stderr.write(f"mmcl: {error}\n")
        sys.exit(error.exit_code)
    sys.exit(code or 0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mmcl", description="Experiments on memory-based visual classification.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    ls = commands.add_parser("ls", help="list methods, benchmarks, backbones, experiments, tables, trainers, loggers")
    ls.add_argument("kind", nargs="?", choices=sorted(KINDS))
    ls.set_defaults(action=lambda parsed: _ls(parsed.kind))

    show = commands.add_parser("show", help="one page about a method, benchmark, backbone, experiment or table")
    show.add_argument("name")
    show.set_defaults(action=lambda parsed: _show(parsed.name))

    check = commands.add_parser("check", help="check an experiment, a table or overrides without running anything")
    check.add_argument("what", nargs="+", metavar="EXPERIMENT|TABLE|OVERRIDE")
    check.set_defaults(action=lambda parsed: _check(parsed.what))

    commands.add_parser("run", help="the same as python -m mmcl.run", add_help=False)

    again = commands.add_parser("reproduce", help="run the rows of a table and set ours beside the printed values")
    again.add_argument("table", nargs="?", default="quick", help="a name from: mmcl ls tables")
    again.add_argument("overrides", nargs="*", help="typed after each row's own, such as trainer=cpu")
    again.add_argument("--runs", default="runs", help="folder of the runs")
    again.add_argument("--jobs", type=int, default=0, help="silent processes that share the runs, one thread each")
    again.set_defaults(action=lambda parsed: _reproduce(parsed.table, parsed.overrides, parsed.runs, parsed.jobs))

    tune = commands.add_parser("tune", help="choose each method's settings on validation samples; writes a table")
    tune.add_argument("search", help="a name below experiments/search, or a file")
    tune.add_argument("table", help="file of the table to write")
    tune.add_argument("overrides", nargs="*", help="typed after each trial's own, such as trainer=cpu")
    tune.add_argument("--runs", default="runs/tuning", help="folder of the trials")
    tune.add_argument("--jobs", type=int, default=1, help="trials at the same time, each on one thread")
    tune.set_defaults(action=_tune)

    report = commands.add_parser("report", help="write one page about all results below a folder")
    report.add_argument("runs", nargs="?", default="runs")
    report.add_argument("--html", default=None, help="file to write; report.html in the folder otherwise")
    report.set_defaults(action=lambda parsed: _report(Path(parsed.runs), parsed.html))

    figure = commands.add_parser("figure", help="draw the accuracies of a table's methods into a file")
    figure.add_argument("table", help="a name from: mmcl ls tables; or a file")
    figure.add_argument("file", help="file to write: .svg")
    figure.add_argument("--runs", default="runs", help="folder of the runs, or of kept results")
    figure.set_defaults(action=lambda parsed: _figure(parsed.table, Path(parsed.runs), Path(parsed.file)))

    keep = commands.add_parser("keep", help="copy finished results, without paths of this machine, into a folder")
    keep.add_argument("runs")
    keep.add_argument("folder")
    keep.set_defaults(action=lambda parsed: _keep(Path(parsed.runs), Path(parsed.folder)))

    cache = commands.add_parser("cache", help="list, delete or verify encoded features")
    cache.add_argument("verb", choices=["ls", "clear", "verify"])
    cache.add_argument("names", nargs="*", help="entries to delete, such as dtd-test; all when none is named")
    cache.add_argument("--cache", default="runs/cache", help="folder of the cache")
    cache.set_defaults(action=lambda parsed: _cache(parsed.verb, parsed.names, Path(parsed.cache)))

    _add_features_command(commands)
    add_data_command(commands)
    add_memory_command(commands)
    add_exemplars_command(commands)
    add_released_command(commands)
    return parser


def _add_features_command(commands: Any) -> None:
    features = commands.add_parser("features", help="export encoded features; fit the logit scale of a file")
    verbs = features.add_subparsers(required=True, metavar="VERB")
    export = verbs.add_parser("export", help="write the encoded features of a data set to one file")
    export.add_argument("benchmark", help="a benchmark of one data set, such as clip/dtd, or of classes: cifar100_224")
    export.add_argument("file", help="file to write: .npz or .safetensors")
    export.add_argument("overrides", nargs="*", help="such as paths.data=~/data method.views=32 backbone=squeezenet")
    export.set_defaults(action=lambda parsed: _export(parsed.benchmark, Path(parsed.file), parsed.overrides))
    scale = verbs.add_parser("scale", help="fit benchmark.logit_scale on the training images of a file or folder")
    scale.add_argument("path", help="a file of features, or a folder of them")
    scale.add_argument("--prompts", default="full", help="as method.prompts")
    scale.set_defaults(action=lambda parsed: _scale(parsed.path, parsed.prompts))


def _run(arguments: list[str]) -> None:
    """Become ``python -m mmcl.run``: Lightning starts further processes by the command line that it finds."""
    os.execv(sys.executable, [sys.executable, "-m", "mmcl.run", *arguments])


def _names(kind: str) -> list[str]:
    if kind == "table":
        from mmcl.report.tables import find_tables

        folder = shipped_folder("experiments")
        return [path.relative_to(folder).with_suffix("").as_posix() for path in find_tables()]
    return options(kind)


def _ls(kind: str | None) -> None:
    for plural in [kind] if kind else KINDS:
        console.print(f"[bold]{plural}[/bold]")
        for name in _names(KINDS[plural]):
            console.print(f"  {name}", markup=False)


def _show(name: str) -> None:
    groups = [group for group in KINDS.values() if name in _names(group)]
    if not groups:
        known = [known for group in KINDS.values() for known in _names(group)]
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


def _check(what: Sequence[str]) -> None:
    """Compose and check every run that a name or a list of overrides stands for; all errors at once."""
    from mmcl.config.compose import compose_sweep
    from mmcl.config.identity import identity
    from mmcl.report.tables import load_table

    typed = tuple(what[1:]) if all("=" in word for word in what[1:]) else ()
    if len(what) == 1 + len(typed) and what[0] in _names("table"):
        runs = {f"{row.label}": (*overrides, *typed) for row in load_table(what[0]).rows for overrides in row.runs}
    elif len(what) == 1 + len(typed) and what[0] in options("experiment"):
        runs = {what[0]: (f"+experiment={what[0]}", *typed)}
    elif all("=" in word for word in what):
        runs = {" ".join(what): tuple(what)}
    else:
        known = [*options("experiment"), *_names("table")]
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


def _reproduce(table: str, overrides: Sequence[str], runs: str, jobs: int) -> int:
    from mmcl.report.reproduce import reproduce

    return reproduce(table, overrides, runs, jobs)


def _tune(parsed: argparse.Namespace) -> None:
    from mmcl.tune import tune

    path = tune(parsed.search, parsed.overrides, Path(parsed.runs), Path(parsed.table), parsed.jobs)
    console.print(f"table: {path}. Run it with other seeds: mmcl reproduce {path} seed=1,2,3,4,5", markup=False)


def _report(runs: Path, html: str | None) -> None:
    from mmcl.report.page import write_report
    from mmcl.report.store import find_results
    from mmcl.report.tables import find_tables, load_table

    if not runs.is_dir():
        raise UserError(f"{runs}: no such folder. Name the folder of your runs, such as: mmcl report runs")
    results, problems = find_results(runs)
    for problem in problems:
        sys.stderr.write(f"mmcl: left out: {problem}\n")
    tables = [load_table(path) for path in find_tables()]
    path = write_report(results, tables, Path(html) if html else runs / "report.html", problems=problems)
    console.print(f"{len(results)} results: {path}", markup=False)


def _figure(table: str, runs: Path, file: Path) -> None:
    from mmcl.report.comparison import compare, pick_from
    from mmcl.report.store import find_results
    from mmcl.report.table_figures import write_figure
    from mmcl.report.tables import load_table

    results, _ = find_results(runs)
    console.print(str(write_figure(compare(load_table(table), pick_from(results)), file)), markup=False)


def _keep(runs: Path, folder: Path) -> None:
    from mmcl.report.keep import keep_results

    for path in keep_results(runs, folder):
        console.print(str(path), markup=False)


def _cache(verb: str, names: Sequence[str], folder: Path) -> None:
    from mmcl.features.cache import FeatureCache

    if (names and verb != "clear") or any("=" in name for name in names):
        expected = "names of entries" if verb == "clear" else "nothing more"
        raise UserError(f"mmcl cache {verb} {' '.join(names)}: expected {expected}. Another folder: --cache FOLDER")
    cache = FeatureCache(folder.expanduser())
    if verb == "clear":
        for entry in cache.clear(names or None):
            console.print(f"deleted  {entry.name}", markup=False)
        return
    if verb == "verify":
        for entry in cache.list_entries():
            console.print(f"{'sound  ' if cache.verify(entry.name) else 'DAMAGED'}  {entry.name}", markup=False)
        return
    grid = Grid(box=None, pad_edge=False)
    for title in ("entry", "shape", "type", "MiB", "written"):
        grid.add_column(title)
    for entry in cache.list_entries():
        size = f"{entry.nbytes / 2**20:.1f}"
        grid.add_row(entry.name, "x".join(map(str, entry.shape)), entry.dtype, size, entry.date)
    console.print(grid)


def _export(benchmark: str, file: Path, overrides: Sequence[str]) -> None:
    from mmcl.config.components import locate
    from mmcl.config.compose import compose_run, compose_unchecked
    from mmcl.engine.class_export import export_class_features
    from mmcl.engine.export import export_features
    from mmcl.engine.processes import is_first_process
    from mmcl.protocol import ClassTask

    target = compose_unchecked([f"benchmark={benchmark}"]).benchmark["_target_"]
    by_class = locate(target).task_type is ClassTask
    method, export = ("ncm", export_class_features) if by_class else ("dmn", export_features)
    path = export(compose_run([f"method={method}", f"benchmark={benchmark}", *overrides]), file)
    if is_first_process():
        console.print(str(path), markup=False)


def _scale(path: str, prompts: str) -> None:
    """Print the logit scale with the least cross-entropy on the training images, of each file and of all together."""
    import torch

    from mmcl.config.components import build
    from mmcl.config.compose import compose_run
    from mmcl.features.logit_scale import best_scale, scale_losses
    from mmcl.methods.text_classifier import text_classifier

    config = compose_run(["method=clip_zeroshot", "benchmark=features", f"paths.features={path}"])
    benchmark = build(config.benchmark)
    losses = []
    for index, name in enumerate(benchmark.task_names):
        images, texts = benchmark.contents[index].train, benchmark.encoded(index).texts(prompts)
        classifier = text_classifier(texts.features.float(), texts.classes, len(benchmark.names_of(index)))
        losses.append(scale_losses(images.features[:, 0].float(), images.labels, classifier))
        console.print(f"{name}: {best_scale(losses[-1])}", markup=False)
    console.print(f"benchmark.logit_scale={best_scale(torch.stack(losses).mean(dim=0))}", markup=False)


if __name__ == "__main__":
    main()
