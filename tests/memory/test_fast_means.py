from __future__ import annotations

import io

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mmcl.memory.fast_means import FastMeans, fast_classifier, keyed_orders
from mmcl.memory.nearest_mean import two_view_means


def made(rows: int, classes: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(rows, 6, generator=generator)
    labels = torch.arange(rows) % classes
    return features, labels, two_view_means(features, features, labels, classes)


def by_autograd(
    features: Tensor, labels: Tensor, means: Tensor, orders: list[Tensor], lr: float, batch_size: int
) -> Tensor:
    weight = torch.nn.Parameter(means.float())
    optimizer = torch.optim.SGD([weight], lr)
    for order in orders:
        for rows in order.split(batch_size):
            optimizer.zero_grad()
            F.cross_entropy(F.normalize(features[rows]) @ F.normalize(weight).T, labels[rows]).backward()
            optimizer.step()
    return weight.detach()


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 6), st.integers(6, 40), st.integers(1, 45), st.integers(0, 10**6))
def test_steps_are_those_of_autograd(classes: int, rows: int, batch_size: int, seed: int) -> None:
    features, labels, means = made(rows, classes, seed)
    orders = keyed_orders(rows, 3, seed)
    trained = fast_classifier(features, labels, means, orders, 0.3, batch_size)
    torch.testing.assert_close(trained, by_autograd(features, labels, means, orders, 0.3, batch_size))


def test_the_means_that_come_in_stay() -> None:
    features, labels, means = made(12, 3)
    before = means.clone()
    trained = fast_classifier(features, labels, means, keyed_orders(12, 2, 0), 0.1, 5)
    assert trained.dtype == torch.float32
    assert torch.equal(means, before)
    assert not torch.allclose(trained, means.float())


def test_no_epoch_trains_nothing() -> None:
    features, labels, means = made(12, 3)
    assert torch.equal(fast_classifier(features, labels, means, [], 0.1, 5), means.float())


def test_a_class_without_mean_stays_without_and_is_never_chosen() -> None:
    features, labels, _ = made(12, 3)
    fast = FastMeans()
    means = two_view_means(features, features, labels, 5)
    fast.train_on(features, labels, means, keyed_orders(12, 3, 0), 0.1, 5)
    assert not fast.means[3:].any()
    assert torch.isfinite(fast.means).all()
    assert (fast(features)[:, 3:] == -torch.inf).all()


def test_training_lowers_the_cross_entropy_of_the_memory() -> None:
    features, labels, means = made(200, 4, seed=1)
    fast, losses = FastMeans(), []
    for epochs in (0, 5, 50):
        fast.train_on(features, labels, means, keyed_orders(200, epochs, 0), 0.5, 32)
        losses.append(F.cross_entropy(fast(F.normalize(features)), labels).item())
    assert losses[0] > losses[1] > losses[2]


def test_orders_are_permutations_keyed_by_parts_and_epoch() -> None:
    orders = keyed_orders(30, 4, 1993, 2)
    assert all(torch.equal(order.sort().values, torch.arange(30)) for order in orders)
    assert len({tuple(order.tolist()) for order in orders}) == 4
    torch.rand(3)
    assert all(torch.equal(*pair) for pair in zip(orders, keyed_orders(30, 4, 1993, 2), strict=True))
    assert not torch.equal(orders[0], keyed_orders(30, 4, 1993, 3)[0])


def test_saved_means_answer_as_before() -> None:
    features, labels, means = made(12, 3)
    fast, restored, file = FastMeans(), FastMeans(), io.BytesIO()
    fast.train_on(features, labels, means, keyed_orders(12, 2, 0), 0.1, 5)
    torch.save(fast.state_dict(), file)
    file.seek(0)
    restored.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(restored(features), fast(features))


def test_answers_rank_by_cosine() -> None:
    features, labels, means = made(30, 5)
    fast = FastMeans()
    fast.train_on(features, labels, means, keyed_orders(30, 5, 0), 0.5, 8)
    assert len({round(norm, 4) for norm in fast.means.norm(dim=1).tolist()}) > 1
    cosines = F.cosine_similarity(features[:, None], fast.means[None], dim=2)
    assert torch.equal(fast(features).argmax(1), cosines.argmax(1))


@pytest.mark.parametrize("lr", [0.0, 0.1])
def test_the_learning_rate_scales_the_step(lr: float) -> None:
    features, labels, means = made(12, 3)
    step = fast_classifier(features, labels, means, [torch.arange(12)], lr, 12) - means.float()
    unit = fast_classifier(features, labels, means, [torch.arange(12)], 1.0, 12) - means.float()
    torch.testing.assert_close(step, lr * unit, rtol=1e-4, atol=1e-6)
