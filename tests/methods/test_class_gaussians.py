"""Class Gaussians against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmcl.methods.class_gaussians import (
    RIDGE,
    ClassGaussians,
    class_statistics,
    draw_gaussian,
    shrinkage,
    triangular_factors,
)
from mmcl.randomness import generator


def _features(count: int = 60, dimension: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    numbers = torch.Generator().manual_seed(0)
    return torch.randn(count, dimension, generator=numbers) @ torch.randn(dimension, dimension, generator=numbers), (
        torch.arange(count) % 3
    )


def test_statistics_are_those_of_numpy() -> None:
    features, labels = _features()
    means, covariances = class_statistics(features, labels, 1, 3)
    assert means.dtype == torch.float64
    assert covariances.dtype == torch.float32
    for row, label in enumerate((1, 2)):
        own = features[labels == label].double().numpy()
        np.testing.assert_allclose(means[row], own.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(covariances[row], np.cov(own.T) + RIDGE * np.eye(4), rtol=1e-6, atol=1e-7)


def test_a_class_of_one_sample_can_be_drawn() -> None:
    means, covariances = class_statistics(torch.ones(1, 3), torch.zeros(1).long(), 0, 1)
    drawn = draw_gaussian(means[0], triangular_factors(covariances)[0], 50, generator(0))
    assert (drawn - 1).abs().max() < 6 * RIDGE**0.5


def test_more_channels_than_samples_can_be_factored() -> None:
    features = 30 * torch.randn(8, 64, generator=torch.Generator().manual_seed(0))
    _, covariances = class_statistics(features, torch.zeros(8).long(), 0, 1)
    factors = triangular_factors(covariances)
    torch.testing.assert_close(factors @ factors.mT, covariances, rtol=1e-4, atol=1e-3)


def test_draws_have_mean_and_covariance_and_are_keyed() -> None:
    features, labels = _features()
    means, covariances = class_statistics(features, labels, 0, 1)
    factor = triangular_factors(covariances)[0]
    drawn = draw_gaussian(means[0], factor, 20000, generator("draw"))
    assert torch.equal(drawn, draw_gaussian(means[0], factor, 20000, generator("draw")))
    assert drawn.dtype == torch.float32
    again_means, again_covariances = class_statistics(drawn, torch.zeros(20000).long(), 0, 1)
    scale = covariances.abs().max().item()
    assert (again_means - means).abs().max() < 5 * (scale / 20000) ** 0.5
    assert (again_covariances - covariances).abs().max() < 0.1 * scale


@pytest.mark.parametrize(("task", "current", "factor"), [(0, 0, 1.0), (0, 1, 0.95), (1, 1, 1.0), (4, 9, 0.95)])
def test_means_shrink_with_their_age(task: int, current: int, factor: float) -> None:
    assert shrinkage(torch.tensor([task]), current).item() == pytest.approx(factor)


def test_old_classes_keep_their_statistics_and_all_are_saved() -> None:
    features, labels = _features()
    gaussians = ClassGaussians(4)
    gaussians.add(features, labels, 2)
    old = gaussians.means.clone()
    gaussians.add(5 * features, labels, 3)
    assert torch.equal(gaussians.means[:2], old)
    assert len(gaussians) == 3
    assert gaussians.nbytes == 3 * (4 * 8 + 16 * 4)
    other = ClassGaussians(4)
    other.load_state_dict(gaussians.state_dict())
    assert torch.equal(other.covariances, gaussians.covariances)
    assert not list(gaussians.buffers())
