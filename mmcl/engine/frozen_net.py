"""A frozen feature backbone behind the feature cache: what is not there yet is computed once, on one device."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn

from mmcl.backbones.feature_backbone import FeatureBackbone, PretrainedBackbone
from mmcl.backbones.freezing import freeze
from mmcl.config.components import build
from mmcl.engine.class_export import ONE_DEVICE
from mmcl.engine.trainers import make_trainer
from mmcl.errors import UserError
from mmcl.features.cache import FeatureCache, PartWriter, Wanted
from mmcl.features.pixel_job import PixelJob
from mmcl.pixels import normalise


class CachedNet:
    """Encodes images, or reads what was encoded before; see :class:`mmcl.features.pixel_job.FrozenNet`.

    Args:
        net: the network; it is frozen.
        cache: where features are kept.
        trainer_config: the ``trainer`` group: device and precision of the computation.
    """

    def __init__(self, net: FeatureBackbone, cache: FeatureCache, trainer_config: DictConfig) -> None:
        self.net, self.cache = freeze(net), cache
        self.trainer_config: DictConfig = OmegaConf.merge(trainer_config, ONE_DEVICE)  # type: ignore[assignment]

    def features(self, job: PixelJob) -> Tensor:
        """Return the features of a job, float32 ``(N, D)``, read-only.

        Raises:
            UserError: the images cannot be made, the disk is full, or a feature is not finite.
        """
        computation = {
            "net": weights_digest(self.net),
            "precision": self.trainer_config.precision,
            "matmul": self.trainer_config.matmul_precision,
        }
        description = {**computation, "mean": job.mean, "std": job.std, **job.origin}
        wanted = Wanted(job.name, description, (job.count, self.net.dimension), "float32")
        if not self.cache.find(wanted):
            self._make(wanted, job)
        return self.cache.read(wanted).features

    def _make(self, wanted: Wanted, job: PixelJob) -> None:
        part = self.cache.begin(wanted)
        try:
            self._encode(job, PartWriter(part / "part-0.npy", wanted.shape, wanted.dtype))
            self.cache.commit(wanted, part, {})
        except BaseException:
            self.cache.discard(part)
            raise

    def _encode(self, job: PixelJob, writer: PartWriter) -> None:
        trainer = make_trainer(self.trainer_config)
        device = trainer.strategy.root_device
        net = self.net.to(device)
        console = Console(stderr=True)
        hidden = not (self.trainer_config.progress and console.is_terminal)
        bar = Progress(console=console, transient=True, disable=hidden)
        with bar, torch.no_grad(), trainer.precision_plugin.forward_context():
            line = bar.add_task(f"encoding {job.name}", total=job.count)
            for pixels in job.batches():
                writer.write(net(normalise(pixels.to(device), job.mean, job.std)))
                bar.advance(line, len(pixels))
        writer.close()


def frozen_net(config: DictConfig) -> CachedNet:
    """Load the configured backbone, freeze it and put it behind the cache.

    Args:
        config: a checked configuration.

    Raises:
        UserError: the backbone is no pre-trained network, or its weights cannot be had.
    """
    backbone = build(config.backbone)
    if not isinstance(backbone, PretrainedBackbone):
        raise UserError(
            f"backbone={config.backbone.name} is not a pre-trained network without a head, which "
            f"benchmark={config.benchmark.name} needs. Type for example backbone=resnet18_in1k"
        )
    return CachedNet(backbone.load(), FeatureCache(Path(config.paths.cache).expanduser()), config.trainer)


def weights_digest(net: nn.Module) -> str:
    """Return what the features of a network depend on, as 16 hex digits: kinds of its modules, bytes of its weights."""
    digest = hashlib.sha256()
    for name, module in net.named_modules():
        digest.update(f"{name} {type(module).__name__} {module.extra_repr()}\n".encode())
    for name, tensor in sorted(net.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]
