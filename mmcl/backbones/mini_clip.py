"""The mini CLIP: an ``open_clip`` model of a tiny configuration that ships with the package.

A ResNet of four blocks with attention pooling, as OpenAI's RN50, and a text transformer of two layers; 1.4 million
numbers, stored as float16. It was trained on the web of the ``shapes`` world by ``experiments/mini_clip/train.py`` and
reads 32x32 images. Its weights file carries, as metadata, the model's configuration and the words of its tokenizer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from open_clip import CLIP
from open_clip.model import CLIPTextCfg, CLIPVisionCfg
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mmcl.backbones.dual_encoder import DualEncoder
from mmcl.config.schema import ComponentConfig, setting
from mmcl.errors import UserError

SHIPPED_WEIGHTS = Path(__file__).with_name("mini_clip.safetensors")
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
ARCHITECTURE: dict[str, Any] = {
    "embed_dim": 64,
    "vision_cfg": {"layers": [1, 1, 1, 1], "width": 16, "image_size": 32},
    "text_cfg": {"layers": 2, "width": 64, "heads": 2, "context_length": 32},
}
_PAD, _UNKNOWN, _START = 0, 1, 2
_SPECIAL = ("<pad>", "<unk>", "<start>")
_END = "<end>"
_MADE_BY = "experiments/mini_clip/train.py"


class WordTokenizer:
    """Splits sentences into known words; what it does not know becomes ``<unk>``, punctuation is dropped.

    Args:
        words: the vocabulary. Ids follow its order after ``<pad>``, ``<unk>`` and ``<start>``; ``<end>`` comes last,
            since CLIP's text tower reads its output at the largest id.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.words = (*_SPECIAL, *words, _END)
        self._ids = {word: number for number, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words)

    def __repr__(self) -> str:
        return f"WordTokenizer({self.words!r})"

    def __call__(self, texts: Sequence[str], context_length: int) -> Tensor:
        """Return token ids, int64 ``(P, context_length)``, padded with 0.

        A sentence that is too long is cut so that its last token is ``<end>``; :class:`DualEncoder` refuses those.
        """
        tokens = torch.full((len(texts), context_length), _PAD)
        for row, text in enumerate(texts):
            ids = [_START, *(self._ids.get(word, _UNKNOWN) for word in split_words(text))][: context_length - 1]
            tokens[row, : len(ids) + 1] = torch.tensor([*ids, len(self) - 1])
        return tokens

    def decode(self, tokens: Tensor) -> str:
        """Return the words of one row of tokens ``(L,)`` joined by spaces, without start, end and padding."""
        left_out = (_PAD, _START, len(self) - 1)
        return " ".join(self.words[token] for token in tokens.tolist() if token not in left_out)


def split_words(sentence: str) -> list[str]:
    """Return the words of a sentence in lower case: runs of letters and digits."""
    return re.findall(r"[a-z0-9]+", sentence.lower())


def build_model(architecture: dict[str, Any], vocabulary_size: int) -> CLIP:
    """Build the model with random weights; keys of ``architecture`` are those of :data:`ARCHITECTURE`."""
    return CLIP(
        architecture["embed_dim"],
        CLIPVisionCfg(**architecture["vision_cfg"]),
        CLIPTextCfg(**architecture["text_cfg"], vocab_size=vocabulary_size),
    )


@dataclass
class MiniClipConfig(ComponentConfig):
    """Keys of the mini CLIP."""

    weights: str | None = setting(f"Weights file as {_MADE_BY} writes it; null takes the shipped one.")


class MiniClip:
    """The mini CLIP as a backbone: cheap to make, read from its file by :meth:`load`.

    Args:
        config: the backbone's keys.

    Raises:
        UserError: the weights file is not there.
    """

    Config: ClassVar[type[MiniClipConfig]] = MiniClipConfig
    shipped_files: ClassVar[dict[str, Path]] = {"weights": SHIPPED_WEIGHTS}

    def __init__(self, config: MiniClipConfig) -> None:
        self.config = config
        self.path = SHIPPED_WEIGHTS if config.weights is None else Path(config.weights).expanduser()
        if not self.path.is_file():
            raise UserError(
                f"backbone.weights={self.path}: no such file. backbone.weights=null takes the shipped weights; "
                f"python {_MADE_BY} --out FILE trains others."
            )

    def load(self) -> DualEncoder:
        """Read the weights and return the frozen encoders on the CPU, float32, in eval mode.

        Raises:
            UserError: the file is damaged or not of a mini CLIP.
        """
        weights, metadata = _read(self.path)
        architecture, words = metadata["architecture"], metadata["words"]
        tokenizer = WordTokenizer(words)
        with torch.device("cpu"):
            model = build_model(architecture, len(tokenizer))
        try:
            model.load_state_dict(weights)
        except RuntimeError as error:
            raise UserError(f"backbone.weights={self.path}: not the weights of its architecture: {error}") from error
        return DualEncoder(model, tokenizer, MEAN, STD)


def weights_metadata(architecture: dict[str, Any], words: Sequence[str]) -> dict[str, str]:
    """Return what a weights file says beside its tensors, as safetensors metadata."""
    return {"architecture": json.dumps(architecture), "words": json.dumps(list(words))}


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return tensors as float32, and the metadata."""
    try:
        with safe_open(path, "pt") as file:
            metadata = {name: json.loads(text) for name, text in (file.metadata() or {}).items() if name != "format"}
            weights = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, json.JSONDecodeError) as error:
        raise UserError(f"backbone.weights={path}: not a readable safetensors file: {error}. Make it anew.") from error
    if not {"architecture", "words"} <= metadata.keys():
        raise UserError(f"backbone.weights={path}: has no architecture and words; expected a file of {_MADE_BY}.")
    return weights, metadata
