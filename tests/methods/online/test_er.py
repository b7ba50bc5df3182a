"""Experience replay: what is replayed when, and the order of the published random numbers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mmcl.memory.stream_buffer import RandomBuffer, ReservoirBuffer
from tests.methods.online.learners import learn, learner, stream, weights


@pytest.mark.parametrize(("policy", "kind"), [("reservoir", ReservoirBuffer), ("random", RandomBuffer)])
def test_the_policy_chooses_the_buffer(policy: str, kind: type) -> None:
    assert type(learner("er", f"policy={policy}").memory) is kind


def test_no_sample_is_replayed_in_its_own_step() -> None:
    method = learner("er", "buffer_size=3")
    samples, labels = stream(2)
    learn(method, samples[:1], labels[:1])
    assert method.replay_loss == 0
    assert torch.equal(method.memory_rows()["samples"], samples[:1])
    before = cross_entropy(method.network(samples[:1]), labels[:1]).detach()
    learn(method, samples[1:], labels[1:])
    torch.testing.assert_close(method.replay_loss, before)


def test_the_loss_of_replay_is_reported_beside_that_of_the_stream() -> None:
    method = learner("er")
    learn(method, *stream(12))
    sums, count = method.epoch_loss_sums()
    assert count == 12
    assert set(sums) == {"cross_entropy", "replay"}
    assert sums["replay"] > 0


def test_a_step_is_one_of_the_sum_of_both_gradients() -> None:
    method = learner("er", "optimizer=sgd", "lr=0.1", "replay_size=4", "buffer_size=4")
    samples, labels = stream(5)
    method.memory.store(samples[:4], labels[:4], method.numbers())
    parameters = list(method.network.parameters())
    loss = cross_entropy(method.network(samples[4:]), labels[4:]) + cross_entropy(
        method.network(samples[:4]), labels[:4]
    )
    gradient = torch.cat([part.flatten() for part in torch.autograd.grad(loss, parameters)])
    expected = weights(method) - 0.1 * gradient
    learn(method, samples[4:], labels[4:])
    torch.testing.assert_close(weights(method), expected)


@pytest.mark.parametrize("policy", ["reservoir", "random"])
def test_published_equals_a_straight_line_loop(policy: str) -> None:
    typed = ("hidden=6", "lr=0.02", "buffer_size=5", "replay_size=2", f"policy={policy}", "randomness=published")
    method = learner("er", *typed, seed=1234)
    samples, labels = stream(40)
    learn(method, samples, labels)
    network, kept = _straight_line(samples, labels, policy)
    assert torch.equal(method.memory.samples, samples[kept])
    expected = torch.cat([parameter.detach().flatten() for parameter in network.parameters()])
    torch.testing.assert_close(weights(method), expected, rtol=1e-4, atol=1e-5)


def _straight_line(samples: Tensor, labels: Tensor, policy: str) -> tuple[nn.Module, list[int]]:
    """Learn with torch's own generator in the order of the published code; return the net and what is kept."""
    torch.manual_seed(1234)
    network = nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 4))
    torch.rand(1, 2)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    kept: list[int] = []
    for step in range(len(labels)):
        optimizer.zero_grad()
        cross_entropy(network(samples[step : step + 1]), labels[step : step + 1]).backward()
        if kept:
            rows = [kept[slot] for slot in torch.multinomial(torch.ones(len(kept)), min(2, len(kept))).tolist()]
            cross_entropy(network(samples[rows]), labels[rows]).backward()
        if len(kept) < 5:
            kept.append(step)
        elif policy == "reservoir":
            slot = int(torch.randint(0, step, (1,)))
            if slot < 5:
                kept[slot] = step
        elif int(torch.randint(0, 2, (1,))):
            kept[int(torch.multinomial(torch.ones(5), 1))] = step
        optimizer.step()
    return network, kept
