"""The command ``mmcl released``: the checkpoints of Mnemonics' authors, evaluated, or made weights to begin with."""

from __future__ import annotations

import argparse
import json
import pickle
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table as Grid

from mmcl.errors import UserError
from mmcl.whole_files import write_whole

if TYPE_CHECKING:  # torch and Lightning take seconds to import
    from omegaconf import DictConfig

    from mmcl.backbones.cosine_network import CosineNetwork
    from mmcl.benchmarks.class_incremental import ClassIncrementalBenchmark

Verbs = Any  # what argparse calls subparsers
BENCHMARKS = {"cifar100": "cifar100_lucir", "imagenet_sub": "imagenet100", "imagenet": "imagenet1000"}
FOLDER = re.compile(rf"({'|'.join(BENCHMARKS)})_nfg([1-9]\d*)_ncls([1-9]\d*)_.*")
EXAMPLE = "cifar100_nfg50_ncls2_nproto20_mtl_exp01"
GIVEN = ("benchmark", "benchmark.base", "benchmark.increment", "benchmark.class_order", "benchmark.order_seed")
READOUT = "cnn"
UNREADABLE = (OSError, EOFError, pickle.UnpicklingError, ValueError, LookupError, TypeError, AttributeError)
console = Console(highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class ReleasedRun:
    """A folder of released checkpoints.

    Attributes:
        benchmark: the suite's name of the data set.
        class_order: labels in the order in which they come.
        task_sizes: number of new classes of each task.
        models: one file for each task.
    """

    folder: Path
    benchmark: str
    class_order: list[int]
    task_sizes: list[int]
    models: list[Path]


def add_released_command(commands: Verbs) -> None:
    """Add ``released`` to the commands of ``mmcl``."""
    released = commands.add_parser("released", help="evaluate the checkpoints that Mnemonics' authors released")
    released.add_argument("folder", type=Path, metavar="FOLDER", help=f"as theirs: logs/{EXAMPLE}")
    released.add_argument("overrides", nargs="*", help="such as paths.data=~/data trainer=cpu")
    written = released.add_mutually_exclusive_group()
    written.add_argument("--out", type=Path, metavar="FOLDER", help="folder for released.json, the figures")
    written.add_argument("--convert", type=Path, metavar="FOLDER", help="write the first task's weights; no evaluation")
    released.set_defaults(action=_released)


def _released(parsed: argparse.Namespace) -> None:
    run = find_released(parsed.folder.expanduser())
    config = _config(run, parsed.overrides)
    if parsed.convert is not None:
        file = parsed.convert.expanduser() / "first_task.pt"
        network = _convert(run, file)
        _print_beginning(run, config, [f"backbone={network.backbone.name}", *parsed.overrides], file)
        return
    figures = evaluate(run, config)
    _print_figures(run, figures)
    if parsed.out is not None:
        content = {
            "released": run.folder.absolute().name,
            "benchmark": run.benchmark,
            "task_sizes": run.task_sizes,
            "class_order": run.class_order,
            "readouts": {READOUT: figures},
        }
        file = parsed.out.expanduser() / "released.json"
        write_whole(file, lambda part: part.write_text(json.dumps(content, indent=1)))
        console.print(str(file), markup=False)


# What lies in the folder


def find_released(folder: Path) -> ReleasedRun:
    """Find the checkpoints of a folder, and the sequence that they belong to.

    Raises:
        UserError: no such folder, one of another name, without its class order, or with a model missing.
    """
    from mmcl.benchmarks.class_order import task_sizes

    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder. Name one such as logs/{EXAMPLE}")
    found = FOLDER.fullmatch(folder.absolute().name)
    if found is None:
        raise UserError(
            f"{folder}: its name tells data set and tasks: <data set>_nfg<classes of the first task>_ncls<classes of a "
            f"later one>_..., such as {EXAMPLE}. Data sets: {', '.join(BENCHMARKS)}"
        )
    base, increment = int(found[2]), int(found[3])
    if base % increment:
        raise UserError(f"{folder}: nfg{base} is no multiple of ncls{increment}, as the released code requires")
    order = read_class_order(folder)
    if base > len(order):
        raise UserError(f"{folder}: nfg{base}, but the class order has {len(order)} classes")
    sizes = task_sizes(len(order), base, increment)
    first = base // increment - 1
    models = [folder / f"run_0_iteration_{first + task}_model.pth" for task in range(len(sizes))]
    missing = [model.name for model in models if not model.is_file()]
    if missing:
        raise UserError(
            f"{folder}: {len(missing)} of {len(models)} models are missing, first {missing[0]}. Expected "
            f"{models[0].name} to {models[-1].name}: unpack the archive again"
        )
    return ReleasedRun(folder, BENCHMARKS[found[1]], order, sizes, models)


def read_class_order(folder: Path) -> list[int]:
    """Read ``seed_<seed>_<data set>_order_run_0.pkl`` without running its code.

    Raises:
        UserError: none or several such files, one that cannot be read, or not each class from 0 on exactly once.
    """
    from mmcl.benchmarks.array_pickles import ArrayUnpickler

    files = sorted(folder.glob("seed_*_order_run_0.pkl"))
    if len(files) != 1:
        found = ", ".join(file.name for file in files) or "none"
        raise UserError(
            f"{folder}: expected one seed_<seed>_<data set>_order_run_0.pkl, found {found}. Unpack the archive again"
        )
    try:
        with files[0].open("rb") as stream:
            order = np.asarray(ArrayUnpickler(stream, encoding="latin1").load())
    except UNREADABLE as error:
        raise UserError(f"cannot read {files[0]}: {error}. Expected a pickled array of classes") from error
    if order.ndim != 1 or order.dtype.kind not in "iu" or sorted(order.tolist()) != list(range(len(order))):
        raise UserError(
            f"{files[0]}: an array {order.shape} of {order.dtype}. Expected each class from 0 on exactly once, in the "
            "order in which they come"
        )
    return [int(label) for label in order]


def _config(run: ReleasedRun, overrides: Sequence[str]) -> DictConfig:
    """Compose the configuration of the benchmark that the folder names."""
    from mmcl.config.compose import compose_run

    for override in overrides:
        key = override.lstrip("+").partition("=")[0]
        if key in GIVEN:
            raise UserError(f"{override}: the folder says what {key} is. Leave it out")
    return compose_run(
        [
            "method=finetune",
            f"benchmark={run.benchmark}",
            *overrides,
            f"benchmark.base={run.task_sizes[0]}",
            f"benchmark.increment={(run.task_sizes[1:] or run.task_sizes)[0]}",
            f"benchmark.class_order={_listed(run.class_order)}",
        ]
    )


# Evaluation


def evaluate(run: ReleasedRun, config: DictConfig) -> dict[str, Any]:
    """Return the figures of the readout ``cnn``, as in a run's result; accuracies are fractions.

    After each task, all test images of the classes so far are classified among these classes. One device computes.

    Raises:
        UserError: data that is missing or has other classes, or a model that cannot be read or has other classes.
    """
    import torch
    from omegaconf import OmegaConf

    from mmcl.backbones.released_mnemonics import read_released
    from mmcl.config.components import build
    from mmcl.engine.class_export import ONE_DEVICE
    from mmcl.engine.trainers import make_trainer
    from mmcl.metrics.readouts import figures, readout_metrics

    trainer = make_trainer(OmegaConf.merge(config.trainer, ONE_DEVICE))  # type: ignore[arg-type]
    benchmark: ClassIncrementalBenchmark = build(config.benchmark)
    benchmark.prepare_data()
    benchmark.setup()
    device = trainer.strategy.root_device
    metrics = readout_metrics(run.task_sizes).to(device)
    stderr = Console(stderr=True)
    watched = track(run.models, "evaluating", console=stderr, transient=True, disable=not stderr.is_terminal)
    for index, model in enumerate(watched):
        network = _with_classes(read_released(model), sum(run.task_sizes[: index + 1]), model).frozen_copy().to(device)
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            for batch in benchmark.plain_batches(benchmark.task(index).test, device):
                metrics.update(network(batch.images).logits.float(), batch.labels, task=index)
    return figures(metrics)


def _with_classes(network: CosineNetwork, classes: int, file: Path) -> CosineNetwork:
    found = len(network.head.weight)
    if found != classes:
        raise UserError(f"{file} knows {found} classes, expected {classes} by the name of its folder and its own")
    return network


def _print_figures(run: ReleasedRun, figures: dict[str, Any]) -> None:
    grid = Grid(box=None, pad_edge=False)
    for title in ("task", "classes", "accuracy", "of the first task's classes"):
        grid.add_column(title, justify="right")
    seen = np.cumsum(run.task_sizes).tolist()
    of_first = [row[0] for row in figures["accuracy_matrix"]]
    for task, row in enumerate(zip(seen, figures["accuracy_curve"], of_first, strict=True), start=1):
        grid.add_row(f"{task}/{len(seen)}", str(row[0]), *(f"{100 * accuracy:.2f}" for accuracy in row[1:]))
    console.print(grid)
    average, fall = (100 * figures[name] for name in ("average_incremental_accuracy", "first_task_forgetting"))
    console.print(f"{READOUT}: average accuracy {average:.2f}, forgetting of the first task {fall:.2f}", markup=False)


# Weights to begin with


def _convert(run: ReleasedRun, file: Path) -> CosineNetwork:
    """Write the network of the first task as a run writes its ``first_task.pt``, and return it."""
    from mmcl.engine.versions import tensors

    network = first_network(run)
    write_whole(file, tensors(network.state_dict()))
    return network


def _print_beginning(run: ReleasedRun, config: DictConfig, overrides: Sequence[str], file: Path) -> None:
    """Say how a run begins with the first task's weights."""
    from mmcl.benchmarks.class_order import class_order

    in_usual_order = run.class_order == class_order(len(run.class_order), config.seed)
    words = [
        f"benchmark={run.benchmark} benchmark.base={config.benchmark.base}",
        f"benchmark.increment={config.benchmark.increment}",
        *([] if in_usual_order else [f"benchmark.class_order={_listed(run.class_order)}"]),
        *overrides,
        f"method.first_task_weights={file}",
    ]
    console.print(f"{file}: {run.task_sizes[0]} classes. Begin with it:", markup=False)
    console.print(f"python -m mmcl.run +method=mnemonics {' '.join(words)}", markup=False)


def first_network(run: ReleasedRun) -> CosineNetwork:
    """Return the network of the first task.

    Raises:
        UserError: the model cannot be read, or has other classes than the first task or a split classifier.
    """
    from mmcl.backbones.released_mnemonics import read_released

    file = run.models[0]
    network = _with_classes(read_released(file), run.task_sizes[0], file)
    if len(network.head.weight_old):
        raise UserError(f"{file} has a classifier of old and new classes; the first task has no old ones")
    return network


def _listed(order: Sequence[int]) -> str:
    return f"[{','.join(map(str, order))}]"
