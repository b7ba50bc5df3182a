"""MIR: it replays what the step would harm most, and is experience replay where it has nothing to choose from."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import cross_entropy

from mmcl.errors import UserError
from mmcl.methods.mir import interference
from tests.methods.online.learners import learn, learner, stream, weights


def test_with_as_many_candidates_as_it_replays_it_is_er() -> None:
    methods = [learner(name, "lr=0.02") for name in ("mir", "er")]
    for method in methods:
        learn(method, *stream(60))
    assert torch.equal(*(weights(method) for method in methods))


def test_with_more_candidates_it_is_not() -> None:
    methods = [learner("mir", "lr=0.02", f"candidates={count}") for count in (1, 8)]
    for method in methods:
        learn(method, *stream(60))
    assert not torch.allclose(*(weights(method) for method in methods))


def test_interference_is_the_rise_of_the_loss_along_a_plain_step() -> None:
    method = learner("mir", "hidden=5")
    samples, labels = stream(12)
    network = method.network
    cross_entropy(network(samples[:1]), labels[:1]).backward()
    state, gradients = weights(method), [parameter.grad.clone() for parameter in network.parameters()]
    rise = interference(network, 0.5, samples, labels)
    assert torch.equal(weights(method), state)
    for parameter, gradient in zip(network.parameters(), gradients, strict=True):
        assert torch.equal(parameter.grad, gradient)
    before = cross_entropy(network(samples), labels, reduction="none")
    with torch.no_grad():
        for parameter in network.parameters():
            parameter -= 0.5 * parameter.grad
    torch.testing.assert_close(rise, (cross_entropy(network(samples), labels, reduction="none") - before).detach())


def test_the_worst_candidates_come_first() -> None:
    method = learner("mir", "replay_size=3", "candidates=12", "lr=0.5")
    samples, labels = stream(12)
    cross_entropy(method.network(samples[:1]), labels[:1]).backward()
    rise = interference(method.network, 0.5, samples, labels)
    chosen, their_labels = method.retrieve(samples, labels)
    order = rise.argsort(descending=True)[:3]
    assert torch.equal(chosen, samples[order])
    assert torch.equal(their_labels, labels[order])


def test_scaled_gradients_are_refused() -> None:
    method = learner("mir")
    method._trainer = SimpleNamespace(precision="16-mixed")
    with pytest.raises(UserError, match="Type trainer.precision=bf16-mixed"):
        method.on_train_start()
    method._trainer = SimpleNamespace(precision="32-true")
    method.on_train_start()
