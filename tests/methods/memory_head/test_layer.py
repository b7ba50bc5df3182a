"""The Memory Head as a layer: states, copies, processes, precision, bad input."""

from __future__ import annotations

import copy
import io
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from experiments.speed import memory_head as speed
from mmcl.errors import UserError
from mmcl.methods.memory_head import MHLinear, matching
from tests.methods.memory_head.heads import LEARNING, head, state_of, train

BUSY: dict[str, Any] = {**LEARNING, "tau_alpha": 0.9, "tau_mu": 4, "tau_eta": 6, "beta_k": 0.2}


def batches(count: int, size: int = 4, seed: int = 1) -> list[Tensor]:
    return list(torch.randn(count, size, 5, generator=torch.Generator().manual_seed(seed)))


def same_state(first: MHLinear, second: MHLinear) -> None:
    states = [state_of(made) for made in (first, second)]
    assert states[0].keys() == states[1].keys()
    for name, tensor in states[0].items():
        torch.testing.assert_close(tensor, states[1][name], rtol=1e-6, atol=1e-7, msg=name)


# ------------------------------------------------------------------ beginning


def test_keys_are_drawn_before_units() -> None:
    torch.manual_seed(3)
    made = MHLinear(5, 3, key_mem_units=4, upd_m="WTA", upd_k="ad_hoc_WTA", scramble=True, tau_eta=7)
    torch.manual_seed(3)
    keys = torch.empty(1, 4, 5).uniform_(-1 / math.sqrt(5), 1 / math.sqrt(5))
    units = torch.empty(1, 4, 18).uniform_(-1 / math.sqrt(18), 1 / math.sqrt(18))
    torch.testing.assert_close(made.K, keys / keys.norm(dim=2, keepdim=True))
    assert made.M.equal(units)
    assert made.eta.unique().tolist() == [7]
    assert not any(getattr(made, name).any() for name in ("mu", "key_counter", "scrambling_count"))


def test_sizes_follow_from_the_options() -> None:
    assert MHLinear(5, 3, shared_keys=False).M.shape == (3, 2, 6)
    assert MHLinear(5, 3, bias=False, layer_norm=True).M.shape == (1, 2, 25)
    assert MHLinear(8, 3, key_size=4, psi_fn="resize1d").K.shape == (1, 2, 4)
    assert {name for name, _ in MHLinear(5, 3).named_parameters()} == {"K", "M"}
    assert {name for name, _ in head(**LEARNING).named_parameters()} == {"M"}


@pytest.mark.parametrize("words", [("vanilla", "grad_not_WTA"), ("none", "none"), (None, None)])
def test_both_spellings_are_one_rule(words: tuple[Any, Any]) -> None:
    made = MHLinear(5, 3, upd_m=words[0], upd_k=words[1])
    assert (made.upd_m, made.upd_k) == (None, None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"upd_m": "wta"}, "upd_m=wta: expected null, none, vanilla, WTA. Did you mean 'WTA'?"),
        ({"upd_k": "adhoc_WTA"}, "Did you mean 'ad_hoc_WTA'"),
        ({"distance": "cos"}, "distance=cos: expected cosine, euclidean, dot_scaled. Did you mean 'cosine'"),
        ({"psi_fn": "resize"}, "psi_fn=resize"),
        ({"upd_m": "WTA"}, "upd_m=WTA with upd_k=None: expected upd_k=ad_hoc_WTA or upd_k=grad_WTA"),
        ({"upd_k": "ad_hoc_WTA", "beta_k": None}, "beta_k=null with upd_k=ad_hoc_WTA"),
        ({"key_mem_units": 0}, "key_mem_units=0: expected at least 1"),
        ({"delta": 0}, "delta=0: expected at least 1"),
        ({"sigma_eu": 0}, "sigma_eu=0: expected more than 0"),
        ({"memory_id_routing": "top1"}, "memory_id_routing=top1: .* not supported"),
        ({"layer_norm_by": "mean"}, "layer_norm_by=mean"),
    ],
)
def test_what_does_not_exist_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        MHLinear(5, 3, **options)


