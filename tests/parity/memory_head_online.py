"""Online learners against recorded runs and their parts, with the recorded draws in the place of random numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mmcl.memory import stream_buffer
from mmcl.memory.stream_buffer import BalancedBuffer, RandomBuffer, ReservoirBuffer
from tests.methods.kinds import method_node
from tests.methods.online.learners import learn, learner, weights, without_trainer
from tests.parity import Golden, close, parity
from tests.parity.memory_head_layer import Case, cases

TRAJECTORY = 1e-4
RECORDED_WITH = ("optimizer", "lr", "weight_decay")
LEARNERS = {
    "ER_reservoir": ("er", "policy=reservoir"),
    "ER_random": ("er", "policy=random"),
    "AGEM": ("agem",),
    "MIR": ("mir",),
}


# ------------------------------------------------------------------ Memory Head


@parity("mh_stream2d")
def check_streams(golden: Golden) -> None:
    for case in cases(golden):
        method = learner("memory_head", *_typed(case), classes=case.option("out_features"))
        _load(case, method, "0")
        found: list[Tensor] = []
        method.network.register_forward_hook(lambda module, inputs, outputs, found=found: found.append(outputs))
        for step, (samples, labels) in enumerate(zip(case["X"], case["y"], strict=True)):
            found.clear()
            learn(method, samples, labels, len(labels))
            _check_step(case, method, step, found[0].detach(), labels)
        _check_end(case, method)


def _typed(case: Case) -> list[str]:
    typed = [f"{name}={_spelled(case.option(name))}" for name in RECORDED_WITH]
    options = {name.removeprefix("opt_") for name in case.arrays if name.startswith("opt_")}
    typed += [f"head.{key}={_spelled(case.option(key))}" for key in method_node("memory_head").head if key in options]
    return [*typed, f"up={case.option('in_features')}"] if case.option("two_layer") else typed


def _spelled(value: object) -> str:
    return "null" if value is None else str(value)


def _load(case: Case, method: Any, suffix: str) -> None:
    with torch.no_grad():
        method.head.K.copy_(case[f"K{suffix}"])
        method.head.M.copy_(case[f"M{suffix}"])
        if case.option("two_layer"):
            method.network[0].weight.copy_(case[f"up_weight{suffix}"])
            method.network[0].bias.copy_(case[f"up_bias{suffix}"])


def _check_step(case: Case, method: Any, step: int, logits: Tensor, labels: Tensor) -> None:
    head = method.head
    close(logits, case["logits_steps"][step], TRAJECTORY)
    close(cross_entropy(logits, labels), case["loss_steps"][step], TRAJECTORY)
    close(head.chosen, case["top_idx_steps"][step], 0)
    if step % 5 == 0:
        close(head.K.detach(), case["K_every5"][step // 5], TRAJECTORY)
    if head.scramble:
        close(head.mu, case["mu_steps"][step], 0)
        close(head.eta, case["eta_steps"][step], 0)
        close(head.scrambling_count, case["scr_steps"][step], 0)


def _check_end(case: Case, method: Any) -> None:
    close(method.head.K.detach(), case["K_final"], TRAJECTORY)
    close(method.head.M.detach(), case["M_final"], TRAJECTORY)
    if case.option("two_layer"):
        close(method.network[0].weight.detach(), case["up_weight_final"], TRAJECTORY)
        close(method.network[0].bias.detach(), case["up_bias_final"], TRAJECTORY)
    with torch.no_grad():
        close(method.eval().scores(case["eval_x"])["head"], case["eval_logits"], TRAJECTORY)


# ------------------------------------------------------------------ competitors


@parity("competitors")
def check_competitors(golden: Golden) -> None:
    for case in cases(golden):
        COMPETITOR_CHECKS[case.option("kind")](case)


class Draws:
    """Recorded numbers, in the order in which they were drawn."""

    def __init__(self) -> None:
        self.integers: list[int] = []
        self.distinct: list[Tensor] = []

    @contextmanager
    def used(self) -> Iterator[None]:
        """Give them out in the place of random ones; none may be left."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stream_buffer, "draw_integers", self._integers)
            patch.setattr(stream_buffer, "draw_distinct", self._distinct)
            yield
        assert not self.integers
        assert not self.distinct

    def _integers(self, below: int, count: int, numbers: torch.Generator) -> Tensor:
        drawn, self.integers = self.integers[:count], self.integers[count:]
        assert all(value < below for value in drawn)
        return torch.tensor(drawn)

    def _distinct(self, of: int, count: int, numbers: torch.Generator) -> Tensor:
        drawn = self.distinct.pop(0)
        assert len(drawn) == min(count, of)
        return drawn


