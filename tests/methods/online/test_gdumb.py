"""GDumb: it stores during a window, and learns from its memory alone, from the start, at the end of one."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from mmcl.errors import UserError
from tests.methods.online.learners import learn, learner, stream, weights, window


def end(method: Any, index: int = 0) -> Tensor:
    method.eval()
    method.end_task(window(index))
    return weights(method)


def test_nothing_is_learned_during_a_window() -> None:
    method = learner("gdumb")
    before = weights(method)
    learn(method, *stream(40))
    assert torch.equal(weights(method), before)
    assert method.epoch_loss_sums() == ({}, 40)
    assert not torch.equal(end(method), before)


def test_it_learns_from_the_memory_alone_and_from_the_start() -> None:
    found = []
    for spoiled in (False, True):
        method = learner("gdumb", "lr=0.05", "epochs=40", "hidden=8")
        learn(method, *stream(40))
        if spoiled:
            with torch.no_grad():
                for parameter in method.network.parameters():
                    parameter.fill_(9)
        found.append(end(method))
    assert torch.equal(*found)
    samples, labels = method.memory.rows().values()
    assert (method.scores(samples)["head"].argmax(dim=1) == labels).all()


def test_windows_draw_different_weights() -> None:
    method = learner("gdumb", "epochs=0")
    learn(method, *stream(8))
    first = end(method)
    learn(method, *stream(8))
    assert not torch.equal(first, end(method))


def test_a_rate_that_breaks_it_is_refused() -> None:
    method = learner("gdumb", "lr=1e38", "optimizer=sgd")
    learn(method, *stream(20))
    with pytest.raises(UserError, match="not finite after part 0. Try a smaller learning rate, such as method.lr=1e"):
        end(method)


def test_published_equals_a_straight_line_loop() -> None:
    typed = ("hidden=6", "lr=0.02", "buffer_size=6", "replay_size=2", "epochs=3", "randomness=published")
    method = learner("gdumb", *typed, seed=1234)
    samples, labels = stream(40)
    found = []
    for index, part in enumerate((slice(0, 15), slice(15, 40))):
        learn(method, samples[part], labels[part])
        found.append(end(method, index))
    for ours, expected in zip(found, _straight_line(samples, labels, (14, 39)), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def _straight_line(samples: Tensor, labels: Tensor, ends: tuple[int, ...]) -> list[Tensor]:
    """Learn with the generators of torch and Python, and torch's loader; return the weights after each window."""
    torch.manual_seed(1234)
    python_numbers = random.Random(1234)
    network = nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 4))
    torch.rand(1, 2)
    kept: dict[int, list[Tensor]] = {}
    found = []
    for step, label in enumerate(labels.tolist()):
        if label not in kept or len(kept[label]) < 6 // max(1, len(kept)):
            if sum(map(len, kept.values())) == 6:
                largest = max(kept.values(), key=len)
                del largest[python_numbers.randrange(len(largest))]
            kept.setdefault(label, []).append(samples[step])
        if step in ends:
            found.append(_trained(network, kept))
    return found


def _trained(network: nn.Sequential, kept: dict[int, list[Tensor]]) -> Tensor:
    for layer in network:
        if isinstance(layer, nn.Linear):
            layer.reset_parameters()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    rows = torch.stack([row for rows in kept.values() for row in rows])
    labels = torch.tensor([label for label, rows in kept.items() for _ in rows])
    loader = DataLoader(TensorDataset(rows, labels), batch_size=2, shuffle=True)
    for _ in range(3):
        for part, part_labels in loader:
            optimizer.zero_grad()
            cross_entropy(network(part), part_labels).backward()
            optimizer.step()
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])