def test_unknown_arguments_are_no_options() -> None:
    MHLinear(5, 3, memory_id_routing=None, propagate=False)
    with pytest.raises(TypeError, match="no argument 'keys'"):
        MHLinear(5, 3, keys=4)


# ------------------------------------------------------------------ bad input


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("distance", matching.DISTANCES)
@pytest.mark.parametrize("psi", ["identity", "sign"])
@pytest.mark.parametrize("training", [True, False])
def test_values_that_are_no_numbers_change_nothing(value: float, distance: str, psi: str, training: bool) -> None:
    made = head(**BUSY, distance=distance, psi_fn=psi)
    train(made, batches(3))
    before, bad = state_of(made), torch.randn(4, 5)
    bad[2, 3] = value
    with pytest.raises(UserError, match="inputs of a Memory Head have NaN or infinite values in 1 of 4 .*first: 2"):
        made.train(training)(bad)
    assert all(tensor.equal(before[name]) for name, tensor in state_of(made).items())
    made.update()  # repeats the batch before
    assert all(tensor.isfinite().all() for tensor in state_of(made).values())


def test_queries_of_their_own_are_looked_at() -> None:
    made = head(**BUSY, key_input=True, key_size=2, distance="euclidean")
    with pytest.raises(UserError, match="call set_input_for_keys"):
        made(torch.randn(4, 5))
    made.set_input_for_keys(torch.tensor([[0.0, math.inf]]).expand(4, 2))
    with pytest.raises(UserError, match="queries of a Memory Head have NaN"):
        made(torch.randn(4, 5))
    queries = torch.randn(4, 2)
    made.set_input_for_keys(queries)
    assert made(torch.randn(4, 5)).shape == (4, 3)
    _, nearest = matching.best(matching.responses(queries, made.K, "euclidean", 1.0, cosine_scale=True), 2)
    assert made.chosen is not None
    assert made.chosen.equal(nearest)


def test_large_numbers_are_no_error() -> None:
    made = head(**LEARNING)
    assert made(torch.full((2, 5), 3e37)).isfinite().all()


def test_inputs_of_another_size_are_refused() -> None:
    with pytest.raises(UserError, match="inputs of size 5, not 6; type in_features=6"):
        head()(torch.randn(2, 6))
    with pytest.raises(UserError, match="into 5 numbers, but key_size is 3"):
        MHLinear(5, 3, key_size=3)(torch.randn(2, 5))


# ------------------------------------------------------------------ update


def test_an_update_needs_a_training_batch() -> None:
    made = head(**BUSY)
    with pytest.raises(RuntimeError, match="needs a forward pass in training mode"):
        made.update()
    made.eval()(torch.randn(4, 5))
    with pytest.raises(RuntimeError, match="needs a forward pass in training mode"):
        made.update()


def test_in_evaluation_the_last_training_batch_gets_new_winners() -> None:
    made, first, second = head(**LEARNING, tau_alpha=-9.0, distance="euclidean"), *batches(2)
    made(first)
    queries, best = first, made.remembered.best
    keys = made.K.clone()
    made.eval()(second)
    assert made.chosen is not None
    assert best is not None
    for sample, key in enumerate(made.chosen[:, 0, 0].tolist()):
        pull = best[sample, 0] * (queries[sample] - made.K[0, key])
        keys[0, key] += 0.001 / math.sqrt(5) * pull
    made.update()
    torch.testing.assert_close(made.K, keys)
    made.train()(second[:3])
    made.eval()(second)
    with pytest.raises(RuntimeError, match="last training batch had 3 samples, the last forward pass 4"):
        made.update()


