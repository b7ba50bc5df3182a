"""The Memory Head against recorded computations, each through the layer that the runs use."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mmcl.methods.memory_head import MHLinear, matching
from mmcl.methods.memory_head.blending import blended_units
from tests.parity import Golden, close, parity

ARGUMENTS = inspect.signature(MHLinear).parameters
COUNTS = ("mu", "eta", "key_counter", "scrambling_count")


class Case:
    """One recorded case: its options, and its arrays as tensors."""

    def __init__(self, golden: Golden, number: int) -> None:
        prefix = f"c{number:02d}__"
        self.arrays = {name[len(prefix) :]: golden[name] for name in golden if name.startswith(prefix)}

    def __getitem__(self, name: str) -> Tensor:
        return torch.from_numpy(np.array(self.arrays[name]))

    def option(self, name: str) -> Any:
        value = self.arrays[f"opt_{name}"].item()
        return None if value == "none" else value

    def head(self, suffix: str = "") -> MHLinear:
        """Build the head and give it the recorded keys and units, and the counters of a moment if it has a suffix."""
        options = [name[4:] for name in self.arrays if name.startswith("opt_")]
        head = MHLinear(**{name: self.option(name) for name in options if name in ARGUMENTS})
        for name in ("K", "M", *(COUNTS if suffix else ())):
            if hasattr(head, name):
                getattr(head, name).data.copy_(self[f"{name}{suffix}"])
        return head

    def same_state(self, head: MHLinear, suffix: str) -> None:
        close(head.K.detach(), self[f"K{suffix}"])
        close(head.M.detach(), self[f"M{suffix}"])
        for name in COUNTS:
            if hasattr(head, name):
                close(getattr(head, name), self[f"{name}{suffix}"], tolerance=0)


def cases(golden: Golden) -> Iterator[Case]:
    for number in range(int(golden["n_cases"])):
        yield Case(golden, number)


@parity("psi")
def check_psi(golden: Golden) -> None:
    for case in cases(golden):
        inputs, psi, key_size = case["x"], case.option("mode"), case.option("key_size")
        if psi.startswith("routing_"):
            inputs = matching.with_unit_ids(inputs, case["maps"], case["prev_top_idx"], psi.removeprefix("routing_"))
            psi = "identity"
        close(matching.query(inputs, psi, key_size, case.option("normalize")), case["out"])


@parity("mh_forward")
def check_forward(golden: Golden) -> None:
    for case in cases(golden):
        head, inputs = case.head(), case["x"]
        queries, matches = head._match(inputs)
        best, chosen = matching.best(matches, head.delta)
        close(queries.detach(), case["x_key"])
        close(best.detach(), case["top_resp"])
        close(chosen, case["top_idx"], tolerance=0)
        shares = head._attend(best).detach()
        close(shares, case["alpha"])
        close(blended_units(head.M, shares, chosen, matches, wta=True).detach(), case["W"])
        close(head(inputs).detach(), case["out"])
        close(head.K.detach(), case["K_after"])
        if head.scramble:
            close(head.key_counter, case["key_counter"], tolerance=0)
            head(inputs)
            head.eval()(inputs)
            close(head.key_counter, case["key_counter_after3"], tolerance=0)


@parity("mh_grads")
def check_gradients(golden: Golden) -> None:
    for case in cases(golden):
        head, before = case.head(), nn.Linear(*reversed(case["up_weight"].shape))
        before.weight.data.copy_(case["up_weight"])
        before.bias.data.copy_(case["up_bias"])
        hidden = before(case["x0"]).tanh()
        hidden.retain_grad()
        logits = head(hidden)
        loss = cross_entropy(logits, case["y"])
        close(head.K.detach(), case["K_after_forward"])
        loss.backward()
        head.update()
        close(hidden.detach(), case["h"])
        close(logits.detach(), case["logits"])
        close(loss.detach(), case["loss"])
        close(head.M.grad, case["grad_M"])
        if head.upd_k != "ad_hoc_WTA":
            close(head.K.grad, case["grad_K"])
        close(hidden.grad, case["grad_h"])
        close(before.weight.grad, case["grad_up_weight"])
        close(before.bias.grad, case["grad_up_bias"])
        close(head.K.detach(), case["K_after_backward"])
        torch.optim.SGD(head.parameters(), lr=float(case["lr"])).step()
        close(head.M.detach(), case["M_after_step"])
        close(head.K.detach(), case["K_after_step"])


@parity("mh_key_update")
def check_key_update(golden: Golden) -> None:
    for case in cases(golden):
        head, inputs = case.head("0"), case["x"]
        outputs = head(inputs)
        close(head.chosen, case["top_idx"], tolerance=0)
        close(outputs.detach(), case["out"])
        (outputs * case["wout"]).sum().backward()
        head.update()
        close(head.M.grad, case["grad_M"])
        if head.upd_k != "ad_hoc_WTA":
            close(head.K.grad, case["grad_K"])
        case.same_state(head, "1")
        close(head.eval()(inputs).detach(), case["out_eval_after"])


class RecordedDraws:
    """Stands for the random units of a head: gives the recorded ones in their order."""

    def __init__(self, draws: Tensor) -> None:
        self.draws, self.used = draws, 0

    def __call__(self, gather: object) -> Tensor:
        self.used += 1
        return self.draws[self.used - 1]


@parity("mh_scramble")
def check_scrambling(golden: Golden) -> None:
    for case in cases(golden):
        head = case.head("0")
        if head.random_memories:
            draws = RecordedDraws(case["rand_mem_draws"])
            head._fresh_units = draws  # type: ignore[method-assign]
        for step in range(1, case.option("steps") + 1):
            head.zero_grad()
            outputs = head(case["X"][step - 1])
            (outputs * case["wout"][step - 1]).sum().backward()
            head.update()
            close(head.chosen, case[f"top_idx{step}"], tolerance=0)
            close(outputs.detach(), case[f"out{step}"])
            close(head.M.grad, case[f"grad_M{step}"])
            case.same_state(head, str(step))
        if head.random_memories:
            assert draws.used == int(case["n_rand_draws_used"])
