"""Prototypes of exemplars against their definition, class by class."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mmcl.backbones.freezing import freeze
from mmcl.methods.mnemonics.prototype_level import PrototypeLevel, mean_features, nme_loss
from tests.methods.mnemonics import cases


def by_definition(
    queries: Tensor, labels: Tensor, features: Tensor, classes_of: Tensor, old_means: Tensor | None, classes: int
) -> Tensor:
    rows = [] if old_means is None else list(old_means)
    rows += [features[classes_of == label].mean(dim=0) for label in range(len(rows), classes)]
    return F.cross_entropy(F.cosine_similarity(queries[:, None], torch.stack(rows)[None], dim=2), labels)


@pytest.mark.parametrize("known", [0, 3])
def test_loss_and_gradient_with_unequal_classes_in_any_order(known: int) -> None:
    draw = torch.Generator().manual_seed(0)
    classes_of = torch.tensor([1, 0, 2, 1, 1, 2, 0, 1]) + known
    features = torch.randn(8, 5, generator=draw).requires_grad_()
    queries, labels = torch.randn(6, 5, generator=draw), torch.arange(6) % (known + 3)
    old_means = torch.randn(known, 5, generator=draw, dtype=torch.float64) if known else None
    inputs = (queries, labels, features, classes_of, old_means, known + 3)
    loss, expected = nme_loss(*inputs), by_definition(*inputs)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    (gradient,), (wanted,) = (torch.autograd.grad(value, features) for value in (loss, expected.float()))
    assert wanted.abs().max() > 1e-3
    assert cases.apart(gradient, wanted) < 1e-5


def test_a_class_without_rows_has_a_mean_of_zeros() -> None:
    means = mean_features(torch.ones(2, 3), torch.tensor([2, 2]), 3)
    assert torch.equal(means, torch.tensor([[0.0] * 3, [0.0] * 3, [1.0] * 3]))


def test_half_precision_does_not_round_the_means() -> None:
    features, labels = torch.randn(30, 4, generator=torch.Generator().manual_seed(0)), torch.arange(30) % 2
    with torch.autocast("cpu", torch.bfloat16):
        means = mean_features(features, labels, 2)
    assert torch.equal(means, mean_features(features, labels, 2))


def test_on_images_the_gradient_reaches_every_exemplar_and_no_parameter() -> None:
    network, case = freeze(cases.network(scales=True)), cases.case()
    graphs = []
    network.register_forward_hook(lambda _, inputs, output: graphs.append((len(inputs[0]), output.features)))
    PrototypeLevel(network, None, cases.CLASSES)(*case).backward()
    assert sorted((count, features.requires_grad) for count, features in graphs) == [(6, False), (8, True)]
    assert case.exemplars.grad is not None
    assert (case.exemplars.grad.flatten(1).abs().amax(dim=1) > 1e-7).all()
    assert all(parameter.grad is None for parameter in network.parameters())
