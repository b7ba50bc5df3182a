"""The command ``mmcl data``: which data is there, and lists of the images that a benchmark takes from its folders."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from mmcl.config.locate import options
from mmcl.errors import UserError, nearest
from mmcl.whole_files import write_whole

if TYPE_CHECKING:  # the benchmarks' libraries take seconds to import
    from mmcl.protocol import Samples

console = Console(highlight=False, soft_wrap=True)


def add_data_command(commands: Any) -> None:
    """Add ``data`` to the commands of ``mmcl``."""
    data = commands.add_parser("data", help="say which data is there; list the images that a benchmark takes")
    verbs = data.add_subparsers(required=True, metavar="VERB")
    named = argparse.ArgumentParser(add_help=False)
    named.add_argument("benchmark")
    named.add_argument("overrides", nargs="*", help="such as paths.data=~/data")

    check = verbs.add_parser("check", parents=[named], help="say which data is there and which is missing")
    check.set_defaults(action=lambda parsed: _check(parsed.benchmark, parsed.overrides))

    images = verbs.add_parser("list", parents=[named], help="list a benchmark's images as lines 'path label'")
    images.add_argument("--out", type=Path, metavar="FOLDER", help="write train.txt and val.txt there, do not print")
    images.set_defaults(action=lambda parsed: _list(parsed.benchmark, parsed.overrides, parsed.out))


def _check(name: str, overrides: Sequence[str]) -> int:
    items = _benchmark(name, overrides).describe_data()
    for item in items:
        console.print(f"{'there  ' if item.present else 'MISSING'}  {item.path}  {item.meaning}", markup=False)
    if not items:
        console.print(f"{name}: embedded, nothing to bring")
    return 0 if all(item.present for item in items) else 1


def _list(name: str, overrides: Sequence[str], out: Path | None) -> None:
    """Print or write the images of both splits; a label is the rank of the class among the sorted ones."""
    from mmcl.benchmarks.image_folder import FilesBenchmark
    from mmcl.benchmarks.listing import list_lines

    benchmark = _benchmark(name, overrides)
    if not isinstance(benchmark, FilesBenchmark):
        raise UserError(
            f"{name} has no images in files of its own. A list is for imagenet100, imagenet1000 and imagefolder"
        )
    folder = None if out is None else out.expanduser()
    existing = [folder / f"{split}.txt" for split in ("train", "val")] if folder else []
    if found := [str(path) for path in existing if path.exists()]:
        raise UserError(f"{found[0]} is there already. Delete it, or name another folder: --out FOLDER")
    raw = benchmark.read()
    for split, samples in (("train", raw.train), ("val", raw.test)):
        lines = list_lines(samples, folder)
        if folder is None:
            sys.stdout.write("".join(f"{line}\n" for line in lines))
        else:
            _write(folder / f"{split}.txt", lines, samples)
    if folder is not None:
        place = f"paths.data={folder.parent} benchmark.folder={folder.name}"
        console.print(f"To use the lists, type: benchmark={name} {place}", markup=False)


def _write(path: Path, lines: list[str], samples: Samples) -> None:
    write_whole(path, lambda part: part.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8"))
    classes = len(set(samples.labels.tolist()))
    console.print(f"{path}: {len(lines)} images of {classes} classes", markup=False)


def _benchmark(name: str, overrides: Sequence[str]) -> Any:
    """Build a benchmark without reading its data."""
    from mmcl.config.components import build
    from mmcl.config.compose import compose_run

    known = options("benchmark")
    if name not in known:
        raise UserError(f"unknown benchmark '{name}'.{nearest(name, known)} Benchmarks: {', '.join(known)}")
    return build(compose_run([_plain_method(name), f"benchmark={name}", *overrides]).benchmark)


def _plain_method(benchmark: str) -> str:
    """Return the override of a method that needs nothing but the benchmark."""
    from mmcl.config.components import locate
    from mmcl.config.compose import compose_unchecked
    from mmcl.protocol import DatasetTask, MemoryTask, StreamTask

    plain = dict.fromkeys((DatasetTask, MemoryTask), "method=clip_zeroshot") | {StreamTask: "method=vanilla"}
    target = compose_unchecked([f"benchmark={benchmark}"]).benchmark["_target_"]
    return plain.get(locate(target).task_type, "method=finetune")
