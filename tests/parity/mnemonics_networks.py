"""Parity with Mnemonics' vectors: cosine classifiers, scaled and shifted convolutions, imprinting, mixed branches."""

from __future__ import annotations

import copy

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcl.backbones.aggregated import AggregatedNetwork
from mmcl.backbones.cosine_head import CosineHead, imprinted_rows
from mmcl.backbones.scale_shift import ScaleShiftConv2d, merged, scale_and_shift
from tests.parity import Golden, parity
from tests.parity.official_nets import near, tiny_aggregated

HEAD_PARTS = {
    "cos/": {"weight_new": "weight", "sigma": "sigma"},
    "cos_nosigma/": {"weight_new": "weight"},
    "split/": {"weight_old": "weight_old", "weight_new": "weight_new", "sigma": "sigma"},
}


@parity("cosine_heads")
def check_cosine_heads(golden: Golden) -> None:
    for case, parts in HEAD_PARTS.items():
        features = torch.from_numpy(golden[f"{case}x"]).requires_grad_()
        head = _head(golden, case)
        output = head.sigma * head(features)
        output.backward(torch.from_numpy(golden[f"{case}grad_out"]))
        near(output.detach(), golden[f"{case}out"])
        near(features.grad, golden[f"{case}grad_x"])
        for ours, theirs in parts.items():
            near(getattr(head, ours).grad, golden[f"{case}grad_{theirs}"])


def _head(golden: Golden, case: str) -> CosineHead:
    """Return a head of recorded rows; without a recorded sigma, it is 1."""
    head = CosineHead(golden[f"{case}x"].shape[1])
    for ours, theirs in HEAD_PARTS[case].items():
        setattr(head, ours, nn.Parameter(torch.from_numpy(golden[f"{case}{theirs}"])))
    return head


@parity("scale_shift_conv")
def check_scale_shift(golden: Golden) -> None:
    for index in range(int(golden["n_cases"])):
        prefix = f"case{index}/"
        _check_convolution(golden, {name.removeprefix(prefix): golden[name] for name in golden if prefix in name})


def _check_convolution(golden: Golden, case: dict[str, np.ndarray]) -> None:
    maps = torch.from_numpy(case["x"]).requires_grad_()
    convolution = _convolution(case)
    output = convolution(maps)
    output.backward(torch.from_numpy(case["grad_out"]))
    near(output.detach(), case["out"])
    near(merged(convolution)(maps).detach(), case["out"])
    near(maps.grad, case["grad_x"])
    parts = ["scale", "shift"] if int(case["has_bias"]) else ["scale"]
    for part in parts:
        near(getattr(convolution, part).grad, case[f"grad_{part}"])
    trained = [parameter for parameter in convolution.parameters() if parameter.requires_grad]
    lr, momentum, decay = (float(golden[f"sgd_{key}"]) for key in ("lr", "momentum", "wd"))
    optimizer = torch.optim.SGD(trained, lr, momentum=momentum, weight_decay=decay)
    for _ in range(2):
        optimizer.step()
    for part in parts:
        near(getattr(convolution, part).detach(), case[f"{part}_after_2_identical_sgd_steps"])


def _convolution(case: dict[str, np.ndarray]) -> ScaleShiftConv2d:
    groups, weight = int(case["groups"]), torch.from_numpy(case["weight"])
    sizes = {key: int(case[key]) for key in ("stride", "padding", "dilation")}
    outputs, inputs, *kernel = weight.shape
    plain = nn.Conv2d(inputs * groups, outputs, kernel, groups=groups, bias=bool(case["has_bias"]), **sizes)
    made = scale_and_shift(plain)
    assert isinstance(made, ScaleShiftConv2d)
    state = {name: torch.from_numpy(case[name]) for name in ("weight", "bias", "scale", "shift") if name in case}
    made.load_state_dict(state)
    return made


@parity("imprint")
def check_imprint(golden: Golden) -> None:
    weight_old, features = torch.from_numpy(golden["weight_old"]), torch.from_numpy(golden["new_class_features"])
    classes = range(len(weight_old), len(weight_old) + len(features))
    labels = torch.tensor(classes).repeat_interleave(features.shape[1])
    near(imprinted_rows(weight_old, features.flatten(0, 1), labels, classes), golden["weight_new"])


@parity("aanets_fusion")
def check_mixed_branches(golden: Golden) -> None:
    network = tiny_aggregated(golden, "b1", "b2", golden["alpha"])
    images, labels = torch.from_numpy(golden["x"]), torch.from_numpy(golden["y"])
    for same in (network, copy.deepcopy(network), network.frozen_copy()):
        output = same(images)
        near(output.features.detach(), golden["features"])
        near(output.logits.detach(), golden["logits"])
        near(F.cross_entropy(output.logits, labels).detach(), golden["loss"])
    near(_gradient_of_shares(network, images, labels), golden["alpha_grad"])
    _check_steps(golden, network)


def _gradient_of_shares(network: AggregatedNetwork, images: Tensor, labels: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(F.cross_entropy(network(images).logits, labels), [network.shares])
    return gradient


def _check_steps(golden: Golden, network: AggregatedNetwork) -> None:
    """Three steps of the shares, each from its own gradient alone."""
    lr, momentum, decay = (float(golden[f"alpha_{key}"]) for key in ("lr", "momentum", "wd"))
    optimizer = torch.optim.SGD([network.shares], lr, momentum=momentum, weight_decay=decay)
    for step, expected in enumerate(golden["alpha_after_zero_grad"]):
        images, labels = (torch.from_numpy(golden[f"balanced/{part}{step}"]) for part in "xy")
        network.shares.grad = _gradient_of_shares(network, images, labels)
        optimizer.step()
        near(network.shares.detach(), expected)
