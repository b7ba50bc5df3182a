"""CLIP models by name, through open_clip, with the weights that belong to them (Radford et al., ICML 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import open_clip
import torch

from mmcl.backbones.clip_weights import QUICKGELU, fetch_weights, load_weights, published_weights, read_weights
from mmcl.backbones.dual_encoder import OPENAI_MEAN, OPENAI_STD, DualEncoder
from mmcl.config.schema import ComponentConfig, setting
from mmcl.errors import UserError, nearest

INTERPOLATIONS = ("bicubic", "bilinear")
OWN_FEATURES = "benchmark=features paths.features=FILE"
LIST_MODELS = "python -c \"import open_clip; print(*open_clip.list_models(), sep='\\n')\""


@dataclass
class ClipConfig(ComponentConfig):
    """Keys of a CLIP model."""

    model: str = setting(
        "Name of the open_clip model; weights trained with QuickGELU need a name ending in -quickgelu."
    )
    pretrained: str | None = setting("open_clip's tag of the weights, such as openai; null for weights of your own.")
    checkpoint: str | None = setting("File that holds the weights; null downloads those that pretrained names.")
    image_interpolation: str = setting("How images are resized: bicubic or bilinear, as in the model's training.")


class ClipBackbone:
    """An open_clip model by name, with published weights or a file. Cheap until :meth:`load`.

    Raises:
        UserError: no such model or weights, weights that were trained with another activation or kind of image
            than the model would get, or no such file.
    """

    Config: ClassVar[type] = ClipConfig

    def __init__(self, config: ClipConfig) -> None:
        self.config = config
        self._architecture = _architecture(config.model)
        if config.pretrained is None and config.checkpoint is None:
            raise UserError(
                "backbone.pretrained and backbone.checkpoint are both null: expected one. Type backbone.pretrained=TAG "
                f"({_known_tags(config.model)}) or backbone.checkpoint=FILE"
            )
        if config.pretrained is not None:
            _check_tag(config.model, config.pretrained, bool(self._architecture.get("quick_gelu", False)))
        self._preprocessing = _preprocessing(config.model, config.pretrained)
        _check_preprocessing(config, self._preprocessing)
        if config.checkpoint is not None and not Path(config.checkpoint).expanduser().is_file():
            raise UserError(
                f"backbone.checkpoint={config.checkpoint}: no such file. Expected weights of {config.model}"
            )

    def load(self) -> DualEncoder:
        """Build the model with its weights: frozen, in eval mode, float32, on the CPU.

        Raises:
            UserError: the weights cannot be fetched or read, or are another model's.
        """
        name, file = self.config.model, self._file()
        weights = read_weights(file)
        # The random initialisation is overwritten; the run's own draws shall not notice it.
        with torch.device("cpu"), torch.random.fork_rng(devices=[]):
            model = _build(self._architecture).float()
        load_weights(model, weights, file, name)
        tokenizer = open_clip.SimpleTokenizer(**self._architecture["text_cfg"].get("tokenizer_kwargs", {}))
        return DualEncoder(
            model,
            tokenizer,
            self._preprocessing.get("mean", OPENAI_MEAN),
            self._preprocessing.get("std", OPENAI_STD),
            self.config.image_interpolation,
        )

    def _file(self) -> Path:
        if self.config.checkpoint is not None:
            return Path(self.config.checkpoint).expanduser()
        return fetch_weights(self.config.model, str(self.config.pretrained))


def _architecture(model: str) -> dict[str, Any]:
    """Return open_clip's description of a model whose towers and tokenizer are open_clip's or timm's."""
    architecture: dict[str, Any] | None = (
        open_clip.get_model_config(model) if model in open_clip.list_models() else None
    )
    if architecture is None:
        hint = nearest(model, open_clip.list_models())
        raise UserError(f"backbone.model={model}: open_clip has no such model.{hint} To list them: {LIST_MODELS}")
    text = architecture["text_cfg"]
    if "multimodal_cfg" in architecture or text.get("hf_model_name") or text.get("hf_tokenizer_name"):
        raise UserError(
            f"backbone.model={model}: its text side is not open_clip's own. Expected a model such as ViT-B-16; to use "
            f"this one, bring its features: {OWN_FEATURES}"
        )
    return architecture


def _build(architecture: Mapping[str, Any]) -> Any:
    keys = {key: value for key, value in architecture.items() if key != "custom_text"}
    kind = open_clip.CustomTextCLIP if architecture.get("custom_text", False) else open_clip.CLIP
    return kind(**keys)


def _base(model: str) -> str:
    return model.removesuffix(QUICKGELU)


def _trained_with_quickgelu(model: str, tag: str) -> bool:
    """Whether published weights had QuickGELU: OpenAI's, and those that open_clip lists under such a name."""
    return tag.lower() == "openai" or bool(open_clip.get_pretrained_cfg(_base(model) + QUICKGELU, tag))


def _tags(model: str) -> list[str]:
    """Return the tags of a model and its twin with the other activation."""
    names = (_base(model), _base(model) + QUICKGELU)
    return list(dict.fromkeys(tag for name in names for tag in open_clip.list_pretrained_tags_by_model(name)))


def _known_tags(model: str) -> str:
    fitting = [tag for tag in _tags(model) if _trained_with_quickgelu(model, tag) == model.endswith(QUICKGELU)]
    return ", ".join(fitting) or "none is published for this model"


def _check_tag(model: str, tag: str, quickgelu: bool) -> None:
    """Refuse unknown tags, and weights that were trained with another activation than the model has."""
    if not published_weights(model, tag):
        hint = nearest(tag, _tags(model))
        raise UserError(f"backbone.pretrained={tag}: {model} has no such weights.{hint} Known: {_known_tags(model)}")
    if _trained_with_quickgelu(model, tag) and not quickgelu:
        raise UserError(
            f"backbone.model={model}: the weights '{tag}' were trained with QuickGELU, this model has GELU. Type "
            f"backbone.model={_base(model)}{QUICKGELU}"
        )
    if quickgelu and not _trained_with_quickgelu(model, tag):
        raise UserError(
            f"backbone.model={model}: the weights '{tag}' were trained with GELU, this model has QuickGELU. Type "
            f"backbone.model={_base(model)}"
        )


def _preprocessing(model: str, tag: str | None) -> dict[str, Any]:
    """Return what the weights expect of images; for weights without a tag, what all tags of the model agree on."""
    known = [published_weights(model, each) for each in ([tag] if tag is not None else _tags(model))]
    keys = ("mean", "std", "interpolation", "resize_mode")
    return {key: known[0][key] for key in keys if known and all(each.get(key) == known[0].get(key) for each in known)}


def _check_preprocessing(config: ClipConfig, preprocessing: Mapping[str, Any]) -> None:
    if config.image_interpolation not in INTERPOLATIONS:
        hint = nearest(config.image_interpolation, INTERPOLATIONS)
        raise UserError(
            f"backbone.image_interpolation={config.image_interpolation}: expected bicubic or bilinear.{hint}"
        )
    trained = preprocessing.get("interpolation", config.image_interpolation)
    if config.image_interpolation != trained:
        raise UserError(
            f"backbone.image_interpolation={config.image_interpolation}: these weights were trained with {trained} "
            f"images. Type backbone.image_interpolation={trained}"
        )
    if preprocessing.get("resize_mode", "shortest") != "shortest":
        raise UserError(
            f"backbone.model={config.model}: these weights want images squashed to a square, which are cropped here. "
            f"Choose other weights, or bring features: {OWN_FEATURES}"
        )
