"""An ensemble: different beginnings, mean logits, one loss."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from tests.methods.online.learners import learn, learner, stream, weights


def test_the_score_is_the_mean_of_different_members() -> None:
    method = learner("ensemble", "members=3")
    samples, _ = stream(6)
    single = [member(samples) for member in method.network.members]
    assert not torch.allclose(single[0], single[1])
    torch.testing.assert_close(method.scores(samples)["head"], sum(single) / 3)


def test_published_equals_a_straight_line_loop() -> None:
    typed = ("members=2", "hidden=5", "lr=0.02", "randomness=published")
    method = learner("ensemble", *typed, seed=1234)
    samples, labels = stream(25)
    learn(method, samples, labels)
    torch.manual_seed(1234)
    _, *members = (nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 4)) for _ in range(3))
    parameters = [parameter for member in members for parameter in member.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=0.02)
    for sample, label in zip(samples, labels, strict=True):
        optimizer.zero_grad()
        logits = (members[0](sample[None]) + members[1](sample[None])) / 2
        cross_entropy(logits, label[None]).backward()
        optimizer.step()
    expected = torch.cat([parameter.detach().flatten() for parameter in parameters])
    torch.testing.assert_close(weights(method), expected, rtol=1e-4, atol=1e-5)
