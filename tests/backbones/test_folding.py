from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from mmcl.backbones import ExpandableNetwork, freeze, unshared
from mmcl.backbones.cifar_resnet import cifar_resnet
from mmcl.backbones.convnet import convnet2
from mmcl.backbones.folding import MAPS_AT_ONCE, FoldedEvaluation
from mmcl.backbones.imagenet_resnet import imagenet_resnet
from mmcl.backbones.split import SplitBackbone

BACKBONES = {
    "cifar": lambda: cifar_resnet(14, width=8),
    "conv2": lambda: convnet2(8),
    "bottleneck": lambda: imagenet_resnet("bottleneck", [1, 1, 1, 1], width=4),
    "unshared": lambda: unshared(cifar_resnet(8, width=4)),
}


def frozen_backbone(make_backbone: object = BACKBONES["cifar"]) -> SplitBackbone:
    torch.manual_seed(0)
    backbone: SplitBackbone = make_backbone()  # type: ignore[operator]
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return freeze(backbone)


def assert_equal_within_tolerance(actual: Tensor, expected: Tensor) -> None:
    assert (actual - expected).abs().max() <= 1e-5 * expected.abs().max()


def images(count: int = 2) -> Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(count))


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("count", [0, 1, MAPS_AT_ONCE + 3])
def test_folded_equals_plain(name: str, count: int) -> None:
    backbone = frozen_backbone(BACKBONES[name])
    actual, expected = FoldedEvaluation()(backbone, images(count)), backbone(images(count))
    assert actual.shape == expected.shape
    assert count == 0 or (actual - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_gradients_flow_to_the_input_and_not_to_weights() -> None:
    backbone, evaluate = frozen_backbone(), FoldedEvaluation()
    gradients = []
    for forward in (backbone, lambda maps: evaluate(backbone, maps)):
        pixels = images(MAPS_AT_ONCE + 1).requires_grad_()
        forward(pixels).square().sum().backward()
        gradients.append(pixels.grad)
    assert_equal_within_tolerance(gradients[1], gradients[0])
    assert all(parameter.grad is None for parameter in backbone.parameters())


def test_a_changed_weight_or_buffer_is_met_at_once() -> None:
    backbone, evaluate = frozen_backbone(), FoldedEvaluation()
    evaluate(backbone, images())
    with torch.no_grad():
        backbone.trunk.stem[0].weight.mul_(2)
        backbone.branch.stage3[0].bn1.running_mean.add_(1)
    assert_equal_within_tolerance(evaluate(backbone, images()), backbone(images()))


@pytest.mark.parametrize("assign", [True, False])
def test_a_restored_state_is_met_at_once(assign: bool) -> None:
    backbone, evaluate = frozen_backbone(), FoldedEvaluation()
    evaluate(backbone, images())
    state = {
        name: tensor * 0.9 if tensor.is_floating_point() else tensor for name, tensor in backbone.state_dict().items()
    }
    backbone.load_state_dict(state, assign=assign)
    freeze(backbone)
    assert_equal_within_tolerance(evaluate(backbone, images()), backbone(images()))


def test_a_changed_dtype_is_followed() -> None:
    backbone, evaluate = frozen_backbone(), FoldedEvaluation()
    evaluate(backbone, images())
    backbone.double()
    assert evaluate(backbone, images().double()).dtype == torch.float64


def test_copies_built_in_inference_mode_serve_training() -> None:
    network = ExpandableNetwork(BACKBONES["cifar"], train_base=True, train_adaptive=False)
    for classes in (2, 4):
        network.expand(classes)
    with torch.inference_mode():
        network.eval()(images())
    network.train()(images(4)).logits.sum().backward()
    assert network.trunk.stem[0].weight.grad is not None


def test_training_modules_are_never_folded() -> None:
    backbone, evaluate = cifar_resnet(8, width=4), FoldedEvaluation()
    parameters = list(backbone.parameters())
    optimiser = torch.optim.SGD(parameters, lr=0.1, fused=True)
    with torch.no_grad():
        evaluate(backbone.eval(), images())
    backbone(images()).sum().backward()
    optimiser.step()
    with torch.no_grad():
        assert torch.equal(evaluate(backbone, images()), backbone(images()))


def test_copies_and_pickles_leave_the_views_behind() -> None:
    network = ExpandableNetwork(BACKBONES["cifar"], train_base=False, train_adaptive=False)
    for classes in (2, 4):
        network.expand(classes)
    names = list(network.state_dict())
    expected = network.eval()(images()).logits
    assert list(network.state_dict()) == names
    twin = copy.deepcopy(network)
    with torch.no_grad():
        network.trunk.stem[0].weight.zero_()
    assert torch.equal(twin(images()).logits, expected)
    assert isinstance(pickle.loads(pickle.dumps(FoldedEvaluation())), FoldedEvaluation)


class Untraceable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1)

    def forward(self, maps: Tensor) -> Tensor:
        output: Tensor = self.conv(maps) if maps.sum() > 0 else self.conv(-maps)
        return output


def test_a_module_that_cannot_be_traced_runs_as_it_is() -> None:
    module, evaluate = freeze(Untraceable()), FoldedEvaluation()
    assert torch.equal(evaluate(module, images()), module(images()))