def check_buffer(case: Case) -> None:
    """Buffers alone, in batches of several samples."""
    kind = {"ER_reservoir": ReservoirBuffer, "ER_random": RandomBuffer}[case.option("competitor")]
    buffer = kind(case.option("buffer_size"), 2)
    for step, (samples, labels) in enumerate(zip(case["X"], case["Y"], strict=True)):
        draws = Draws()
        draws.integers = case["randint_draws"][step][: case["n_randint"][step]].tolist()
        draws.distinct = [case["multinomial_draws"][step][: case["n_multinomial"][step]]]
        draws.distinct = [drawn for drawn in draws.distinct if len(drawn)]
        with draws.used():
            buffer.store(samples, labels, torch.Generator())
        close(buffer.samples, case["sample_buffer"][step], 0)
        close(buffer.labels, case["label_buffer"][step], 0)
        assert buffer.filled == case["current_index"][step]
        if isinstance(buffer, ReservoirBuffer):
            assert buffer.seen == case["n_seen"][step]


def check_run(case: Case) -> None:
    """Whole runs: losses, what is replayed, parameters and buffers after every step."""
    name, *policy = LEARNERS[case.option("competitor")]
    typed = [f"{key}={case.option(key)}" for key in ("optimizer", "lr", "buffer_size")]
    typed += [f"replay_size={case.option('buffer_batch_size')}", f"hidden={len(case['b1'])}", *policy]
    typed += [f"candidates={case.option('buffer_batch_size')}"] * (name == "mir")
    method = _with_weights(learner(name, *typed), case)
    replayed: list[Tensor] = []
    if name == "mir":
        add_gradient_of = method.add_gradient_of
        method.add_gradient_of = lambda *rows: (replayed.append(rows[0]), add_gradient_of(*rows))
    for step, (samples, labels) in enumerate(zip(case["X"], case["Y"], strict=True)):
        slots = case["replay_idx"][step][: case["n_replay"][step]]
        candidates = method.memory.samples[slots].clone()
        with _of_step(case, step, slots).used():
            learn(method, samples, labels)
        close(method._loss_sums["cross_entropy"], case["loss"][: step + 1].sum(), TRAJECTORY)
        close(method.replay_loss, case["replay_loss"][step], TRAJECTORY)
        close(weights(method), case["params_steps"][step], TRAJECTORY)
        close(method.memory.samples, case["sample_buffer_steps"][step], 0)
        close(method.memory.labels, case["label_buffer_steps"][step], 0)
        if name == "mir" and len(slots):
            close(replayed.pop(), candidates[case["replay_order"][step][: len(slots)]], 0)


def _of_step(case: Case, step: int, slots: Tensor) -> Draws:
    draws = Draws()
    draws.distinct = [slots] if len(slots) else []
    draws.integers = [value for value in case["buffer_randint"][step : step + 1].tolist() if value >= 0]
    draws.distinct += [value[None] for value in case["buffer_multinomial"][step : step + 1].flatten() if value >= 0]
    return draws


