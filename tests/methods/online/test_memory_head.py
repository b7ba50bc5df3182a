"""Memory Head on a stream: its update in every step, its trace, its corrections, and its published random numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mmcl.errors import UserError
from mmcl.methods.memory_head import MHLinear
from mmcl.methods.memory_head.online import zero_moments
from tests.methods.online.learners import CLASSES, batches, learn, learner, stream, weights

EAGER = ("head.tau_mu=3", "head.tau_eta=4")  # gives units away all the time


def test_every_step_is_one_update() -> None:
    method = learner("memory_head")
    learn(method, *stream(12))
    head = method.head
    assert method.steps == 12
    assert head.key_counter.sum() == 12
    assert torch.equal(head.eta.min(), torch.tensor(1.0))
    before = head.K.clone()
    learn(method, *stream(12, seed=1))
    assert not torch.equal(before, head.K)


def test_an_optimiser_that_leaves_resting_units_alone_learns_the_same() -> None:
    size = {"dimension": 300, "classes": 100}  # below some size, all units are cheaper at once
    samples, labels = torch.randn(40, 300, generator=torch.Generator().manual_seed(3)), torch.arange(40) // 8
    learners = [
        learner("memory_head", f"optimizer={name}", "head.key_mem_units=100", **size) for name in ("adam", "row_adam")
    ]
    for method in learners:
        learn(method, samples, labels)
    dense, by_row = learners
    assert by_row.head.M.grad.is_sparse
    torch.testing.assert_close(weights(by_row), weights(dense), atol=1e-5, rtol=1e-5)


def test_a_layer_below_the_head_learns_too() -> None:
    method = learner("memory_head", "up=6")
    assert [type(layer) for layer in method.network] == [nn.Linear, nn.Tanh, MHLinear]
    assert method.head.in_features == 6
    before = method.network[0].weight.detach().clone()
    learn(method, *stream(12))
    assert not torch.equal(before, method.network[0].weight)


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ((), {"keys", "mu", "eta", "key_counter", "scrambling_count"}),
        (("up=2",), {"mu", "eta", "key_counter", "scrambling_count"}),
        (("head.scramble=false",), {"keys"}),
        (("head.psi_fn=resize1d", "head.key_size=3", "head.scramble=false"), set()),
    ],
)
def test_the_trace_has_what_can_be_drawn(typed: tuple[str, ...], expected: set[str]) -> None:
    assert set(learner("memory_head", *typed).trace()) == expected


def test_keys_beyond_three_dimensions_are_not_drawn() -> None:
    assert "keys" not in learner("memory_head", dimension=4).trace()


def test_a_sample_that_is_no_number_reaches_neither_keys_nor_units() -> None:
    method = learner("memory_head")
    learn(method, *stream(8))
    before = {name: value.clone() for name, value in method.head.named_buffers()}
    with pytest.raises(UserError, match="NaN|finite"):
        learn(method, torch.full((1, 2), torch.nan), torch.tensor([0]))
    assert all(torch.equal(value, before[name]) for name, value in method.head.named_buffers())
    assert weights(method).isfinite().all()


# ------------------------------------------------------------------ moments of units that are given away


def moments(method: Any) -> Tensor:
    return method.optimizer.state[method.head.M]["exp_avg"]


def test_moments_of_some_units_are_forgotten() -> None:
    state = {"step": torch.tensor(4.0), "exp_avg": torch.ones(1, 3, 2), "exp_avg_sq": torch.ones(1, 3, 2)}
    zero_moments(state, torch.tensor([[False, True, False]]))
    for name in ("exp_avg", "exp_avg_sq"):
        assert state[name].tolist() == [[[1, 1], [0, 0], [1, 1]]]
    assert state["step"] == 4
    zero_moments({}, torch.tensor([[True]]))


@pytest.mark.parametrize(("zero", "expected"), [("true", [1, 1, 1, 1, 0, 1, 1, 1, 1, 1]), ("false", [1] * 10)])
def test_moments_of_a_unit_that_is_given_away(zero: str, expected: list[int]) -> None:
    method = learner("memory_head", f"zero_scrambled_moments={zero}")
    samples, labels = stream(3)
    learn(method, samples, labels)
    moments(method).fill_(1)
    method.head.update = lambda: method.head.M.data[0, 4].add_(1)
    method.after_backward(next(batches(samples, labels)))
    assert moments(method)[0].mean(dim=1).tolist() == expected


def test_forgotten_moments_change_what_is_learned() -> None:
    methods = [learner("memory_head", *EAGER, f"zero_scrambled_moments={zero}") for zero in ("false", "true")]
    for method in methods:
        learn(method, *stream(60))
        assert method.head.scrambling_count > 2
    assert not torch.equal(*(weights(method) for method in methods))


# ------------------------------------------------------------------ published random numbers


@pytest.mark.parametrize("random_memories", [False, True])
def test_published_equals_a_straight_line_loop(random_memories: bool) -> None:
    typed = (*EAGER, "randomness=published", f"head.random_memories={str(random_memories).lower()}")
    method = learner("memory_head", *typed, seed=1234)
    samples, labels = stream(60)
    learn(method, samples, labels)
    head = _straight_line(samples, labels, random_memories)
    assert head.scrambling_count > 1
    assert torch.equal(method.head.scrambling_count, head.scrambling_count)
    torch.testing.assert_close(method.head.K, head.K, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(method.head.M, head.M, rtol=1e-4, atol=1e-5)
    assert torch.equal(method.head.key_counter, head.key_counter)


def _straight_line(samples: Tensor, labels: Tensor, random_memories: bool) -> MHLinear:
    torch.manual_seed(1234)
    head = MHLinear(
        2,
        CLASSES,
        key_mem_units=10,
        delta=2,
        distance="euclidean",
        gamma_alpha=25.0,
        tau_alpha=0.95,
        tau_mu=3,
        tau_eta=4,
        upd_m="WTA",
        upd_k="ad_hoc_WTA",
        beta_k=0.01,
        scramble=True,
        random_memories=random_memories,
    )
    head(torch.rand(1, 2))
    optimizer = torch.optim.Adam(head.parameters(), lr=0.01)
    for sample, label in zip(samples, labels, strict=True):
        optimizer.zero_grad()
        cross_entropy(head(sample[None]), label[None]).backward()
        head.update()
        optimizer.step()
    return head
