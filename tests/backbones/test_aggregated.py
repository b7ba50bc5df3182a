from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from mmcl.backbones.aggregated import AggregatedNetwork
from mmcl.backbones.cosine_network import CosineNetwork
from mmcl.backbones.folding import MAPS_AT_ONCE
from mmcl.backbones.freezing import freeze
from mmcl.backbones.imagenet_resnet import imagenet_resnet
from mmcl.backbones.projection_resnet import projection_resnet
from mmcl.backbones.scale_shift import ScaleShiftConv2d
from mmcl.backbones.signed_features import signed_features
from mmcl.errors import UserError

BACKBONES = {
    3: lambda: projection_resnet(8, width=4),
    4: lambda: imagenet_resnet("basic", [1, 1, 1, 1], width=4),
}


def plain(levels: int = 3) -> CosineNetwork:
    torch.manual_seed(0)
    network = CosineNetwork(signed_features(BACKBONES[levels]()))
    network.expand(3)
    return network.eval()


def mixed(levels: int = 3, stable: str = "scale_shift", plastic: str = "free") -> AggregatedNetwork:
    """Return branches that differ in their weights, with shares that differ from level to level."""
    network = AggregatedNetwork.of(plain(levels), stable=stable, plastic=plastic)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith(("scale", "bn1.weight", "bn2.bias")) or name.startswith("plastic"):
                parameter.add_(0.3 * torch.randn(parameter.shape))
        network.shares.copy_(torch.linspace(-0.2, 1.3, levels))
    return network


def images(count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(count))


def near(actual: torch.Tensor, expected: torch.Tensor) -> bool:
    return bool((actual - expected).abs().max() <= 1e-5 * expected.abs().max())


def by_hand(network: AggregatedNetwork, maps: torch.Tensor) -> torch.Tensor:
    for level, share in enumerate(network.shares):
        stable, plastic = (branch.levels()[level] for branch in (network.stable, network.plastic))
        maps = share * stable(maps) + (1 - share) * plastic(maps)
    return maps


@pytest.mark.parametrize("levels", BACKBONES)
def test_it_begins_as_the_network_that_it_is_made_of(levels: int) -> None:
    network = plain(levels)
    branches = AggregatedNetwork.of(network)
    assert branches.shares.tolist() == [0.5] * levels
    torch.testing.assert_close(branches(images()), network(images()), rtol=1e-5, atol=1e-5)
    nn.init.zeros_(branches.plastic.trunk.conv1.weight)
    nn.init.zeros_(branches.stable.trunk.conv1.weight)
    nn.init.zeros_(branches.head.weight_new)
    assert network(images()).logits.abs().max() > 0


@pytest.mark.parametrize("levels", BACKBONES)
@pytest.mark.parametrize("count", [2, MAPS_AT_ONCE + 3])
def test_maps_are_mixed_behind_every_level(levels: int, count: int) -> None:
    network = mixed(levels)
    with torch.no_grad():
        output = network(images(count))
        assert near(output.features, by_hand(network, images(count)))
        assert near(output.logits, network.head.sigma * output.scores)
    assert near(network.frozen_copy()(images(count)).features, output.features)


@pytest.mark.parametrize("training", [True, False])
def test_shares_and_branches_get_their_gradients(training: bool) -> None:
    network = mixed().train(training)
    network(images()).logits.square().sum().backward()
    asked = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert asked == {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert {"shares", "head.sigma", "stable.trunk.conv1.scale", "plastic.trunk.conv1.weight"} <= asked
    assert not {"stable.trunk.conv1.weight", "head.weight_old"} & asked


def test_every_tensor_has_one_name() -> None:
    network = mixed()
    parts = {name.partition(".")[0] for name in network.state_dict()}
    assert parts == {"stable", "plastic", "head", "shares"}
    assert len(network.state_dict()) == len({id(tensor) for tensor in network.state_dict(keep_vars=True).values()})


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))])
def test_copies_are_apart(copied: object) -> None:
    network = mixed()
    expected = network(images()).features
    twin = copied(network)  # type: ignore[operator]
    assert torch.equal(twin(images()).features, expected)
    nn.init.zeros_(twin.plastic.trunk.conv1.weight)
    assert near(twin(images()).features, by_hand(twin, images()))
    assert not near(twin(images()).features, expected)
    assert torch.equal(network(images()).features, expected)


def test_state_round_trips() -> None:
    network = mixed()
    network.expand(5)
    torch.manual_seed(1)
    fresh = AggregatedNetwork.of(plain())
    fresh.expand(5)
    fresh.load_state_dict(network.state_dict())
    torch.testing.assert_close(fresh(images()), network(images()))


def test_a_frozen_copy_is_plain_apart_and_stays_in_eval_mode() -> None:
    network = mixed(plastic="fixed").train()
    reference = network.frozen_copy()
    assert not any(module.training or isinstance(module, ScaleShiftConv2d) for module in reference.train().modules())
    assert not any(parameter.requires_grad for parameter in reference.parameters())
    expected = reference(images()).features
    network(images())
    nn.init.zeros_(network.stable.trunk.conv1.weight)
    assert torch.equal(reference(images()).features, expected)


@pytest.mark.parametrize("fixed", ["stable", "plastic"])
def test_of_a_fixed_branch_only_statistics_follow(fixed: str) -> None:
    network = mixed(**{fixed: "fixed"}).train()
    branch = network.get_submodule(fixed)
    before = {name: tensor.clone() for name, tensor in branch.state_dict().items()}
    network(images()).logits.sum().backward()
    changed = {name for name, tensor in branch.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {name for name in before if "running" in name or "tracked" in name}
    assert not any(parameter.requires_grad for parameter in branch.parameters())
    network.eval()
    assert not any(module.training for module in branch.modules())


def test_of_a_frozen_network_nothing_follows_while_its_rows_train() -> None:
    network = freeze(mixed(plastic="fixed"))
    network.head.weight_new.requires_grad_(True)
    network.train()
    assert not any(module.training for branch in (network.stable, network.plastic) for module in branch.modules())


def test_autocast_reaches_neither_the_mixing_nor_the_scores() -> None:
    network = mixed().train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = network(images())
    assert output.logits.dtype == torch.float32
    assert output.features.dtype == torch.float32  # mixed with the shares as they are
    output.logits.sum().backward()
    assert network.shares.grad is not None


def test_wrong_branches_say_what_to_type() -> None:
    with pytest.raises(UserError, match=r"method\.aggregation\.plastic=fre: expected .* Did you mean 'free'\?"):
        AggregatedNetwork.of(plain(), plastic="fre")
    with pytest.raises(UserError, match=r"Type method\.aggregation\.plastic=free"):
        AggregatedNetwork.of(plain(), stable="fixed", plastic="fixed")