def check_agem_step(case: Case) -> None:
    """One projection, with and without a conflict."""
    method = _with_weights(learner("agem", f"hidden={len(case['b1'])}"), case)
    cross_entropy(method.network(case["x"]), case["y"]).backward()
    close(method._gradient(), case["grad"])
    without_trainer(method).replay(case["replay_x"], case["replay_y"])
    close(method._gradient(), case["grad_out"])
    assert torch.allclose(case["grad"], case["grad_out"]) != case.option("negative")


def check_retrieval(case: Case) -> None:
    """The candidates that a step would harm, the worst first."""
    size = case.option("num_retrieve")
    typed = (f"hidden={len(case['b1'])}", f"lr={case.option('beta_m')}", f"replay_size={size}", f"candidates={size}")
    method = _with_weights(learner("mir", *typed), case)
    cross_entropy(method.network(case["x"]), case["y"]).backward()
    drawn = case["candidate_idx"]
    samples, labels = method.retrieve(case["buffer_x"][drawn], case["buffer_y"][drawn])
    close(samples, case["out_x"], 0)
    close(labels, case["out_y"], 0)


def check_balanced_buffer(case: Case) -> None:
    """GDumb's memory, sample by sample."""
    buffer = BalancedBuffer(case.option("buffer_size"), 2)
    for step, (samples, labels) in enumerate(zip(case["X"], case["Y"], strict=True)):
        drawn = [value for value in case["randrange_draws"][step : step + 1].tolist() if value >= 0]
        buffer.store_by(samples, labels, lambda below, drawn=drawn: drawn.pop())
        assert not drawn
        rows = buffer.rows()
        expected = case["memory_x"][step]
        assert int((~expected[:, 0].isnan()).sum()) == buffer.filled
        close(rows["samples"], expected[: buffer.filled], 0)
        close(rows["labels"], case["memory_y"][step][: buffer.filled], 0)
        close(torch.bincount(rows["labels"], minlength=case.option("classes")), case["class_counts"][step], 0)


def check_gdumb_training(case: Case) -> None:
    """GDumb's training from weights that were drawn anew."""
    typed = [f"{name}={case.option(name)}" for name in ("optimizer", "lr")]
    typed += [f"hidden={len(case['b1'])}", f"replay_size={case.option('batch_size')}"]
    method = _with_weights(learner("gdumb", *typed, classes=len(case["b2"])), case)
    assert len(case["perms"]) == case.option("epochs")
    method.fit(case["mem_x"], case["mem_y"], list(case["perms"]))
    close(weights(method), case["params_final"], TRAJECTORY)


def check_ensemble(case: Case) -> None:
    """One joint step of plain SGD."""
    typed = ("optimizer=sgd", f"lr={case.option('lr')}", f"members={case.option('n')}", f"hidden={case['b1'].shape[1]}")
    method = learner("ensemble", *typed)
    for number, member in enumerate(method.network.members):
        _load_plain(member, *(case[name][number] for name in ("W1", "b1", "W2", "b2")))
    close(method.scores(case["x"])["head"].detach(), case["out"])
    learn(method, case["x"], case["y"], len(case["y"]))
    close(method._loss_sums["cross_entropy"] / len(case["y"]), case["loss"])
    close(weights(method), case["params_after"].flatten())


def _with_weights(method: Any, case: Case) -> Any:
    _load_plain(method.network, *(case[name] for name in ("W1", "b1", "W2", "b2")))
    return method


def _load_plain(network: nn.Module, *recorded: Tensor) -> None:
    with torch.no_grad():
        for parameter, values in zip(network.parameters(), recorded, strict=True):
            parameter.copy_(values)


COMPETITOR_CHECKS: dict[str, Callable[[Case], None]] = {
    "buffer": check_buffer,
    "run": check_run,
    "agem_step": check_agem_step,
    "mir_retrieve": check_retrieval,
    "gdumb_buffer": check_balanced_buffer,
    "gdumb_train": check_gdumb_training,
    "ensemble": check_ensemble,
}