def in_turn(heads: list[MHLinear], rows: list[Tensor], counted: list[Tensor | None]) -> None:
    """Let processes take one step on their rows, of which each gather sees all, in the order of the global batch."""
    for made, own in zip(heads, rows, strict=True):
        made(own).square().sum().backward()
    asked: list[Tensor] = []

    def note(rows: Tensor) -> Tensor:
        asked.append(rows)
        raise InterruptedError

    for made, mask in zip(heads, counted, strict=True):
        with pytest.raises(InterruptedError):
            made.update(note, mask)
    everything = torch.stack(asked, dim=1).flatten(0, 1)
    for made, mask in zip(heads, counted, strict=True):
        made.update(lambda _: everything, mask)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(matching.DISTANCES), st.booleans(), st.integers(1, 3))
def test_two_processes_keep_the_keys_of_one(seed: int, distance: str, shared: bool, delta: int) -> None:
    options = {**BUSY, "distance": distance, "shared_keys": shared, "delta": delta}
    alone, pair = head(seed, **options), [head(seed, **options) for _ in range(2)]
    for inputs in batches(4, size=6, seed=seed):
        alone(inputs).square().sum().backward()
        alone.update()
        in_turn(pair, [inputs[0::2], inputs[1::2]], [None, None])
    for made in pair:
        same_state(made, alone)


def test_a_placeholder_does_not_count() -> None:
    alone, pair = head(**BUSY), [head(**BUSY) for _ in range(2)]
    for inputs in batches(4, size=3):
        alone(inputs).square().sum().backward()
        alone.update()
        counted = [torch.tensor([True, True]), torch.tensor([True, False])]
        in_turn(pair, [inputs[[0, 2]], inputs[[1, 0]]], list(counted))
    for made in pair:
        same_state(made, alone)
    before = state_of(alone)
    alone(torch.randn(2, 5))
    alone.update(counted=torch.tensor([False, False]))
    assert all(tensor.equal(before[name]) for name, tensor in state_of(alone).items())


def test_random_units_are_the_same_on_all_processes() -> None:
    pair = [head(**BUSY, random_memories=True) for _ in range(2)]
    rows = batches(2, size=2)
    for made, own in zip(pair, rows, strict=True):
        made(own)
    draws = iter([torch.rand(2, 18)] * 2)
    everything: list[Tensor] = []

    def gather(own: Tensor) -> Tensor:
        if own.shape[1] == 18:
            return next(draws)
        everything.append(own)
        return torch.cat([own, own])

    for made in pair:
        made.remembered = copy.deepcopy(pair[0].remembered)
        made.update(gather)
    assert pair[0].scrambling_count.item() == 1
    assert pair[0].M.equal(pair[1].M)


def test_every_backward_pass_of_an_accumulated_batch_updates() -> None:
    made, first, second = head(**LEARNING), *batches(2)
    for inputs in (first, second):
        made(inputs).sum().backward()
        made.update()
    assert made.mu.sum().item() == len(first) + len(second)
    assert made.M.grad is not None
    total = made.M.grad.clone()
    assert made.key_counter.sum().item() == len(first) + len(second)
    assert total.any()


def test_the_plain_cosine_is_compared_and_the_attention_stays() -> None:
    published, plain = (head(**BUSY, cosine_scale=scale) for scale in (True, False))
    inputs = batches(1)[0]
    torch.testing.assert_close(plain(inputs), published(inputs))
    assert published.remembered.best is not None
    assert plain.remembered.best is not None
    torch.testing.assert_close(plain.remembered.best, published.remembered.best * math.sqrt(5))


