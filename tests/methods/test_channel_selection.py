from __future__ import annotations

import itertools

import torch
from torch.nn.functional import normalize

from mmcl.methods.channel_selection import channel_mask, channel_scores, important_channels


def test_scores_are_those_over_all_pairs_of_classes() -> None:
    text = normalize(torch.randn(5, 8, generator=torch.Generator().manual_seed(0)), dim=1).double()
    pairs = [text[first] * text[second] for first, second in itertools.permutations(range(5), 2)]
    expected = -0.7 * torch.stack(pairs).mean(dim=0) + 0.3 * text.var(dim=0)
    torch.testing.assert_close(channel_scores(text, 0.7), expected)


def test_no_count_means_all_channels() -> None:
    text = normalize(torch.randn(5, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    assert channel_mask(text, 0, 0.7).tolist() == [1.0] * 8
    mask = channel_mask(text, 3, 0.7)
    assert mask.nonzero().flatten().tolist() == sorted(important_channels(text, 3, 0.7).tolist())
