"""The commands ``mmcl features`` and ``mmcl cache``: encoded features in files of their own, and in the cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as Grid

from mmcl.errors import UserError

console = Console(highlight=False, soft_wrap=True)


def add_features_commands(commands: Any) -> None:
    """Add ``features`` and ``cache`` to the commands of ``mmcl``."""
    cache = commands.add_parser("cache", help="list, delete or verify encoded features")
    cache.add_argument("verb", choices=["ls", "clear", "verify"])
    cache.add_argument("names", nargs="*", help="entries to delete, such as dtd-test; all when none is named")
    cache.add_argument("--cache", default="runs/cache", help="folder of the cache")
    cache.set_defaults(action=lambda parsed: _cache(parsed.verb, parsed.names, Path(parsed.cache)))

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
