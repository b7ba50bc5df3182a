from __future__ import annotations

import pytest
import torch

from mmcl.backbones import (
    ExpandableNetwork,
    PlainNetwork,
    is_frozen,
    load_plain,
    trainable_parameters,
    unshared,
)
from mmcl.backbones.cifar_resnet import cifar_resnet
from mmcl.backbones.split import SplitBackbone


def small() -> SplitBackbone:
    return cifar_resnet(8, width=4)


def expanded(train_base: bool = False, train_adaptive: bool = False, tasks: int = 3) -> ExpandableNetwork:
    network = ExpandableNetwork(small, train_base, train_adaptive)
    for task in range(tasks):
        network.expand(2 * (task + 1))
    return network


@pytest.mark.parametrize("train_base", [True, False])
@pytest.mark.parametrize("train_adaptive", [True, False])
def test_what_trains_after_the_first_task(train_base: bool, train_adaptive: bool) -> None:
    network = expanded(train_base, train_adaptive).eval().train()
    assert is_frozen(network.trunk) is not train_base
    assert network.trunk.training is train_base
    assert [branch.training for branch in network.branches] == [train_adaptive, train_adaptive, True]
    assert [is_frozen(branch) for branch in network.branches] == [
        not train_adaptive,
        not train_adaptive,
        False,
    ]
    assert not is_frozen(network.head)


def test_everything_trains_in_the_first_task() -> None:
    network = expanded(tasks=1).train()
    assert len(list(trainable_parameters(network))) == len(list(network.parameters()))
    assert all(module.training for module in network.modules())


def test_a_new_branch_copies_the_newest_with_its_buffers() -> None:
    network = expanded(tasks=1).train()
    network(torch.randn(4, 3, 32, 32))
    network.expand(4)
    first, second = (branch.state_dict() for branch in network.branches)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert first["stage3.0.bn1.num_batches_tracked"] == 1
    assert {id(tensor) for tensor in first.values()}.isdisjoint(id(tensor) for tensor in second.values())


@pytest.mark.parametrize("train_base", [True, False])
def test_gradients_reach_the_trunk_only_where_it_trains(train_base: bool) -> None:
    network = expanded(train_base).train()
    output = network(torch.randn(4, 3, 32, 32))
    assert output.base.requires_grad is train_base
    output.logits.sum().backward()
    assert (network.trunk.stem[0].weight.grad is not None) is train_base
    assert all(parameter.grad is None for parameter in network.branches[0].parameters())


def test_auxiliary_logits_come_from_the_newest_branch() -> None:
    network = expanded().eval()
    output = network(torch.randn(2, 3, 32, 32))
    assert output.auxiliary_logits.shape == (2, 3)
    newest = output.features[:, -network.feature_dim :]
    torch.testing.assert_close(output.auxiliary_logits, network.auxiliary_head(newest))


def test_a_restored_network_is_the_same_function() -> None:
    network, restored = expanded().eval(), expanded().eval()
    images = torch.randn(2, 3, 32, 32)
    restored(images)
    restored.load_state_dict(network.state_dict())
    assert torch.equal(restored(images).logits, network(images).logits)


def test_an_empty_trunk_gives_one_backbone_per_task() -> None:
    network = ExpandableNetwork(lambda: unshared(small()), train_base=False, train_adaptive=False)
    for classes in (2, 4):
        network.expand(classes)
    backbone = sum(parameter.numel() for parameter in small().parameters())
    assert sum(parameter.numel() for parameter in network.branches.parameters()) == 2 * backbone
    assert network.train()(torch.randn(2, 3, 32, 32)).logits.shape == (2, 4)


def test_loading_a_plain_network_maps_every_tensor() -> None:
    plain = PlainNetwork(small())
    plain.expand(2)
    plain.train()(torch.randn(4, 3, 32, 32))
    network = expanded(tasks=1)
    load_plain(network, plain.state_dict())
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(network.eval()(images).logits, plain.eval()(images).logits)


def test_loading_skips_nothing() -> None:
    plain = PlainNetwork(small())
    plain.expand(2)
    state = plain.state_dict()
    del state["backbone.branch.stage3.0.conv1.weight"]
    with pytest.raises(RuntimeError, match="stage3"):
        load_plain(expanded(tasks=1), state)
    with pytest.raises(ValueError, match="one branch"):
        load_plain(expanded(tasks=2), plain.state_dict())
