"""Backbones, expandable forward pass, parameter counts and weight aligning against golden values."""

from __future__ import annotations

import copy
import math

import numpy as np
import torch
from torch import nn

from mmcl.backbones import ExpandableNetwork, SplitBackbone, align_weights
from tests.parity import Golden, close, names, parity


@parity("backbones")
def check_backbones(golden: Golden) -> None:
    """Names, shapes, counts and outputs of every backbone filled by formula."""
    for name in golden["names"].tolist():
        backbone = names.build_arch(name).eval()
        _check_layout(backbone, golden, name)
        for part in (backbone.trunk, backbone.branch):
            _fill(part)
        images = 1.5 * _formula(tuple(golden[f"{name}.input_shape"].tolist()), 1000)
        with torch.no_grad():
            base = backbone.trunk(images.float())
            features = backbone.branch(base)
        assert base.shape == tuple(golden[f"{name}.base_shape"])
        _close_to_largest(base.mean(), golden[f"{name}.base_mean"])
        _close_to_largest(base.std(unbiased=False), golden[f"{name}.base_std"])
        _close_to_largest(base.flatten()[:32], golden[f"{name}.base_first32"])
        _close_to_largest(features, golden[f"{name}.features"])


def _check_layout(backbone: SplitBackbone, golden: Golden, name: str) -> None:
    parts = {"g": backbone.trunk, "s": backbone.branch}
    maps = {"g": names.trunk_names(backbone.trunk), "s": names.branch_names(backbone.branch, plain=False)}
    for letter, part in parts.items():
        assert list(maps[letter].values()) == golden[f"{name}.{letter}_names"].tolist()
        shapes = [list(part.state_dict()[ours].shape) for ours in maps[letter]]
        padded = [shape + [0] * (4 - len(shape)) for shape in shapes]
        np.testing.assert_array_equal(padded, golden[f"{name}.{letter}_shapes"])
        assert _count(part) == golden[f"{name}.{letter}_params"]
    assert _count(backbone) == golden[f"{name}.plain_params"]


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _formula(shape: tuple[int, ...], position: int) -> torch.Tensor:
    index = torch.arange(1, math.prod(shape) + 1, dtype=torch.int64)
    phase = ((index * index) % 1000003).double() * 0.6180339887498949 + 0.7548776662466927 * position
    return (2 * (phase - phase.floor()) - 1).reshape(shape)


def _fill(part: nn.Module) -> None:
    state = {name: tensor for name, tensor in part.state_dict().items() if "num_batches" not in name}
    for position, (name, tensor) in enumerate(state.items()):
        ratio = _formula(tuple(tensor.shape), position)
        if tensor.ndim >= 2:
            ratio = ratio * math.sqrt(6 / math.prod(tensor.shape[1:]))
        elif name.endswith("running_var"):
            ratio = 1 + 0.5 * ratio.abs()
        elif name.endswith("weight"):
            ratio = 1 + 0.1 * ratio
        else:
            ratio = 0.1 * ratio
        tensor.copy_(ratio)


def _close_to_largest(actual: torch.Tensor, expected: np.ndarray) -> None:
    close(actual.numpy() / np.abs(expected).max(), expected / np.abs(expected).max(), 1e-4)


@parity("param_counts")
def check_param_counts(golden: Golden) -> None:
    """Parameters of the whole network after each expansion."""
    for case in (f"c{i}" for i in range(int(golden["n_cases"]))):
        arch = str(golden[f"{case}.backbone"])
        network = ExpandableNetwork(lambda arch=arch: names.build_arch(arch), True, False)
        assert _count(network.trunk) == golden[f"{case}.before_first_task"]
        seen = np.cumsum(golden[f"{case}.task_sizes"]).tolist()
        counts = []
        for classes in seen:
            network.expand(classes)
            counts.append(_count(network))
        assert counts == golden[f"{case}.all_params_per_task"].tolist()


