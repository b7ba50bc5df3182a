"""Online learners as a user starts them: whole runs, killed runs, two processes, traces, and what is refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mmcl.config.components import build
from mmcl.config.compose import compose_run
from mmcl.engine import sequence
from mmcl.engine.assemble import run
from mmcl.engine.state import StateFile
from mmcl.errors import UserError
from mmcl.methods.online import OnlineMethod
from tests.engine.launched import launch
from tests.engine.tiny import assert_same_outcome, read

SIGKILLED = -9
CHECKOUT = Path(__file__).resolve().parents[2]
WINDOWS = 4


def typed(runs: Path, method: str, *overrides: str) -> list[str]:
    short = ("benchmark=modes2d", "benchmark._target_=tests.engine.short_stream.ShortStream")
    return [f"+method={method}", *short, "trainer=cpu", "trainer.progress=false", *overrides, f"paths.runs={runs}"]


def run_here(arguments: list[str]) -> Path:
    return run(compose_run(arguments), "python -m mmcl.run")


def state_of(result: Path) -> dict[str, Any]:
    state = StateFile(result.parent / "state").load().method
    assert state is not None
    return state


# ------------------------------------------------------------------ whole runs


def test_a_memory_head_learns_a_stream(tmp_path: Path) -> None:
    result = run_here(typed(tmp_path, "memory_head", "method.head.beta_k=0.1", "method.lr=0.05"))
    figures = read(result)["readouts"]
    assert set(figures) == {"head", "head_validation"}
    matrix = np.array(figures["head"]["accuracy_matrix"], dtype=float)
    assert matrix.shape == (WINDOWS, WINDOWS)
    assert not np.isnan(matrix).any()
    assert figures["head"]["last_accuracy"] == pytest.approx(matrix[-1].mean())
    assert figures["head"]["last_accuracy"] > 0.5
    assert len(figures["head_validation"]["accuracy_curve"]) == WINDOWS // 2


def test_its_traces_show_keys_and_regions(tmp_path: Path) -> None:
    result = run_here(typed(tmp_path, "memory_head"))
    traces = [np.load(path) for path in sorted((result.parent / "traces").glob("*.npz"))]
    assert len(traces) == WINDOWS + 1
    for trace in traces:
        assert trace["keys"].shape == (1, 10, 2)
        assert trace["mu"].shape == trace["eta"].shape == (1, 10)
        assert trace["regions"].shape == (len(trace["ys"]), len(trace["xs"]))
    assert traces[0]["mu"].sum() == 0
    assert not np.array_equal(traces[0]["keys"], traces[-1]["keys"])


def test_published_random_numbers_equal_a_straight_line_loop(tmp_path: Path) -> None:
    overrides = ("method.randomness=published", "seed=1234", "method.lr=0.01")
    config = compose_run(typed(tmp_path, "er", *overrides))
    state = state_of(run(config, "python -m mmcl.run"))
    train = build(config.benchmark).stream.train
    torch.manual_seed(1234)
    network = nn.Sequential(nn.Linear(2, 25), nn.Tanh(), nn.Linear(25, 4))
    torch.rand(1, 2)
    kept = _replay(network, train.features, train.labels)
    assert torch.equal(state["memory.samples"], train.features[kept])
    for name, values in network.state_dict().items():
        torch.testing.assert_close(state[f"network.{name}"], values, rtol=1e-4, atol=1e-5)


def _replay(network: nn.Module, samples: Tensor, labels: Tensor) -> list[int]:
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    kept: list[int] = []
    for step in range(len(labels)):
        optimizer.zero_grad()
        cross_entropy(network(samples[step : step + 1]), labels[step : step + 1]).backward()
        if kept:
            row = kept[int(torch.multinomial(torch.ones(len(kept)), 1))]
            cross_entropy(network(samples[row : row + 1]), labels[row : row + 1]).backward()
        if len(kept) < 8:
            kept.append(step)
        elif (slot := int(torch.randint(0, step, (1,)))) < 8:
            kept[slot] = step
        optimizer.step()
    return kept


# ------------------------------------------------------------------ killed runs


def die_inside_a_window() -> None:
    """Die in the middle of the third window."""
    after_step = OnlineMethod.after_step

    def stepped(self: OnlineMethod) -> None:
        after_step(self)
        if self.steps == 70:
            os.kill(os.getpid(), signal.SIGKILL)

    OnlineMethod.after_step = stepped  # type: ignore[method-assign]


def die_before_evaluation() -> None:
    """Die when the second window is learned and ended, but not evaluated."""
    evaluate = sequence.evaluate_online

    def evaluated(method: Any, benchmark: Any, task: Any, *rest: Any) -> None:
        if task.index == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        evaluate(method, benchmark, task, *rest)

    sequence.evaluate_online = evaluated


@pytest.mark.parametrize(
    ("method", "overrides", "accident"),
    [
        ("memory_head", (), die_inside_a_window),
        ("er", ("method.policy=random",), die_inside_a_window),
        ("agem", ("method.randomness=published",), die_before_evaluation),
        ("gdumb", ("method.randomness=published",), die_before_evaluation),
        ("gdumb", (), die_inside_a_window),
    ],
)
def test_a_killed_run_ends_as_if_nothing_had_happened(
    method: str, overrides: tuple[str, ...], accident: Callable[[], None], tmp_path: Path
) -> None:
    arguments = typed(tmp_path / "killed", method, *overrides)
    assert launch(arguments, accident).code == SIGKILLED
    again = launch(arguments)
    assert again.code == 0, again.output
    assert f"task  1/{WINDOWS}" not in again.output
    undisturbed = run_here(typed(tmp_path / "undisturbed", method, *overrides))
    assert_same_outcome(Path(again.last_line), undisturbed)


# ------------------------------------------------------------------ two processes


@pytest.mark.slow
@pytest.mark.parametrize("method", ["memory_head", "agem"])
def test_two_processes_equal_one(method: str, tmp_path: Path) -> None:
    one = run_here(typed(tmp_path / "one", method))
    command = [
        sys.executable,
        "-m",
        "mmcl.run",
        *typed(tmp_path / "two", method, "trainer=ddp_cpu", "trainer.devices=2"),
    ]
    command.remove("trainer=cpu")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    ended = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, timeout=180)
    assert ended.returncode == 0, ended.stderr
    two = Path(ended.stdout.rstrip().rpartition("\n")[2])
    assert read(one)["readouts"] == read(two)["readouts"]
    ours, theirs = state_of(one), state_of(two)
    assert ours.keys() == theirs.keys()
    # Evaluation, which key_counter counts, too, is shared between processes.
    for name in (name for name in ours if isinstance(ours[name], Tensor) and not name.endswith("key_counter")):
        torch.testing.assert_close(theirs[name], ours[name], msg=name)


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("method", "overrides", "message"),
    [
        ("vanilla", ("method.lr=1e38", "method.optimizer=sgd"), "not finite in task 1, stage stream"),
        ("memory_head", ("method.lr=1e20", "method.optimizer=sgd", "method.weight_decay=1e20"), "finite"),
        ("er", ("method.total_bytes=10",), "method.total_bytes=10: the network of method=er alone takes 716"),
        ("memory_head", ("method.head.delta=11",), "method.head.delta=11: expected at most"),
    ],
)
def test_what_cannot_work_says_why(method: str, overrides: tuple[str, ...], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        run_here(typed(tmp_path, method, *overrides))


def test_an_online_learner_needs_a_stream(tmp_path: Path) -> None:
    ended = launch(["+method=memory_head", "benchmark=digits", "trainer=cpu", f"paths.runs={tmp_path}"])
    assert ended.code == 2, ended.output
    assert "Traceback" not in ended.output
