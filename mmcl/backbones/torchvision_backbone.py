"""SqueezeNet and ResNets of torchvision as feature backbones: trained on ImageNet, average pooled, no classifier."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
import torchvision
from torch import Tensor, nn

from mmcl.backbones.clip_weights import DOWNLOAD_FAILURES
from mmcl.backbones.feature_backbone import FeatureBackbone, PretrainedBackbone
from mmcl.backbones.weight_files import check_file, download, load_exactly, read_tensors, reason_of
from mmcl.config.schema import ComponentConfig, setting
from mmcl.errors import UserError, nearest


class Cut(NamedTuple):
    """Where a model's features are.

    ``head`` is its classifier, ``pooling`` stands in its place, ``dimension`` is the length D of a feature.
    """

    head: str
    pooling: Callable[[], nn.Module]
    dimension: int


# SqueezeNet's classifier is a convolution before the pooling; what it would see is pooled in its place.
CUTS = {
    "squeezenet1_0": Cut("classifier", lambda: nn.AdaptiveAvgPool2d(1), 512),
    "squeezenet1_1": Cut("classifier", lambda: nn.AdaptiveAvgPool2d(1), 512),
    "resnet18": Cut("fc", nn.Identity, 512),
    "resnet34": Cut("fc", nn.Identity, 512),
    "resnet50": Cut("fc", nn.Identity, 2048),
}


@dataclass
class TorchvisionConfig(ComponentConfig):
    """Keys of a torchvision model."""

    model: str = setting(f"Name of the model: {', '.join(CUTS)}.")
    pretrained: str | None = setting("torchvision's tag of the weights, such as IMAGENET1K_V1; null begins at random.")
    checkpoint: str | None = setting("File of weights that are taken instead, float32 or float16; null takes none.")


class TorchvisionNet(FeatureBackbone):
    """A torchvision model whose classifier gave way to the pooling.

    Args:
        net: from images to ``(B, D)``.
        dimension: length D of a feature.
    """

    def __init__(self, net: nn.Module, dimension: int) -> None:
        super().__init__(dimension)
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        """Return the features ``(B, D)`` of images ``(B, 3, H, W)``; none is negative, as a rectifier comes last."""
        features: Tensor = self.net(images.contiguous(memory_format=torch.channels_last))
        return features


class TorchvisionBackbone(PretrainedBackbone):
    """A torchvision model by name. Cheap until :meth:`load`.

    Raises:
        UserError: no such model, weights or file.
    """

    Config: ClassVar[type[TorchvisionConfig]] = TorchvisionConfig
    config: TorchvisionConfig

    def __init__(self, config: TorchvisionConfig) -> None:
        super().__init__(config)
        if config.model not in CUTS:
            hint = nearest(config.model, CUTS)
            raise UserError(f"backbone.model={config.model}: expected one of {', '.join(CUTS)}.{hint}")
        tags = list(torchvision.models.get_model_weights(config.model).__members__)
        if config.pretrained is not None and config.pretrained not in tags:
            hint = nearest(config.pretrained, tags)
            raise UserError(f"backbone.pretrained={config.pretrained}: expected one of {', '.join(tags)}.{hint}")
        check_file(config.checkpoint, config.model)

    def load(self) -> TorchvisionNet:
        """Build the model with its weights.

        Raises:
            UserError: the weights cannot be fetched or read, or are another model's.
        """
        cut = CUTS[self.config.model]
        with torch.device("cpu"):
            if self.config.checkpoint is None and self.config.pretrained is None:
                net = self._built(cut)
            else:
                file = self._file()
                # The random initialisation is overwritten; the run's own draws shall not notice it.
                with torch.random.fork_rng(devices=[]):
                    net = self._built(cut)
                load_exactly(net, read_tensors(file), file, self.config.model, (cut.head,))
        return TorchvisionNet(net.to(memory_format=torch.channels_last), cut.dimension)

    def _built(self, cut: Cut) -> Any:
        net = torchvision.models.get_model(self.config.model, weights=None)
        setattr(net, cut.head, cut.pooling())
        return net

    def _file(self) -> Path:
        if self.config.checkpoint is not None:
            return Path(self.config.checkpoint).expanduser()
        url = torchvision.models.get_model_weights(self.config.model)[str(self.config.pretrained)].url
        try:
            return download(url)
        except DOWNLOAD_FAILURES as error:
            raise UserError(
                f"cannot fetch the weights of backbone={self.config.name} ({reason_of(error)}). On a machine with a "
                f"network download the file {url}, copy it anywhere on this machine and type backbone.checkpoint=FILE"
            ) from error
