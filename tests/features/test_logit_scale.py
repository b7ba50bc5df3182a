"""The fitted logit scale is the temperature of the data."""

from __future__ import annotations

import torch

from mmcl.features.logit_scale import CANDIDATES, best_scale, scale_losses


def test_the_scale_that_made_the_labels_is_found() -> None:
    generator = torch.Generator().manual_seed(0)
    classifier = torch.nn.functional.normalize(torch.randn(10, 16, generator=generator), dim=1)
    features = 3 * torch.nn.functional.normalize(torch.randn(4000, 16, generator=generator), dim=1)
    probabilities = (20 * features @ classifier.T / 3).softmax(dim=1)
    labels = torch.multinomial(probabilities, 1, generator=generator)[:, 0]
    losses = scale_losses(features, labels, classifier)
    assert losses.shape == CANDIDATES.shape
    assert 17 < best_scale(losses) < 23.5
