from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mmcl.backbones.cosine_head import CosineHead, cosine_scores, imprinted_rows


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@given(seed=st.integers(0, 1000), scale=st.floats(1e-3, 1e3))
def test_scores_are_cosines_of_directions(seed: int, scale: float) -> None:
    features, weight = drawn(3, 5, seed=seed), drawn(4, 5, seed=seed + 1)
    scores = cosine_scores(features, weight)
    assert scores.abs().max() <= 1 + 1e-6
    torch.testing.assert_close(cosine_scores(scale * features, weight / scale), scores)
    torch.testing.assert_close(cosine_scores(weight, weight).diagonal(), torch.ones(4))


def test_a_row_of_zeros_scores_zero() -> None:
    features = torch.zeros(2, 5, requires_grad=True)
    scores = cosine_scores(features, drawn(3, 5))
    assert torch.equal(scores, torch.zeros(2, 3))
    scores.sum().backward()
    assert features.grad is not None
    assert features.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_autocast_costs_no_digits(dtype: torch.dtype) -> None:
    features, weight = drawn(3, 5).to(dtype), drawn(4, 5, seed=1).to(torch.promote_types(dtype, torch.float32))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = cosine_scores(features, weight)
    assert scores.dtype == weight.dtype
    assert torch.equal(scores, cosine_scores(features.to(weight.dtype), weight))


def test_classes_so_far_become_old_and_sigma_stays() -> None:
    head = CosineHead(6)
    assert head(drawn(2, 6)).shape == (2, 0)
    head.expand(4)
    assert [len(head.weight_old), len(head.weight_new)] == [0, 4]
    nn.init.constant_(head.sigma, 3.0)
    for classes in (5, 8):
        rows = head.weight.detach().clone()
        head.expand(classes)
        assert torch.equal(head.weight_old, rows)
        assert head.weight.shape == (classes, 6)
        assert head.weight_new.abs().max() <= 6**-0.5
    trained = [name for name, parameter in head.named_parameters() if parameter.requires_grad]
    assert trained == ["weight_new", "sigma"]
    assert head.sigma.item() == 3.0


def test_new_rows_follow_the_global_generator_and_the_dtype() -> None:
    rows = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        head = CosineHead(6).double()
        head.expand(3)
        rows.append(head.weight_new)
    assert rows[0].dtype == torch.float64
    assert torch.equal(rows[0], rows[1])
    assert not torch.equal(rows[0], rows[2])


@pytest.mark.parametrize("classes", [3, 4])
def test_a_head_does_not_shrink(classes: int) -> None:
    head = CosineHead(6)
    head.expand(4)
    with pytest.raises(ValueError, match=f"4 classes cannot grow to {classes}"):
        head.expand(classes)


@given(seed=st.integers(0, 1000))
def test_imprinted_rows_point_where_their_features_do(seed: int) -> None:
    weight_old, features = drawn(3, 5, seed=seed), drawn(6, 5, seed=seed + 1)
    labels = torch.tensor([4, 3, 4, 3, 4, 4])
    rows = imprinted_rows(weight_old, features, labels, range(3, 5))
    torch.testing.assert_close(rows.norm(dim=1), weight_old.norm(dim=1).mean().expand(2))
    directions = nn.functional.normalize(features, dim=1)
    for row, label in zip(rows, (3, 4), strict=True):
        mean = directions[labels == label].mean(0)
        torch.testing.assert_close(row / row.norm(), mean / mean.norm())


def test_a_class_without_images_is_named() -> None:
    with pytest.raises(ValueError, match=r"classes \[4\]"):
        imprinted_rows(drawn(3, 5), drawn(2, 5), torch.tensor([3, 5]), range(3, 6))
