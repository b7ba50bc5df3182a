from __future__ import annotations

import open_clip
import pytest
import torch

from mmcl.texts.tokens import cut_tokens

TOKENIZER = open_clip.SimpleTokenizer()


@pytest.mark.parametrize("words", [74, 75, 76, 200])
def test_rows_are_those_of_the_tokenizer(words: int) -> None:
    sentences = ["Herons hunt at dawn\nand  at dusk.", "heron " * words, ""]
    rows = cut_tokens(TOKENIZER, sentences, 77)
    assert torch.equal(rows.tokens, TOKENIZER(sentences, 77))
    assert rows.tokens.dtype == torch.int64
    assert rows.cut == (words > 75)


def test_line_ends_are_blanks() -> None:
    first, second = cut_tokens(TOKENIZER, ["at dawn\nand at dusk", "At  dawn and at dusk"], 16).tokens
    assert torch.equal(first, second)


def test_no_sentences_are_no_rows() -> None:
    assert cut_tokens(TOKENIZER, [], 77).tokens.shape == (0, 77)