@parity("adaptive_forward")
def check_adaptive_forward(golden: Golden) -> None:
    """Expansion, and the forward pass in eval and train mode after each."""
    arch = str(golden["arch"])
    network = ExpandableNetwork(lambda: names.build_arch(arch), train_base=True, train_adaptive=True)
    images = torch.from_numpy(golden["x"])
    task_sizes = golden["task_sizes"].tolist()
    for task, size in enumerate(task_sizes):
        if task > 0:
            names.load_golden(network, golden, f"t{task}.before.")
        newest = {**network.branches[-1].state_dict()} if task > 0 else None
        network.expand(sum(task_sizes[:task]) + size)
        if newest is not None:
            _check_expansion(network, newest, golden, f"t{task}")
        names.load_golden(network, _blocks_so_far(golden, task, len(task_sizes)), "")
        if task < len(task_sizes) - 1:
            names.load_golden(network, golden, f"t{task}.state.")
        _check_forward(network, images, golden, f"t{task}")
        assert network.feature_dim * len(network.branches) == golden[f"t{task}.feature_dim"]
        assert network.task_sizes == golden[f"t{task}.task_sizes"].tolist()


def _blocks_so_far(golden: Golden, task: int, tasks: int) -> dict[str, np.ndarray]:
    """Return trunk and branches of the tasks so far, from the state of the last; heads only at the last."""
    prefix = f"t{tasks - 1}.state."
    state = {name.removeprefix(prefix): golden[name] for name in golden if name.startswith(prefix)}
    parts = ["TaskAgnosticExtractor.", *(f"AdaptiveExtractors.{i}." for i in range(task + 1))]
    parts += ["fc.", "aux_fc."] if task == tasks - 1 else []
    return {name: value for name, value in state.items() if name.startswith(tuple(parts))}


def _check_expansion(network: ExpandableNetwork, newest: dict[str, torch.Tensor], golden: Golden, task: str) -> None:
    copied = [torch.equal(tensor, newest[name]) for name, tensor in network.branches[-1].state_dict().items()]
    assert all(copied) == golden[f"{task}.new_equals_prev"]
    before, after = golden[f"{task}.before.fc.weight"], golden[f"{task}.after.fc.weight"]
    weight = network.head.weight.detach().numpy()
    assert weight.shape == after.shape
    rows, columns = before.shape
    np.testing.assert_array_equal(weight[:rows, :columns], after[:rows, :columns])
    np.testing.assert_array_equal(network.head.bias.detach().numpy(), golden[f"{task}.after.fc.bias"])
    assert np.abs(weight[rows:]).max() <= math.sqrt(3 / weight.shape[1]) + 1e-6
    assert np.abs(weight[:, columns:]).max() <= math.sqrt(3 / weight.shape[1]) + 1e-6


def _check_forward(network: ExpandableNetwork, images: torch.Tensor, golden: Golden, task: str) -> None:
    expected = {"logits": "logits", "auxiliary_logits": "aux_logits"}
    with torch.no_grad():
        output = network.eval()(images)._asdict()
        for ours, theirs in (expected | {"features": "features", "base": "base_features"}).items():
            close(output[ours], golden[f"{task}.eval.{theirs}"])
        trained = copy.deepcopy(network).train()
        output = trained(images)._asdict()
    for ours in ("logits", "auxiliary_logits"):
        close(output[ours], golden[f"{task}.train.{expected[ours]}"])
    first_norm = next(module for module in trained.modules() if isinstance(module, nn.BatchNorm2d))
    close(first_norm.running_mean, golden[f"{task}.train.first_bn_running_mean"])
    close(first_norm.running_var, golden[f"{task}.train.first_bn_running_var"])


@parity("weight_align")
def check_weight_align(golden: Golden) -> None:
    """Aligned weights and their factor."""
    for case in (f"c{i}" for i in range(int(golden["n_cases"]))):
        weight = torch.from_numpy(golden[f"{case}.weight_before"])
        aligned, gamma = align_weights(weight, int(golden[f"{case}.increment"]))
        close(aligned, golden[f"{case}.weight_after"])
        close(gamma, golden[f"{case}.gamma"])
