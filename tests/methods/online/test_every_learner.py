"""What holds for every online learner."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from mmcl.errors import UserError
from mmcl.memory.accounting import module_bytes
from mmcl.protocol import StreamTask
from tests.methods.kinds import methods_for
from tests.methods.online.learners import CLASSES, learn, learner, stream, weights, window

LEARNERS = methods_for(StreamTask)
BUFFERED = ("er", "agem", "mir", "gdumb")
MODES = [(name, randomness) for name in LEARNERS for randomness in ("keyed", "published")]


def go(method: Any, first: int, last: int) -> None:
    """Learn a part of a stream of 40 samples, and end a window there."""
    samples, labels = stream(40)
    learn(method.train(), samples[first:last], labels[first:last])
    method.eval()
    method.end_task(window())


def test_there_are_learners() -> None:
    assert {"memory_head", "vanilla", "ensemble", *BUFFERED} <= set(LEARNERS)


@pytest.mark.parametrize(("name", "randomness"), MODES)
def test_the_whole_state_goes_on_to_the_same_weights(name: str, randomness: str, tmp_path: Path) -> None:
    method, other = (learner(name, f"randomness={randomness}", seed=seed) for seed in (1, 1))
    go(method, 0, 25)
    torch.save(method.state_dict(), tmp_path / "state.pt")
    torch.manual_seed(99)
    for parameter in other.parameters():
        parameter.data.normal_()
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert torch.equal(weights(method), weights(other))
    for each in (method, other):
        go(each, 25, 40)
    assert torch.equal(weights(method), weights(other))
    assert method.steps == other.steps == 40
    for name, rows in method.memory_rows().items():
        assert torch.equal(rows, other.memory_rows()[name])


@pytest.mark.parametrize("name", LEARNERS)
def test_a_copy_learns_on_its_own(name: str) -> None:
    method = learner(name)
    go(method, 0, 20)
    twin, before = copy.deepcopy(method), weights(method)
    go(twin, 20, 40)
    assert torch.equal(weights(method), before)
    assert not torch.equal(weights(twin), before)
    go(method, 20, 40)
    assert torch.equal(weights(method), weights(twin))


@pytest.mark.parametrize("name", LEARNERS)
def test_keyed_numbers_do_not_depend_on_what_torch_drew(name: str) -> None:
    found = []
    for disturbance in (0, 5):
        method = learner(name, *(["head.random_memories=true"] if name == "memory_head" else []))
        torch.manual_seed(disturbance)
        go(method, 0, 40)
        found.append(weights(method))
    assert torch.equal(*found)


@pytest.mark.parametrize("name", sorted(set(LEARNERS) - {"gdumb"}))
def test_windows_leave_no_mark(name: str) -> None:
    whole, parts = learner(name), learner(name)
    go(whole, 0, 40)
    for first, last in ((0, 7), (7, 30), (30, 40)):
        go(parts, first, last)
    assert torch.equal(weights(whole), weights(parts))


@pytest.mark.parametrize("name", LEARNERS)
def test_all_classes_have_a_score_from_the_start(name: str) -> None:
    method = learner(name).eval()
    scores = method.scores(stream(5)[0])
    assert set(scores) == set(method.readouts)
    assert scores["head"].shape == (5, CLASSES)


@pytest.mark.parametrize("name", LEARNERS)
def test_the_report_counts_network_and_rows_in_use(name: str) -> None:
    method = learner(name)
    go(method, 0, 3)
    report, rows = method.byte_report(), method.memory_rows()
    assert report.head_bytes + report.buffer_bytes == module_bytes(method.network).total
    assert report.memory_bytes == sum(values.nbytes for values in rows.values())
    assert report.exemplars == (3 if name in BUFFERED else 0)


@pytest.mark.parametrize("name", BUFFERED)
def test_a_budget_in_bytes_decides_how_many_samples_are_kept(name: str) -> None:
    network = module_bytes(learner(name).network).total
    method = learner(name, f"total_bytes={network + 5 * 16 + 15}")
    assert method.memory.capacity == 5
    go(method, 0, 40)
    assert method.byte_report().total_bytes <= network + 5 * 16 + 15
    with pytest.raises(UserError, match=rf"leaves 15 bytes, but one sample takes 16. Type .*={network + 16} or more"):
        learner(name, f"total_bytes={network + 15}")


@pytest.mark.parametrize("name", LEARNERS)
def test_a_network_beyond_the_budget_is_refused(name: str) -> None:
    taken = module_bytes(learner(name).network).total
    with pytest.raises(UserError, match=rf"method.total_bytes={taken - 1}: the network .* takes {taken} bytes\. Type"):
        learner(name, f"total_bytes={taken - 1}")
    if name not in BUFFERED:
        assert learner(name, f"total_bytes={taken}").bytes_left == 0


@pytest.mark.parametrize(
    ("name", "typed", "message"),
    [
        ("vanilla", "hidden=0", "method.hidden=0: expected at least 1, or null"),
        ("vanilla", "total_bytes=0", "method.total_bytes=0: expected at least 1, or null"),
        ("er", "policy=reservoire", "Did you mean 'reservoir'"),
        ("er", "buffer_size=0", "method.buffer_size=0: expected at least 1"),
        ("agem", "replay_size=0", "method.replay_size=0: expected at least 1"),
        ("mir", "candidates=0", "method.candidates=0: expected at least method.replay_size=1"),
        ("gdumb", "epochs=-1", "method.epochs=-1: expected at least 0"),
        ("gdumb", "loss=hinge", "method.loss=hinge: method=gdumb learns by cross_entropy alone"),
        ("ensemble", "members=0", "method.members=0: expected at least 1"),
        ("memory_head", "up=0", "method.up=0: expected at least 1, or null"),
        ("memory_head", "head.delta=11", "method.head.delta=11: expected at most method.head.key_mem_units=10"),
        ("memory_head", "optimizer=adm", "Did you mean 'adam'"),
    ],
)
def test_keys_that_mean_nothing_are_refused(name: str, typed: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        learner(name, typed)


@pytest.mark.parametrize("value", ["nan", "inf", "0"])
def test_a_rate_that_is_no_number_is_refused(value: str) -> None:
    with pytest.raises(UserError, match="method.lr"):
        learner("vanilla", f"lr={value}")


def test_keys_of_another_size_are_refused_by_their_key() -> None:
    with pytest.raises(UserError, match=r"method\.head\.key_size=5.*Type method\.head\.key_size=2"):
        learner("memory_head", "head.key_size=5")
