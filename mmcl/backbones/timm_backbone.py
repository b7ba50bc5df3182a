"""Any image network of timm by name, with published weights, those of a file, or none.

The settings of SLCA (Zhang et al., ICCV 2023) and of Memory Head: the classifier goes, and the trained final
normalisation of the vision transformer is thrown away for a fresh one.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import timm
import torch
from timm.layers.norm import LayerNorm2d
from torch import Tensor, nn

from mmcl.backbones.clip_weights import DOWNLOAD_FAILURES
from mmcl.backbones.feature_backbone import FeatureBackbone, PretrainedBackbone
from mmcl.backbones.final_norm import FRESH, check_final_norm, fresh_norm
from mmcl.backbones.weight_files import check_file, download, load_exactly, read_tensors, reason_of
from mmcl.config.schema import ComponentConfig, setting
from mmcl.errors import UserError, nearest

LIST_MODELS = "python -c \"import timm; print(*timm.list_models('vit*'), sep='\\n')\""
NORMS = ("fc_norm", "norm")


@dataclass
class TimmConfig(ComponentConfig):
    """Keys of a timm model."""

    model: str = setting("Name of the timm model, with the tag of its weights behind a point.")
    pretrained: bool = setting("Take published weights: those at url, or timm's of the tag; false begins at random.")
    url: str | None = setting("Address of the published weights; null takes timm's.")
    checkpoint: str | None = setting("File of weights that are taken instead of published ones; null takes none.")
    final_norm: str = setting(
        "fresh: a new layer norm in place of the trained last one, as SLCA; kept: the trained one."
    )
    model_args: dict[str, Any] = setting("Arguments of the timm model, such as img_size and depth; {} for none.")

    def __post_init__(self) -> None:
        """Refuse other norms."""
        check_final_norm(self.final_norm)


class TimmNet(FeatureBackbone):
    """A timm model without classifier.

    Args:
        net: the model, built with ``num_classes=0``.
    """

    def __init__(self, net: Any) -> None:
        super().__init__(int(getattr(net, "head_hidden_size", None) or net.num_features))
        self.net = net
        embedding = getattr(net, "patch_embed", None)
        strict = getattr(embedding, "strict_img_size", False)
        self._image_size: tuple[int, int] | None = tuple(embedding.img_size) if strict else None  # type: ignore[union-attr]

    def forward(self, images: Tensor) -> Tensor:
        """Return the features ``(B, D)`` of images ``(B, 3, H, W)``; a transformer's is its class token.

        Raises:
            UserError: the model takes images of another size.
        """
        size = tuple(images.shape[2:])
        if self._image_size is not None and size != self._image_size:
            raise UserError(
                f"the benchmark serves images of {size}, the backbone reads {self._image_size}. Choose a benchmark "
                "such as cifar100_224, or type another size as backbone.model_args.img_size"
            )
        features: Tensor = self.net(images)
        return features


class TimmBackbone(PretrainedBackbone):
    """A timm model by name. Cheap until :meth:`load`.

    Raises:
        UserError: no such model, weights, argument or file; a fresh norm for a model without a final layer norm.
    """

    Config: ClassVar[type[TimmConfig]] = TimmConfig
    config: TimmConfig

    def __init__(self, config: TimmConfig) -> None:
        super().__init__(config)
        _check_name(config)
        check_file(config.checkpoint, config.model)
        with torch.device("meta"):
            net = self._built(pretrained=False)
        self._norm = _final_norm(net, config.model) if config.final_norm == FRESH else None

    def load(self) -> TimmNet:
        """Build the model with its weights.

        Raises:
            UserError: the weights cannot be fetched or read, or are another model's.
        """
        with torch.device("cpu"):
            if self.config.checkpoint is None and not self.config.pretrained:
                return self._finished(self._built(pretrained=False))
            # The random initialisation is overwritten; the run's own draws shall not notice it.
            with torch.random.fork_rng(devices=[]):
                return self._finished(self._with_weights())

    def _finished(self, net: Any) -> TimmNet:
        if self._norm is not None:
            setattr(net, self._norm, fresh_norm(getattr(net, self._norm).normalized_shape[0]))
        return TimmNet(net)

    def _with_weights(self) -> Any:
        if self.config.checkpoint is not None:
            return self._from_file(Path(self.config.checkpoint).expanduser())
        logging.getLogger("huggingface_hub").setLevel(
            logging.CRITICAL
        )  # it would tell of every try; the error says all
        try:
            if self.config.url is None:
                return self._built(pretrained=True)
            file = download(self.config.url)
        except DOWNLOAD_FAILURES as error:
            raise UserError(
                f"cannot fetch the weights of backbone={self.config.name} ({reason_of(error)}). On a machine with a "
                f"network download {_place(self.config)}, copy it anywhere on this machine and type "
                "backbone.checkpoint=FILE"
            ) from error
        return self._from_file(file)

    def _from_file(self, file: Path) -> Any:
        net = self._built(pretrained=False)
        classifier = net.pretrained_cfg.get("classifier") or ()
        heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
        left_out = (*heads, self._norm) if self._norm else heads
        load_exactly(net, read_tensors(file), file, self.config.model, left_out)
        return net

    def _built(self, pretrained: bool) -> Any:
        try:
            return timm.create_model(
                self.config.model, pretrained=pretrained, num_classes=0, **dict(self.config.model_args)
            )
        except (TypeError, AssertionError) as error:
            raise UserError(
                f"backbone.model_args={dict(self.config.model_args)}: {self.config.model} cannot be built so: {error}"
            ) from error


def _check_name(config: TimmConfig) -> None:
    """Refuse unknown models, and unknown weights of known ones."""
    base, _, tag = config.model.partition(".")
    if not timm.is_model(base):
        hint = nearest(base, timm.list_models())
        raise UserError(f"backbone.model={config.model}: timm has no such model.{hint} To list them: {LIST_MODELS}")
    tags = [name.partition(".")[2] for name in timm.list_pretrained(f"{base}.*")]
    if tag and tag not in tags:
        known = ", ".join(tags) or "none"
        raise UserError(f"backbone.model={config.model}: no such weights.{nearest(tag, tags)} Known tags: {known}")
    if config.pretrained and config.url is None and config.checkpoint is None and not tags:
        raise UserError(
            f"backbone.model={config.model}: no weights are published. Type backbone.pretrained=false to begin at "
            "random, or backbone.checkpoint=FILE"
        )


def _final_norm(net: Any, model: str) -> str:
    """Return the name of the last layer norm."""
    for name in NORMS:
        norm = getattr(net, name, None)
        if isinstance(norm, nn.LayerNorm) and not isinstance(norm, LayerNorm2d):
            return name
    raise UserError(
        f"backbone.final_norm=fresh: {model} has no layer norm as its last layer. Type backbone.final_norm=kept"
    )


def _place(config: TimmConfig) -> str:
    """Say which file holds the published weights and where it is."""
    if config.url is not None:
        return f"the file {config.url}"
    source = timm.get_pretrained_cfg(config.model)
    if source is not None and source.hf_hub_id:
        return f"{source.hf_hub_filename or 'model.safetensors'} from the hub repository {source.hf_hub_id}"
    return f"the file {source.url}" if source is not None and source.url else "them"
