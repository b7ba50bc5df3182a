from __future__ import annotations

import pytest
import torch

from mmcl.errors import UserError
from mmcl.methods.entropy import average_entropy, confident_count, confident_mean, confident_views, view_entropy


def test_confident_views_are_those_of_lowest_entropy_and_the_first_of_equals() -> None:
    probabilities = torch.tensor([[0.5, 0.5], [0.9, 0.1], [0.5, 0.5], [0.1, 0.9]])
    assert confident_views(view_entropy(probabilities), 3).tolist() == [1, 3, 0]
    torch.testing.assert_close(confident_mean(probabilities, 1), probabilities[1])
    torch.testing.assert_close(confident_mean(probabilities[None].expand(2, -1, -1), 2), torch.full((2, 2), 0.5))


def test_a_share_is_cut_in_binary_floating_point() -> None:
    assert confident_count(100, 0.29) == 28
    assert confident_count(32, 0.1) == 3
    assert confident_count(1, 1.0) == 1


@pytest.mark.parametrize(("views", "share"), [(8, 0.1), (1, 0.99), (4, 1.3)])
def test_a_share_that_keeps_no_view_or_too_many_is_refused(views: int, share: float) -> None:
    with pytest.raises(UserError, match="at least 1 and at most all"):
        confident_count(views, share)


def test_average_entropy_is_that_of_the_mean_prediction() -> None:
    logits = 5 * torch.randn(3, 6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mean = logits.softmax(dim=2).mean(dim=1)
    torch.testing.assert_close(average_entropy(logits), -(mean * mean.log()).sum(dim=1))
    certain = torch.tensor([[1000.0, 0.0], [1000.0, 0.0]])
    assert average_entropy(certain) == 0.0
