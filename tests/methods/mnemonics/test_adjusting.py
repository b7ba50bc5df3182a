"""Halves of old exemplars, and steps that move one of them."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from mmcl.backbones.freezing import freeze
from mmcl.methods.mnemonics.adjusting import Halves, half_step_loss, halves
from mmcl.methods.mnemonics.bilevel import BilevelLoss, UnrolledClassifier, UnrolledNetwork
from tests.methods.mnemonics import cases


@given(st.lists(st.integers(0, 5), max_size=30), st.integers(0, 3))
def test_halves_of_each_class(labels: list[int], task: int) -> None:
    split = halves(torch.tensor(labels, dtype=torch.int64), 1993, task)
    chosen = torch.cat(split).tolist()
    assert len(set(chosen)) == len(chosen)
    for label in set(labels):
        count = labels.count(label)
        sizes = [sum(labels[row] == label for row in part.tolist()) for part in split]
        assert sizes == ([count // 2, count - count // 2] if count > 1 else [0, 0])


def test_a_split_is_that_of_its_draw_whatever_other_classes_there_are() -> None:
    labels = torch.arange(3).repeat_interleave(20)
    split = halves(labels, 1993, 2)
    assert torch.equal(split.first, halves(labels, 1993, 2).first)
    assert not torch.equal(split.first, halves(labels, 1993, 3).first)
    assert torch.equal(split.first[:20], halves(labels[:40], 1993, 2).first)
    assert not torch.equal(split.first[:10], split.first[10:20] - 20)


def levels() -> list[BilevelLoss]:
    network = freeze(cases.network(scales=True))
    return [UnrolledClassifier(network, 0.5, 3, sets=1), UnrolledNetwork(network, 0.05, 2, "stepwise")]


def test_a_step_moves_one_half_and_the_next_sees_it() -> None:
    case = cases.case(exemplars=16)
    split = halves(case.labels, 0)
    for level in levels():
        exemplars = case.exemplars.detach().clone().requires_grad_()
        start = exemplars.detach().clone()
        optimizer = torch.optim.SGD([exemplars], 10.0)
        before = half_step_loss(level, exemplars, case.labels, split.swapped()).item()
        half_step_loss(level, exemplars, case.labels, split).backward()
        optimizer.step()
        moved = (exemplars.detach() != start).flatten(1).any(dim=1).nonzero()[:, 0]
        assert torch.equal(moved, split.first.sort().values)
        assert half_step_loss(level, exemplars, case.labels, split.swapped()).item() != before


def test_loss_trains_on_the_first_half_and_judges_by_the_second() -> None:
    case = cases.case()
    split = Halves(torch.tensor([1, 2, 3, 0]), torch.tensor([7, 4, 5, 6]))
    for level in levels():
        loss = half_step_loss(level, case.exemplars, case.labels, split)
        expected = level(case.exemplars[:4], case.labels[:4], case.exemplars[4:], case.labels[4:])
        assert abs(loss.item() - expected.item()) < 1e-5
