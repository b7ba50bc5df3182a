"""Prompts "context class." whose context is a few vectors in place of word embeddings, shared by all classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.utils.checkpoint import checkpoint

from mmcl.backbones.dual_encoder import DualEncoder
from mmcl.errors import UserError


def text_encoder_of(encoder: DualEncoder | None, method: str) -> DualEncoder:
    """Return the encoder, which a method that learns prompts cannot do without.

    Raises:
        UserError: there is none, because the features come from a file.
    """
    if encoder is None:
        raise UserError(
            f"{method} learns prompts through the text encoder, and features from a file come without one. "
            "Choose a benchmark with a backbone, such as benchmark=shapes, or another method, such as method=dmn"
        )
    return encoder


class PromptLearner(nn.Module):
    """The prompts of a data set's classes, behind a context of n vectors.

    It holds embeddings of tokens alone: the encoder is handed in, so that no state holds its weights.

    Args:
        encoder: whose tokens and embeddings are used.
        class_names: names of the C classes; underscores are read as spaces.
        context: n words before the class name, each of one token.

    Attributes:
        tokens: int64 ``(C, L)``; they say where each prompt ends.
        embedded: embeddings of all tokens, those of the context's words included ``(C, L, W)``.
        context: position of the context in the prompts.

    Raises:
        UserError: a word of the context is several tokens, or a prompt is too long.
    """

    tokens: Tensor
    embedded: Tensor

    def __init__(self, encoder: DualEncoder, class_names: Sequence[str], context: str) -> None:
        super().__init__()
        sentences = [f"{context} {name.replace('_', ' ')}." for name in class_names]
        tokens = encoder.tokenize(sentences)
        self.context = context_position(encoder, context)
        words = encoder.tokenize([context])[0, self.context]
        if not bool((tokens[:, self.context] == words).all()):
            raise UserError(f"the words of {context!r} change their tokens before a class name: choose other words")
        self.register_buffer("tokens", tokens, persistent=False)
        with torch.no_grad():
            self.register_buffer("embedded", encoder.embed_tokens(tokens).detach().clone(), persistent=False)

    def __len__(self) -> int:
        return len(self.tokens)

    def initial_context(self) -> Tensor:
        """Return the embeddings of the context's own words ``(n, W)``."""
        return self.embedded[0, self.context].clone()

    def classifiers(self, encoder: DualEncoder, contexts: Tensor, classes: slice = slice(None)) -> Tensor:
        """Encode the prompts of some classes under contexts ``(B, n, W)``: unit rows ``(B, P, D)``."""
        embedded, tokens = self.embedded[classes], self.tokens[classes]
        count = len(contexts)
        before, after = embedded[:, : self.context.start], embedded[:, self.context.stop :]
        parts = [
            before.expand(count, *before.shape),
            contexts[:, None].expand(count, len(embedded), *contexts.shape[1:]),
            after.expand(count, *after.shape),
        ]
        prompts = torch.cat(parts, dim=2).flatten(0, 1)
        encoded = encoder.encode_embedded(prompts, tokens.repeat(count, 1))
        return normalize(encoded, dim=1).reshape(count, len(embedded), -1)

    def parts(self, prompts_at_once: int) -> list[slice]:
        """Split the classes into parts of at most so many."""
        return [slice(start, start + prompts_at_once) for start in range(0, len(self), prompts_at_once)]

    def classifier(self, encoder: DualEncoder, context: Tensor, prompts_at_once: int) -> Tensor:
        """Encode all prompts under one context ``(n, W)``: unit rows ``(C, D)``.

        Of more classes than ``prompts_at_once``, no activations are kept: the backward pass computes them again.
        """
        parts = self.parts(prompts_at_once)
        if len(parts) == 1:
            return self.classifiers(encoder, context[None])[0]
        rows = [checkpoint(self.classifiers, encoder, context[None], part, use_reentrant=False) for part in parts]
        return torch.cat(rows, dim=1)[0]


def context_position(encoder: DualEncoder, context: str) -> slice:
    """Return where a context's words stand among the tokens of a sentence that begins with it.

    Raises:
        UserError: a word is not exactly one token.
    """
    count = len(context.split())
    empty, alone = (encoder.tokenize([sentence])[0].tolist() for sentence in ("", context))
    start = next((place for place, token in enumerate(empty) if token != alone[place]), len(empty))
    end = alone[start + count : start + count + 1]
    if count == 0 or end != empty[start : start + 1]:
        raise UserError(
            f"context {context!r}: each of its words must be one token of the text encoder. "
            "Type common words, such as method.context='a photo of a'"
        )
    return slice(start, start + count)
