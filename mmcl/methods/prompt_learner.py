"""Prompts "context class." whose context is a few vectors in place of word embeddings, shared by all classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from mmcl.backbones.dual_encoder import DualEncoder
from mmcl.errors import UserError
from mmcl.methods.context_learner import ContextLearner

CONTEXT_SPREAD = 0.02


def text_encoder_of(encoder: DualEncoder | None, method: str) -> DualEncoder:
    """Return the encoder, which a method that learns prompts cannot do without.

    Raises:
        UserError: there is none, because the features come from a file.
    """
    if encoder is None:
        raise UserError(
            f"{method} learns prompts through the text encoder, and features from a file come without one. Type "
            "method.learns=shift, which shifts the text features instead, or choose a benchmark with a backbone, such "
            "as benchmark=shapes"
        )
    return encoder


class PromptLearner(ContextLearner):
    """The prompts of a data set's classes, behind a context of n vectors ``(n, W)``.

    Args:
        encoder: encodes the prompts; stays outside, so that no state holds its weights.
        class_names: names of the C classes; underscores are read as spaces.
        context: n words before the class name, each of one token.
        prompts_at_once: prompts that the encoder sees at once.

    Attributes:
        tokens: int64 ``(C, L)``; they say where each prompt ends.
        embedded: embeddings of all tokens, those of the context's words included ``(C, L, W)``.
        position: of the context in the prompts.

    Raises:
        UserError: a word of the context is several tokens, or a prompt is too long.
    """

    tokens: Tensor
    embedded: Tensor

    def __init__(self, encoder: DualEncoder, class_names: Sequence[str], context: str, prompts_at_once: int) -> None:
        super().__init__(len(class_names), prompts_at_once)
        self._outside = (encoder,)
        sentences = [f"{context} {name.replace('_', ' ')}." for name in class_names]
        tokens = encoder.tokenize(sentences)
        self.position = context_position(encoder, context)
        words = encoder.tokenize([context])[0, self.position]
        if not bool((tokens[:, self.position] == words).all()):
            raise UserError(f"the words of {context!r} change their tokens before a class name: choose other words")
        self.register_buffer("tokens", tokens, persistent=False)
        with torch.no_grad():
            self.register_buffer("embedded", encoder.embed_tokens(tokens).detach().clone(), persistent=False)

    def initial_context(self) -> Tensor:
        """Return the embeddings of the context's own words ``(n, W)``."""
        return self.embedded[0, self.position].clone()

    def drawn_context(self, generator: torch.Generator) -> Tensor:
        """Draw vectors ``(n, W)`` around 0 with the standard deviation of CoOp's code."""
        return CONTEXT_SPREAD * torch.randn(self.initial_context().shape, generator=generator)

    def classifiers(self, contexts: Tensor, classes: slice = slice(None)) -> Tensor:
        """Encode the prompts of some classes under contexts ``(B, n, W)``: unit rows ``(B, P, D)``."""
        embedded, tokens = self.embedded[classes], self.tokens[classes]
        count = len(contexts)
        before, after = embedded[:, : self.position.start], embedded[:, self.position.stop :]
        parts = [
            before.expand(count, *before.shape),
            contexts[:, None].expand(count, len(embedded), *contexts.shape[1:]),
            after.expand(count, *after.shape),
        ]
        prompts = torch.cat(parts, dim=2).flatten(0, 1)
        encoder = self._outside[0].to(tokens.device)
        encoded = encoder.encode_embedded(prompts, tokens.repeat(count, 1))
        return normalize(encoded, dim=1).reshape(count, len(embedded), -1)


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
