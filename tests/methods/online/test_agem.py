"""A-GEM: the projection, and that it changes a step only where the kept samples object."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cross_entropy

from mmcl.methods.agem import projected
from tests.methods.online.learners import learn, learner, stream

seeds = st.integers(0, 2**31)


def vectors(seed: int, length: int) -> tuple[Tensor, Tensor]:
    numbers = torch.Generator().manual_seed(seed)
    gradient, reference = torch.randn(2, length, generator=numbers, dtype=torch.float64)
    return gradient, reference


@given(seeds, st.integers(1, 20))
@settings(deadline=None)
def test_a_projected_gradient_does_not_oppose_the_reference(seed: int, length: int) -> None:
    gradient, reference = vectors(seed, length)
    result = projected(gradient, reference)
    assert result @ reference >= -1e-9 * gradient.norm() * reference.norm()
    if gradient @ reference >= 0:
        assert torch.equal(result, gradient)
    else:
        torch.testing.assert_close(result @ reference, torch.zeros((), dtype=torch.float64), atol=1e-9, rtol=0)
        torch.testing.assert_close(projected(result, reference), result)


def test_nothing_opposes_a_reference_of_zeros() -> None:
    gradient = torch.tensor([1.0, -2.0])
    assert torch.equal(projected(gradient, torch.zeros(2)), gradient)


def test_a_step_does_not_raise_the_loss_of_what_is_kept() -> None:
    raised = {}
    for name in ("agem", "vanilla"):
        method = learner(name, "optimizer=sgd", "lr=0.01", "hidden=5")
        samples, labels = torch.tensor([[1.0, 0.0], [1.0, 0.1]]), torch.tensor([0, 1])
        if name == "agem":
            method.memory.store(samples[:1], labels[:1], method.numbers())
        before = cross_entropy(method.network(samples[:1]), labels[:1])
        learn(method, samples[1:], labels[1:])
        raised[name] = float((cross_entropy(method.network(samples[:1]), labels[:1]) - before).detach())
    assert raised["vanilla"] > 1e-3
    assert raised["agem"] < 1e-4


def test_kept_samples_teach_nothing_where_they_agree() -> None:
    agem, vanilla = (learner(name, "optimizer=sgd", "lr=0.05", "hidden=5") for name in ("agem", "vanilla"))
    samples, labels = torch.ones(8, 2), torch.zeros(8, dtype=torch.int64)
    for method in (agem, vanilla):
        learn(method, samples, labels)
    for ours, plain in zip(agem.network.parameters(), vanilla.network.parameters(), strict=True):
        torch.testing.assert_close(ours, plain)
    assert agem.replay_loss == 0


def test_the_buffer_is_a_reservoir_of_the_stream() -> None:
    method = learner("agem", "buffer_size=4")
    learn(method, *stream(20))
    assert (method.memory.filled, method.memory.seen) == (4, 20)
