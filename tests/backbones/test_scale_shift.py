from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from mmcl.backbones import freeze
from mmcl.backbones.cifar_resnet import cifar_resnet
from mmcl.backbones.folding import MAPS_AT_ONCE, FoldedEvaluation
from mmcl.backbones.fused import FusedConvolution, fuse
from mmcl.backbones.imagenet_resnet import imagenet_resnet
from mmcl.backbones.projection_resnet import projection_resnet
from mmcl.backbones.scale_shift import ScaleShiftConv2d, merged, scale_and_shift
from mmcl.backbones.split import SplitBackbone

BACKBONES = {
    "cifar": lambda: cifar_resnet(8, width=4),
    "projection": lambda: projection_resnet(8, width=4),
    "imagenet": lambda: imagenet_resnet("bottleneck", [1, 1, 1, 1], width=4),
}
GEOMETRIES: dict[str, dict[str, Any]] = {
    "plain": {"bias": False},
    "shifted": {"bias": True, "stride": 2, "padding": 1},
    "grouped": {"groups": 2, "dilation": 2, "bias": False},
    "reflecting": {"padding": 1, "padding_mode": "reflect", "bias": True},
    "same": {"padding": "same", "bias": False},
}


def transferred(name: str = "projection") -> SplitBackbone:
    """Return a backbone whose scales, shifts and statistics are not those of the start."""
    torch.manual_seed(0)
    backbone = scale_and_shift(BACKBONES[name]())
    for module in backbone.modules():
        if isinstance(module, ScaleShiftConv2d):
            nn.init.uniform_(module.scale, 0.5, 1.5)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return backbone.eval()


def images(count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(count))


def near(actual: torch.Tensor, expected: torch.Tensor) -> bool:
    return bool((actual - expected).abs().max() <= 1e-5 * expected.abs().max())


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
def test_a_fresh_one_computes_what_the_plain_one_does_and_any_one_what_its_merged_copy_does(
    geometry: dict[str, Any],
) -> None:
    plain = nn.Conv2d(4, 6, 3, **geometry)
    maps = torch.randn(2, 4, 7, 7)
    expected = plain(maps)
    made = scale_and_shift(plain)
    assert isinstance(made, ScaleShiftConv2d)
    assert torch.equal(made(maps), expected)
    nn.init.normal_(made.scale)
    if made.shift is not None:
        nn.init.normal_(made.shift)
    assert not torch.equal(made(maps), expected)
    assert type(merged(made)) is nn.Conv2d
    assert near(merged(made)(maps), made(maps))


def test_only_scales_shifts_and_the_rest_of_the_network_train() -> None:
    network = nn.Sequential(nn.Conv2d(4, 6, 3, groups=2), nn.BatchNorm2d(6))
    weight, bias = network[0].weight, network[0].bias
    assert scale_and_shift(network) is network
    assert network[0].weight is weight
    assert network[0].bias is bias
    trained = {name: list(tensor.shape) for name, tensor in network.named_parameters() if tensor.requires_grad}
    assert trained == {"0.scale": [6, 2, 1, 1], "0.shift": [6], "1.weight": [6], "1.bias": [6]}


def test_what_is_made_already_stays() -> None:
    backbone = transferred()
    before = dict(backbone.named_modules())
    scale_and_shift(backbone)
    assert all(before[name] is module for name, module in backbone.named_modules())


def test_dtype_mode_and_random_numbers_stay() -> None:
    plain = nn.Conv2d(2, 2, 3).double().eval()
    state = torch.get_rng_state()
    made = scale_and_shift(plain)
    assert isinstance(made, ScaleShiftConv2d)
    assert made.scale.dtype == torch.float64
    assert not made.training
    assert torch.equal(torch.get_rng_state(), state)


def test_the_gradient_of_a_scale_is_that_of_its_weights() -> None:
    """``d / d scale = sum over the kernel of weight * d / d (weight * scale)``."""
    made = ScaleShiftConv2d.of(nn.Conv2d(3, 4, 3, bias=False))
    nn.init.normal_(made.scale)
    plain, maps = merged(made), torch.randn(2, 3, 6, 6)
    for convolution in (made, plain):
        convolution(maps).square().sum().backward()
    assert plain.weight.grad is not None
    assert made.scale.grad is not None
    assert near(made.scale.grad, (plain.weight.grad * made.weight).sum((2, 3), keepdim=True))
    assert made.weight.grad is None


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("count", [1, MAPS_AT_ONCE + 3])
@pytest.mark.parametrize("frozen", [True, False])
def test_folded_evaluation_follows_the_scales(name: str, count: int, frozen: bool) -> None:
    backbone, evaluate = transferred(name), FoldedEvaluation()
    if frozen:
        freeze(backbone)
    for _ in range(2):
        with torch.no_grad():
            assert near(evaluate(backbone, images(count)), backbone(images(count)))
            next(module for module in backbone.modules() if isinstance(module, ScaleShiftConv2d)).scale.mul_(1.5)


@pytest.mark.parametrize("name", BACKBONES)
def test_both_forms_are_fused_entirely(name: str) -> None:
    for backbone in (transferred(name), merged(transferred(name))):
        fused = fuse(backbone)
        assert fused is not None
        called = [fused.get_submodule(str(node.target)) for node in fused.graph.nodes if node.op == "call_module"]
        assert any(isinstance(module, FusedConvolution) for module in called)
        assert not any(isinstance(module, nn.Conv2d | nn.BatchNorm2d) for module in called)


@pytest.mark.parametrize("name", BACKBONES)
def test_a_merged_copy_is_plain_and_apart(name: str) -> None:
    backbone = transferred(name)
    plain = merged(backbone)
    assert not any(isinstance(module, ScaleShiftConv2d) for module in plain.modules())
    assert set(plain.state_dict()) == set(BACKBONES[name]().state_dict())
    expected = backbone(images())
    assert near(plain(images()), expected)
    nn.init.zeros_(next(plain.parameters()))
    assert torch.equal(backbone(images()), expected)


def test_state_and_copies_round_trip() -> None:
    backbone = transferred()
    fresh = scale_and_shift(BACKBONES["projection"]()).eval()
    fresh.load_state_dict(backbone.state_dict())
    for same in (fresh, copy.deepcopy(backbone)):
        assert torch.equal(same(images()), backbone(images()))
        assert [p.requires_grad for p in same.parameters()] == [p.requires_grad for p in backbone.parameters()]


def test_channels_last_maps_stay_so() -> None:
    backbone = transferred().to(memory_format=torch.channels_last)
    maps = backbone.trunk(images().contiguous(memory_format=torch.channels_last))
    assert maps.is_contiguous(memory_format=torch.channels_last)
