"""Two frozen encoders that map images and sentences into one space (CLIP; Radford et al., ICML 2021)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from textwrap import shorten
from typing import Any

import torch
from torch import Tensor, nn

from mmcl.backbones.freezing import freeze, restore_frozen_modes
from mmcl.errors import UserError
from mmcl.texts.tokens import Tokenizer, cut_tokens

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)
MEASURED_LENGTHS = 16  # a sentence that is too long is counted up to this multiple of the context length


class DualEncoder(nn.Module):
    """An image and a text encoder, frozen, in float32, with what their inputs must look like.

    Args:
        model: an ``open_clip.CLIP``, or an ``open_clip.CustomTextCLIP`` whose text tower is open_clip's own; its
            weights are loaded.
        tokenizer: gives the numbers that the text tower was trained on.
        mean: of the normalised pixels' red, green and blue, on the scale of [0, 1].
        std: as ``mean``.
        interpolation: by which images are resized, ``bicubic`` or ``bilinear``.

    Attributes:
        dimension: length D of a feature.
        logit_scale: factor of the cosine in the model's own classification; 100 for OpenAI CLIP.
        image_size: side of the square images in pixels.
        context_length: number of tokens that a sentence may have, its start and end included.

    Raises:
        UserError: the model has another kind of text tower, or images that are not square.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Tokenizer,
        mean: Sequence[float] = OPENAI_MEAN,
        std: Sequence[float] = OPENAI_STD,
        interpolation: str = "bicubic",
    ) -> None:
        super().__init__()
        self._pooling = _pooling(model)
        self.model = freeze(model.to(memory_format=torch.channels_last))
        self.tokenizer = tokenizer
        self.mean = tuple(mean)
        self.std = tuple(std)
        self.interpolation = interpolation
        self.dimension = _dimension(self._text)
        self.context_length = int(self.model.context_length)
        self.image_size = _image_size(self.model.visual.image_size)
        self.logit_scale = float(self.model.logit_scale.exp())

    def encode_images(self, images: Tensor) -> Tensor:
        """Encode normalised images ``(B, 3, H, W)`` of ``image_size``: ``(B, D)``, not normalised."""
        features: Tensor = self.model.encode_image(images.contiguous(memory_format=torch.channels_last))
        return features

    def tokenize(self, sentences: Sequence[str]) -> Tensor:
        """Return the tokens of sentences, int64 ``(P, L)`` on the encoder's device.

        L is the length of the longest sentence where no token attends to those behind it, so that padding costs
        nothing; it is ``context_length`` otherwise.

        Raises:
            UserError: a sentence is too long; it is never cut.
        """
        limit = self.context_length
        tokens = self.tokenizer(["", *sentences], context_length=limit + 1)
        padding, tokens = tokens[0, -1], tokens[1:]
        too_long = (tokens[:, limit] != padding).nonzero().flatten().tolist()
        if too_long:
            sentence = sentences[too_long[0]]
            raise UserError(
                f"a sentence has {self._token_count(sentence)} tokens, the text encoder takes at most {limit}, start "
                "and end included. Shorten it where the prompts are kept, or type method.prompts=tip: "
                f"{shorten(sentence, 120)!r}"
            )
        return self._without_padding(tokens[:, :limit])

    def tokenize_beginnings(self, sentences: Sequence[str]) -> Tensor:
        """Return tokens as :meth:`tokenize`, of a sentence that is too long those of its beginning."""
        return self._without_padding(cut_tokens(self.tokenizer, sentences, self.context_length).tokens)

    def _without_padding(self, tokens: Tensor) -> Tensor:
        if self._ignores_padding and len(tokens):
            tokens = tokens[:, : int(self._end_of_text(tokens).max()) + 1]
        return tokens.to(self._text.token_embedding.weight.device)

    def encode_tokens(self, tokens: Tensor) -> Tensor:
        """Encode tokens ``(P, L)`` as :meth:`tokenize` gives them: ``(P, D)``, not normalised."""
        return self.encode_embedded(self.embed_tokens(tokens), tokens)

    def embed_tokens(self, tokens: Tensor) -> Tensor:
        """Look up the embeddings of tokens ``(P, L)``: ``(P, L, W)``, without positions."""
        embedded: Tensor = self._text.token_embedding(tokens)
        return embedded

    def encode_embedded(self, embedded: Tensor, tokens: Tensor) -> Tensor:
        """Encode embeddings ``(P, L, W)``, which get the gradient: ``(P, D)``, not normalised.

        Args:
            embedded: as :meth:`embed_tokens` gives them, or with learned vectors in some places.
            tokens: ``(P, L)``; they say where the end of each text is, nothing more.
        """
        text = self._text
        length = embedded.shape[1]
        states = embedded + text.positional_embedding[:length]
        mask = None if text.attn_mask is None else text.attn_mask[:length, :length]
        states = text.ln_final(_transform(text.transformer, states, mask))
        pooled: Tensor = states[torch.arange(len(states), device=states.device), self._end_of_text(tokens)]
        projection = text.text_projection
        if projection is None:
            return pooled
        features: Tensor = projection(pooled) if isinstance(projection, nn.Linear) else pooled @ projection
        return features

    @cached_property
    def digest(self) -> str:
        """What the features depend on, as 16 hex digits: bytes of the weights, kinds of the modules, the tokenizer.

        Computed once, at the first use: the weights are frozen.
        """
        words = self.tokenizer
        known = repr(words) if type(words).__repr__ is not object.__repr__ else type(words).__qualname__
        digest = hashlib.sha256(known.encode())
        for name, module in self.model.named_modules():
            # Two models may differ in activation or number of heads alone, which no weight shows.
            digest.update(f"{name} {type(module).__name__} {getattr(module, 'num_heads', '')}\n".encode())
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()[:16]

    def train(self, mode: bool = True) -> DualEncoder:
        """Stay in eval mode: the encoders are frozen."""
        super().train(mode)
        restore_frozen_modes(self)
        return self

    @property
    def _text(self) -> Any:
        return getattr(self.model, "text", self.model)

    @property
    def _ignores_padding(self) -> bool:
        return self._text.attn_mask is not None and self._pooling != "last"

    def _end_of_text(self, tokens: Tensor) -> Tensor:
        """Return the position ``(P,)`` at which the text tower is read."""
        if self._pooling == "last":
            return torch.full((len(tokens),), tokens.shape[1] - 1, device=tokens.device)
        if self._pooling == "eos":
            end: int = self._text.text_eos_id if hasattr(self._text, "text_eos_id") else self._text.eos_id
            return tokens.eq(end).int().argmax(dim=1)
        return tokens.argmax(dim=1)  # the end of text has the highest number

    def _token_count(self, sentence: str) -> int:
        tokens = self.tokenizer(["", sentence], context_length=MEASURED_LENGTHS * self.context_length)
        return int((tokens[1] != tokens[0, -1]).nonzero().max()) + 1


