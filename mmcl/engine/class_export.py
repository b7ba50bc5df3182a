"""Features of a class-incremental benchmark's images as a file: the layout that ``benchmark=class_features`` reads."""

from __future__ import annotations

from pathlib import Path

import torch
from lightning import Trainer
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import track

from mmcl.backbones.feature_backbone import FeatureBackbone, PretrainedBackbone
from mmcl.backbones.freezing import freeze
from mmcl.benchmarks.class_incremental import ClassIncrementalBenchmark
from mmcl.config.components import build
from mmcl.engine.processes import is_first_process
from mmcl.engine.trainers import make_trainer
from mmcl.errors import UserError
from mmcl.features.own import ClassFeatures, check_ending, write_class_features
from mmcl.protocol import ImageFeatures, Samples

ONE_DEVICE = {"devices": 1, "num_nodes": 1, "strategy": "auto"}


def export_class_features(config: DictConfig, file: Path) -> Path:
    """Encode all training and test images under the test transform by a frozen backbone, and write the features.

    Classes stay in the order of the data set. Features are float16 where their values allow it. One device computes.

    Args:
        config: a checked configuration with a pre-trained backbone and a class-incremental benchmark.
        file: to write, ``.npz`` or ``.safetensors``.

    Raises:
        UserError: a backbone that is not pre-trained, data that is missing, or another ending.
    """
    file = file.expanduser()
    check_ending(file)
    backbone = build(config.backbone)
    if not isinstance(backbone, PretrainedBackbone):
        raise UserError(
            f"backbone={config.backbone.name} is not a pre-trained network without a head. Type for example "
            "backbone=squeezenet"
        )
    trainer = make_trainer(OmegaConf.merge(config.trainer, ONE_DEVICE))  # type: ignore[arg-type]
    benchmark: ClassIncrementalBenchmark = build(config.benchmark)
    benchmark.prepare_data()
    raw = benchmark.read()
    if not is_first_process():
        return file
    net = freeze(backbone.load()).to(trainer.strategy.root_device)
    train, test = (_encoded(net, benchmark, samples, trainer) for samples in (raw.train, raw.test))
    write_class_features(file, ClassFeatures(tuple(raw.class_names), train, test))
    return file


def _encoded(
    net: FeatureBackbone, benchmark: ClassIncrementalBenchmark, samples: Samples, trainer: Trainer
) -> ImageFeatures:
    """Return the features of samples ``(N, 1, D)`` on the CPU, in the order of the data set."""
    batches = benchmark.plain_batches(samples, trainer.strategy.root_device)
    count = -(-len(samples) // benchmark.plain_batch_size)
    console = Console(stderr=True)
    watched = track(batches, "encoding", count, console=console, transient=True, disable=not console.is_terminal)
    with torch.no_grad(), trainer.precision_plugin.forward_context():
        features = torch.cat([net(batch.images).float().cpu() for batch in watched])
    in_half = features.half()
    return ImageFeatures((in_half if in_half.isfinite().all() else features)[:, None], samples.labels, samples.sources)
