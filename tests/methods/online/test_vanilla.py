"""Plain online learning is plain: a loop of optimiser steps."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from tests.methods.online.learners import learn, learner, stream, weights


def test_a_linear_classifier_or_one_hidden_layer() -> None:
    assert [type(layer) for layer in learner("vanilla", "hidden=null").network] == [nn.Linear]
    network = learner("vanilla", "hidden=7").network
    assert [type(layer) for layer in network] == [nn.Linear, nn.Tanh, nn.Linear]
    assert network[0].out_features == 7


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_published_equals_a_straight_line_loop(optimizer: str) -> None:
    typed = (f"optimizer={optimizer}", "lr=0.05", "weight_decay=0.01", "hidden=6", "randomness=published")
    method = learner("vanilla", *typed, seed=1234)
    samples, labels = stream(30)
    learn(method, samples, labels)
    torch.manual_seed(1234)
    network = nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 4))
    kind = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[optimizer]
    steps = kind(network.parameters(), lr=0.05, weight_decay=0.01)
    for sample, label in zip(samples, labels, strict=True):
        steps.zero_grad()
        cross_entropy(network(sample[None]), label[None]).backward()
        steps.step()
    expected = torch.cat([parameter.detach().flatten() for parameter in network.parameters()])
    torch.testing.assert_close(weights(method), expected, rtol=1e-5, atol=1e-6)