def _pooling(model: Any) -> str:
    """Return where the text tower is read; it must be open_clip's own and read at one of the tokens."""
    text = getattr(model, "text", model)
    pooling = str(getattr(text, "text_pool_type", getattr(text, "pool_type", None)))
    own = hasattr(text, "token_embedding") and getattr(text, "cls_emb", None) is None
    if own and pooling in ("argmax", "eos", "last") and not getattr(text, "use_pad_mask", False):
        return pooling
    raise UserError(
        f"{type(model).__name__} has a text tower of another kind: expected open_clip's own, read at the end of the "
        "text. Choose another backbone, such as backbone=clip_vit_b16"
    )


def _dimension(text: Any) -> int:
    projection = text.text_projection
    if projection is None:
        return len(text.ln_final.weight)
    return int(projection.out_features if isinstance(projection, nn.Linear) else projection.shape[1])


def _image_size(size: int | Sequence[int]) -> int:
    height, width = (size, size) if isinstance(size, int) else size
    if height != width:
        raise UserError(f"the image encoder takes {height} x {width} pixels: expected square images")
    return height


def _transform(transformer: Any, states: Tensor, mask: Tensor | None) -> Tensor:
    """Run the blocks over states ``(P, L, W)``."""
    sequence_first = not hasattr(transformer, "batch_first")  # open_clip before 2.25
    states = states.transpose(0, 1) if sequence_first else states
    transformed: Tensor = transformer(states, attn_mask=mask)
    return transformed.transpose(0, 1) if sequence_first else transformed
