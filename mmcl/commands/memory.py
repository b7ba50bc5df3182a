"""The command ``mmcl memory``: classes of a user's own for a finished run of MML, without training."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table as Grid

from mmcl.errors import UserError

if TYPE_CHECKING:  # the encoders' libraries take seconds to import
    from mmcl.engine.own_memory import OwnMemory

Verbs = Any  # what argparse calls subparsers
LISTED_ANSWERS = 3
LISTED_ITEMS = 3
console = Console(highlight=False, soft_wrap=True)


def add_memory_command(commands: Verbs) -> None:
    """Add ``memory`` to the commands of ``mmcl``."""
    memory = commands.add_parser("memory", help="let a finished run of MML answer for classes of your own")
    verbs = memory.add_subparsers(required=True, metavar="VERB")
    run = argparse.ArgumentParser(add_help=False)
    run.add_argument("run", type=Path, metavar="RUN", help="directory of a finished run of method=mml")
    run.add_argument("--cache", type=Path, help="folder of encoded features; the run's otherwise")

    build = verbs.add_parser("build", parents=[run], help="encode images and texts of classes and write a memory")
    build.add_argument("--images", type=Path, metavar="DIR", help="<class>/<image>; without it, texts stand for all")
    build.add_argument(
        "--text", type=Path, metavar="DIR", required=True, help="<class>.txt, a sentence a line; or a JSON file"
    )
    build.add_argument("--templates", action="store_true", help="add CLIP's 80 prompts about each class name")
    build.add_argument("--out", type=Path, metavar="FILE", help="file to write; below RUN/memories otherwise")
    build.add_argument("--add-to", type=Path, metavar="FILE", help="memory whose classes come first in the new one")
    build.add_argument(
        "--image-neighbours", type=int, metavar="K", help="images that a query sees; the run's otherwise"
    )
    build.add_argument("--text-neighbours", type=int, metavar="K", help="sentences that a query sees; likewise")
    build.set_defaults(action=_build)

    replace = verbs.add_parser("replace", parents=[run], help="let the run answer from a memory from now on")
    replace.add_argument("file", type=Path, metavar="FILE", help="a memory that build has written")
    replace.set_defaults(action=_replace)

    inspect = verbs.add_parser("inspect", parents=[run], help="say what is in the memory, and what it answers")
    inspect.add_argument("--memory", type=Path, metavar="FILE", help="a memory not yet in place; the run's otherwise")
    inspect.add_argument("--query", type=Path, nargs="+", default=[], metavar="IMAGE", help="images to answer for")
    inspect.add_argument("--html", type=Path, metavar="FILE", help="page to write about memory and answers")
    inspect.set_defaults(action=_inspect)


def _build(parsed: argparse.Namespace) -> None:
    from mmcl.benchmarks.own_classes import read_own_classes
    from mmcl.benchmarks.prompts import full_templates
    from mmcl.engine.finished_run import FinishedRun
    from mmcl.engine.own_memory import FOLDER, build_memory

    if parsed.out is not None and parsed.out.expanduser().is_dir():
        raise UserError(
            f"--out {parsed.out} is a folder. Type a file, such as --out {parsed.out / 'memory.safetensors'}"
        )
    run = FinishedRun(parsed.run, parsed.cache)
    texts: Path = parsed.text.expanduser()
    images: Path | None = parsed.images and parsed.images.expanduser()
    classes = read_own_classes(images, texts, full_templates() if parsed.templates else ())
    folders = [path for path in (images, texts) if path is not None]
    name = folders[0].absolute().name.partition(".")[0]
    file = parsed.out.expanduser() if parsed.out else run.folder / FOLDER / f"{name}.safetensors"
    neighbours = (parsed.image_neighbours, parsed.text_neighbours)
    made = build_memory(run, classes, folders, file, neighbours, parsed.add_to)
    if images is not None and classes.without_images:
        console.print(f"without images, their texts stand for them: {', '.join(classes.without_images)}", markup=False)
    _print_facts(made)
    console.print(f"\nPut it in place: mmcl memory replace {parsed.run} {file}", markup=False)


def _replace(parsed: argparse.Namespace) -> None:
    from mmcl.engine.finished_run import FinishedRun
    from mmcl.engine.own_memory import CURRENT, replace_memory

    run = FinishedRun(parsed.run, parsed.cache)
    new = replace_memory(run, parsed.file.expanduser())
    words = f"{len(new.source.classes)} classes, {len(new.source.images)} images, {len(new.source.sentences)} sentences"
    console.print(f"{run.folder / CURRENT}: {words}", markup=False)
    console.print(f"Ask it: mmcl memory inspect {parsed.run} --query IMAGE", markup=False)


def _inspect(parsed: argparse.Namespace) -> None:
    from mmcl.engine.finished_run import FinishedRun
    from mmcl.engine.own_memory import ask, current_memory, read_memory
    from mmcl.report.retrieved import query_of, write_retrieval_page

    run = FinishedRun(parsed.run, parsed.cache)
    own = current_memory(run) if parsed.memory is None else read_memory(run, parsed.memory.expanduser())
    asked = ask(run, own, parsed.query) if parsed.query else []
    _print_facts(own)
    for path, entry in zip(parsed.query, asked, strict=True):
        _print_answer(path, entry, own)
    if parsed.html is not None:
        file = parsed.html.expanduser()
        write_retrieval_page(f"Memory of {run.folder.name}", _facts(own), [query_of(entry) for entry in asked], file)
        console.print(f"\n{file}", markup=False)


def _facts(own: OwnMemory) -> dict[str, str]:
    source, memory = own.source, own.memory
    return {
        "file": str(own.path),
        "made from": ", ".join(source.folders),
        "rows": f"{len(source.images)} images, {len(source.sentences)} sentences, {memory.storage}",
        "a query sees": f"{_seen(source.image_neighbours, source.images)} images, {source.text_neighbours} sentences",
        "bytes": f"{memory.nbytes / 2**20:.2f} MiB",
        "encoder": memory.encoder,
        "fingerprint": memory.fingerprint(),
        "classes": ", ".join(f"{name} ({images} images, {texts} sentences)" for name, images, texts in own.counts),
    }


def _print_facts(own: OwnMemory) -> None:
    grid = Grid(box=None, pad_edge=False)
    for title in ("class", "images", "sentences"):
        grid.add_column(title)
    for name, images, texts in own.counts:
        grid.add_row(name, str(images), str(texts))
    console.print(grid)
    for name, value in _facts(own).items():
        if name != "classes":
            console.print(f"{name:<13} {value}", markup=False)


def _print_answer(path: Path, entry: dict[str, Any], own: OwnMemory) -> None:
    answers = "  ".join(f"{name} {score:.2f}" for name, score in entry["answers"][:LISTED_ANSWERS])
    console.print(f"\n{path}: {answers}", markup=False)
    for kind, words in (("images", own.source.images), ("sentences", own.source.sentences)):
        for item in entry[kind][:LISTED_ITEMS]:
            weight, said = f"{100 * item['weight']:5.1f} %", words[item["row"]]
            console.print(f"  {weight}  rank {item['rank']:>3}  {item['class']}: {said}", markup=False)


def _seen(far: int, rows: tuple[str, ...]) -> int:
    return far if rows else 0