def test_standardised_by_its_deviation() -> None:
    made = MHLinear(5, 5, bias=False, layer_norm=True, layer_norm_by="deviation", key_mem_units=1)
    made.M.data[0, 0, :25] = torch.eye(5).flatten()
    outputs = made(torch.randn(3, 5) * 7 + 2)
    torch.testing.assert_close(outputs.mean(dim=1), torch.zeros(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(outputs.std(dim=1), torch.ones(3), rtol=0, atol=1e-4)


# ------------------------------------------------------------------ copies and states


def copied(made: MHLinear) -> MHLinear:
    return copy.deepcopy(made)


def pickled(made: MHLinear) -> MHLinear:
    restored: MHLinear = pickle.loads(pickle.dumps(made))
    return restored


@pytest.mark.parametrize("duplicate", [copied, pickled])
def test_a_copy_goes_its_own_way(duplicate: Callable[[MHLinear], MHLinear]) -> None:
    made = head(**BUSY)
    train(made, batches(2))
    made(batches(1, seed=5)[0]).sum().backward()
    twin, before = duplicate(made), state_of(made)
    twin.update()
    assert all(tensor.equal(before[name]) for name, tensor in state_of(made).items())
    assert not twin.K.equal(made.K)
    made.update()
    same_state(made, twin)


def test_a_loaded_state_goes_on_alike() -> None:
    made = head(**BUSY)
    train(made, batches(3))
    made.beta_k, made.scramble = 0.0, False
    buffer = io.BytesIO()
    torch.save(made.state_dict(), buffer)
    buffer.seek(0)
    other = head(seed=9, **BUSY)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    assert (other.beta_k, other.scramble) == (0.0, False)
    for each in (made, other):
        train(each, batches(3, seed=4))
    same_state(made, other)


def test_a_state_of_tensors_alone_keeps_step_and_scrambling() -> None:
    made, tensors = head(**BUSY), state_of(head(seed=9, **BUSY))
    assert set(tensors) == {"K", "M", "mu", "eta", "key_counter", "scrambling_count"}
    made.load_state_dict(tensors)
    assert (made.beta_k, made.scramble) == (0.2, True)
    assert made.K.equal(tensors["K"])


def test_states_of_other_heads_are_refused() -> None:
    nets = [nn.Sequential(head(**{**BUSY, **options})) for options in ({}, {"key_mem_units": 7}, {"scramble": False})]
    with pytest.raises(
        UserError, match=r"state's 0.M has the size \(1, 7, 18\), but this Memory Head's is \(1, 6, 18\)"
    ):
        nets[0].load_state_dict(nets[1].state_dict())
    with pytest.raises(UserError, match="saved with scramble=false"):
        nets[0].load_state_dict(nets[2].state_dict())
    with pytest.raises(UserError, match="saved with scramble=true"):
        nets[2].load_state_dict(nets[0].state_dict())


# ------------------------------------------------------------------ surroundings


def test_keys_and_counters_stay_in_float32_under_autocast() -> None:
    plain, mixed, inputs = head(**BUSY), head(**BUSY), batches(1)[0].bfloat16()
    plain(inputs.float()).square().sum().backward()
    with torch.autocast("cpu", torch.bfloat16):
        outputs = mixed(inputs)
        outputs.square().sum().backward()
    assert outputs.dtype == torch.float32
    for made in (plain, mixed):
        made.update()
    assert all(tensor.equal(state_of(plain)[name]) for name, tensor in state_of(mixed).items())
    assert plain.M.grad is not None
    assert mixed.M.grad is not None
    torch.testing.assert_close(mixed.M.grad, plain.M.grad, rtol=0.02, atol=0.02)  # a backward pass under autocast


def test_a_net_around_the_head_can_be_compiled() -> None:
    torch.manual_seed(0)
    before = nn.Sequential(nn.Linear(4, 5), nn.Tanh())
    plain, compiled = (nn.Sequential(copy.deepcopy(before), head(**BUSY)) for _ in range(2))
    inputs = torch.randn(3, 4)
    run = torch.compile(compiled, backend="eager")
    for net, call in ((plain, plain), (compiled, run)):
        for _ in range(2):
            call(inputs).square().sum().backward()
            net[1].update()  # type: ignore[operator]
    same_state(compiled[1], plain[1])  # type: ignore[arg-type]
    assert compiled[0][0].weight.grad.equal(plain[0][0].weight.grad)  # type: ignore[index]


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
@pytest.mark.parametrize(
    "name", ["head 768->10, batch 8", "head 768->10, delta 2, batch 8", "stream 2->4, cosine, Adam"]
)
def test_the_straightforward_form_agrees(name: str) -> None:
    torch.manual_seed(0)
    work = speed.WORKS[name][1]()
    ours = work.heads()
    assert speed.difference(ours, [speed.PerSampleHead(made) for made in ours], work) < 1e-6
