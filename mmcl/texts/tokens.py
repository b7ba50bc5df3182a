"""Tokens of sentences that may be too long: articles are cut where a prompt would be refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from torch import Tensor


class Tokenizer(Protocol):
    """Turns sentences into numbers, as the tokenizers of open_clip do."""

    def __call__(self, texts: list[str], context_length: int) -> Tensor:
        """Return int64 ``(P, context_length)``, padded at the end.

        A sentence that is too long is cut so that its last token is the end of text.
        """
        ...


class CutTokens(NamedTuple):
    """Tokens of P sentences, int64 ``(P, L)``, and how many of the sentences were cut to L tokens."""

    tokens: Tensor
    cut: int


def cut_tokens(tokenizer: Tokenizer, sentences: Sequence[str], context_length: int) -> CutTokens:
    """Tokenise sentences, keeping the beginning of those that are too long, as MML does (Kang et al., TMLR 2025).

    Args:
        tokenizer: such as ``open_clip.SimpleTokenizer()``.
        sentences: P texts.
        context_length: tokens L of a row, start and end included; 77 for CLIP.

    Returns:
        Rows padded at the end; a sentence that was cut has the end of text as its last token. They equal
        ``tokenizer(sentences, context_length)``.
    """
    # One token more than fits tells what is cut; an empty text tells what stands for padding.
    tokens = tokenizer(["", *sentences], context_length=context_length + 1)
    padding, tokens = tokens[0, -1], tokens[1:]
    too_long = tokens[:, context_length] != padding
    tokens[too_long, context_length - 1] = tokens[too_long, context_length]
    return CutTokens(tokens[:, :context_length].contiguous(), int(too_long.sum()))
