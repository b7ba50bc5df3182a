"""Training of the classifier on exemplars, differentiated: against automatic second derivatives and differences."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mmcl.backbones.freezing import freeze
from mmcl.methods.mnemonics.bilevel import UnrolledClassifier
from mmcl.methods.mnemonics.unrolling import exemplar_sets, unrolled_fc_loss
from tests.methods.mnemonics import cases

LABELS = torch.tensor([0, 1, 2, 2, 0, 1, 3, 3])
SETS = [torch.tensor([0, 1, 2, 6]), torch.tensor([3, 4, 5, 7])]
RATES = [0.5, 0.8]


def scores(features: Tensor, weight: Tensor) -> Tensor:
    return F.normalize(features, dim=1) @ F.normalize(weight, dim=1).T


def twice_differentiated(weight: Tensor, features: Tensor, epochs: int, queries: Tensor, labels: Tensor) -> Tensor:
    """Return the loss with gradients of the inner loss by autograd, their graph kept."""
    weight = weight.clone().requires_grad_()
    for _ in range(epochs):
        for rows, rate in zip(SETS, RATES, strict=True):
            inner_loss = F.cross_entropy(scores(features[rows], weight), LABELS[rows])
            (slope,) = torch.autograd.grad(inner_loss, weight, create_graph=True)
            weight = weight - rate * slope
    return F.cross_entropy(scores(queries, weight), labels)


def tensors(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    weight, features, queries = (torch.randn(size, 6, generator=draw, dtype=dtype) for size in (4, 8, 5))
    return weight, features.requires_grad_(), queries


def test_agrees_with_automatic_second_derivatives() -> None:
    weight, features, queries = tensors()
    labels = torch.arange(5) % 4
    before = weight.clone()
    loss = unrolled_fc_loss(weight, features, LABELS, SETS, RATES, 5, queries, labels)
    expected = twice_differentiated(weight, features, 5, queries, labels)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    (gradient,), (wanted,) = (torch.autograd.grad(value, features) for value in (loss, expected))
    assert wanted.abs().max() > 1e-3
    assert cases.apart(gradient, wanted) < 1e-10
    assert torch.equal(weight, before)


def test_every_exemplar_in_any_step_has_a_gradient() -> None:
    weight, features, queries = tensors()
    loss = unrolled_fc_loss(weight, features, LABELS, SETS, RATES, 1, queries, torch.arange(5) % 4)
    (gradient,) = torch.autograd.grad(loss, features)
    assert (gradient.abs().amax(dim=1) > 1e-6).all()


def test_half_precision_does_not_round_the_steps() -> None:
    weight, features, queries = tensors(torch.float32)
    arguments = (weight, features, LABELS, SETS, RATES, 5, queries, torch.arange(5) % 4)
    with torch.autocast("cpu", torch.bfloat16):
        loss = unrolled_fc_loss(*arguments)
    assert torch.equal(loss, unrolled_fc_loss(*arguments))


def test_on_images_the_network_is_asked_once_for_exemplars_and_once_for_queries() -> None:
    network, case = freeze(cases.network()), cases.case()
    batches = []
    network.register_forward_hook(lambda _, inputs, output: batches.append((len(inputs[0]), output.features)))
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    loss = UnrolledClassifier(network, inner_lr=0.5, inner_epochs=4, sets=2)(*case)
    loss.backward()
    assert sorted((count, features.requires_grad) for count, features in batches) == [(6, False), (8, True)]
    assert case.exemplars.grad is not None
    assert case.exemplars.grad.abs().max() > 1e-6
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(torch.equal(state[name], tensor) for name, tensor in network.state_dict().items())


@given(st.lists(st.integers(0, 4), min_size=1, max_size=30), st.integers(1, 8))
def test_sets_hold_every_exemplar_once_and_classes_evenly(labels: list[int], count: int) -> None:
    sets = exemplar_sets(torch.tensor(labels), count)
    assert sorted(torch.cat(sets).tolist()) == list(range(len(labels)))
    largest = max(labels.count(label) for label in labels)
    assert len(sets) == min(count, largest)
    for label in set(labels):
        shares = [sum(labels[row] == label for row in rows.tolist()) for rows in sets]
        assert max(shares) - min(shares) <= 1
