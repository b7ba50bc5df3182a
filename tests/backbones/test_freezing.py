from __future__ import annotations

import torch
from torch import nn

from mmcl.backbones import freeze, is_frozen, restore_frozen_modes, trainable_parameters, unfreeze


def network() -> nn.Sequential:
    return nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)), nn.Conv2d(4, 2, 1))


def test_frozen_means_three_things() -> None:
    root = network()
    root(torch.randn(2, 3, 4, 4)).sum().backward()
    freeze(root[0])
    root.train()
    restore_frozen_modes(root)
    running_mean = root[0][1].running_mean.clone()
    output = root(torch.randn(2, 3, 4, 4))
    output.sum().backward()
    assert all(parameter.grad is None for parameter in root[0].parameters())
    assert torch.equal(root[0][1].running_mean, running_mean)
    assert list(trainable_parameters(root)) == list(root[1].parameters())
    assert not any(module.training for module in root[0].modules())
    assert root.training
    assert root[1].training


def test_unfreezing_undoes_it() -> None:
    root = network()
    unfreeze(freeze(root))
    root.train()
    restore_frozen_modes(root)
    assert not is_frozen(root)
    assert all(module.training for module in root.modules())
    assert len(list(trainable_parameters(root))) == len(list(root.parameters()))


def test_a_module_without_parameters_is_not_frozen() -> None:
    assert not is_frozen(nn.ReLU())
