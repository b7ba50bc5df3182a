"""Training of the whole network on exemplars, differentiated: against differences, and both forms to each other."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from mmcl.backbones.aggregated import AggregatedNetwork
from mmcl.backbones.freezing import freeze
from mmcl.methods.mnemonics.bilevel import UnrolledNetwork
from mmcl.methods.mnemonics.unrolling import UNROLLINGS, inner_parameter_names
from tests.methods.mnemonics import cases

FORMS = sorted(UNROLLINGS)


def gradient_of(level: UnrolledNetwork, case: cases.Case) -> Tensor:
    (gradient,) = torch.autograd.grad(level(*case), case.exemplars)
    return gradient


@pytest.mark.parametrize("scales", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_gradient_is_that_of_finite_differences(form: str, scales: bool) -> None:
    level = UnrolledNetwork(cases.network(scales, torch.float64), inner_lr=0.05, inner_steps=3, unrolling=form)
    case = cases.case(torch.float64)
    gradient = gradient_of(level, case)
    directions = [gradient / gradient.norm(), torch.randn_like(gradient)]
    # Longer steps would jump over the kinks of ReLUs.
    step = 1e-8
    for direction in directions:
        ahead, behind = (level(case.exemplars.detach() + sign * step * direction, *case[1:]).item() for sign in (1, -1))
        slope = float((gradient * direction).sum())
        assert abs(slope) > 1e-4
        assert (ahead - behind) / (2 * step) == pytest.approx(slope, rel=1e-4)


@pytest.mark.parametrize("scales", [False, True])
@pytest.mark.parametrize("steps", [0, 1, 4])
def test_both_forms_are_the_same_number(steps: int, scales: bool) -> None:
    network, case = cases.network(scales), cases.case()
    levels = [UnrolledNetwork(network, 0.05, steps, form) for form in ("stepwise", "whole_graph")]
    losses = [level(*case) for level in levels]
    assert losses[0].item() == losses[1].item()
    if steps:
        stepwise, whole = (gradient_of(level, case) for level in levels)
        assert whole.abs().max() > 1e-5
        assert cases.apart(stepwise, whole) < 1e-5


def test_without_steps_the_exemplars_do_not_matter() -> None:
    assert not gradient_of(UnrolledNetwork(cases.network(), 0.05, 0, "stepwise"), cases.case()).any()


@pytest.mark.parametrize("scales", [False, True])
def test_both_forms_agree_under_autocast_and_come_near_to_float32(scales: bool) -> None:
    network, case = cases.network(scales), cases.case()
    levels = [UnrolledNetwork(network, 0.05, 3, form) for form in ("stepwise", "whole_graph")]
    exact = gradient_of(levels[1], case)
    gradients = []
    for level in levels:
        with torch.autocast("cpu", torch.bfloat16):
            loss = level(*case)
        assert loss.dtype == torch.float32
        gradients.append(torch.autograd.grad(loss, case.exemplars)[0])
    stepwise, whole = gradients
    assert cases.apart(stepwise, whole) < 0.02
    assert torch.cosine_similarity(stepwise.flatten(), exact.flatten(), dim=0) > 0.98


@pytest.mark.parametrize("trains", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_the_network_is_left_as_it_was(form: str, trains: bool) -> None:
    network, case = cases.network(scales=True).train(trains), cases.case()
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    UnrolledNetwork(network, 0.05, 3, form)(*case).backward()
    assert all(torch.equal(state[name], tensor) for name, tensor in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize("form", FORMS)
def test_a_frozen_network_gives_the_same_gradient(form: str) -> None:
    network, case = cases.network(scales=True), cases.case()
    level = UnrolledNetwork(network, 0.05, 2, form)
    expected = gradient_of(level, case)
    freeze(network)
    assert torch.equal(gradient_of(level, case), expected)


@pytest.mark.parametrize("form", FORMS)
def test_an_ordinary_backward_pass_reaches_the_hooks_of_the_exemplars(form: str) -> None:
    case, called = cases.case(), []
    case.exemplars.register_post_accumulate_grad_hook(lambda leaf: called.append(leaf.grad))
    level = UnrolledNetwork(cases.network(), 0.05, 2, form)
    (3 * level(*case)).backward()
    assert len(called) == 1
    assert cases.apart(called[0], 3 * gradient_of(level, case)) < 1e-5


def test_inner_training_moves_scales_but_not_what_they_scale() -> None:
    plain, scaled = (inner_parameter_names(cases.network(scales)) for scales in (False, True))
    convolutions = [name for name in plain if "conv" in name or "downsample.0" in name]
    assert set(scaled) == set(plain) - set(convolutions) | {name.replace(".weight", ".scale") for name in convolutions}
    assert {"head.weight_old", "head.weight_new", "head.sigma"} <= set(scaled)


@pytest.mark.parametrize("plastic", ["free", "fixed"])
def test_two_branches(plastic: str) -> None:
    network, case = AggregatedNetwork.of(cases.network(), plastic=plastic), cases.case()
    names = inner_parameter_names(freeze(network))
    assert "shares" not in names
    assert any(name.startswith("plastic.") for name in names) == (plastic == "free")
    stepwise, whole = (
        gradient_of(UnrolledNetwork(network, 0.05, 3, form), case) for form in ("stepwise", "whole_graph")
    )
    assert whole.abs().max() > 1e-5
    assert cases.apart(stepwise, whole) < 1e-5


class _Saved:
    """A tensor that a graph holds."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


class SavedBytes:
    """Counts the bytes that graphs hold, now and at most."""

    def __init__(self) -> None:
        self.now = self.most = 0

    def pack(self, tensor: Tensor) -> _Saved:
        saved, size = _Saved(tensor), tensor.numel() * tensor.element_size()
        self._add(size)
        weakref.finalize(saved, self._add, -size)
        return saved

    def unpack(self, saved: _Saved) -> Tensor:
        return saved.tensor

    def _add(self, size: int) -> None:
        self.now += size
        self.most = max(self.most, self.now)


def most_saved(form: str, steps: int, **options: Any) -> int:
    case, count = cases.case(), SavedBytes()
    with saved_tensors_hooks(count.pack, count.unpack):
        UnrolledNetwork(cases.network(**options), 0.05, steps, form)(*case).backward()
    return count.most


def test_stepwise_holds_the_graph_of_one_step_however_many_there_are() -> None:
    few, many = (most_saved("stepwise", steps) for steps in (2, 8))
    assert many == few
    whole = [most_saved("whole_graph", steps) for steps in (2, 8)]
    assert whole[1] > 2 * whole[0]
    assert whole[1] > 4 * many
