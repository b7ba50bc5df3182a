"""SLCA with Memory Heads: when keys move, when they do not, and the corrections of the released code."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mmcl.config.compose import compose_run
from mmcl.errors import UserError
from mmcl.methods.slca_memory_head import SlcaMemoryHead, memory_heads
from mmcl.protocol import Batch, ClassTask, Stage
from tests.methods.pretrained import Vectors, begin, pretrained_method, whole

SMALL = (
    "method.head.key_mem_units=4",
    "method.head.tau_mu=1000",
    "method.head.tau_eta=8",
    "method.draws_per_class=16",
    "method.alignment.batch_size=16",
)


def _method(*overrides: str, network: bool = True) -> Any:
    method = pretrained_method("slca_memory_head", *SMALL, *overrides, network=network)
    method._over_processes = lambda batch: (None, None)  # there is no trainer
    return method


def _train(method: Any, stage: Stage, task: ClassTask, epochs: int = 1, size: int = 8) -> None:
    """Train a stage in micro-batches, as the engine would, with a step after each."""
    method.begin_stage(stage, task)
    method.train()
    optimizer, _ = method.optimizer_of(stage)
    for epoch in range(epochs):
        everything = whole(stage, epoch)
        for start in range(0, len(everything.labels), size):
            batch = type(everything)(*(part[start : start + size] for part in everything[:3]))
            optimizer.zero_grad()
            method.losses(batch)["classification"].backward()
            method.after_backward(batch)
            optimizer.step()
    method.end_stage(stage, task)


def _after_first_task(*overrides: str, network: bool = True) -> tuple[Any, ClassTask, list[Stage]]:
    benchmark, method = Vectors(), _method(*overrides, network=network)
    task = benchmark.task(0)
    _train(method, begin(method, task)[0], task)
    task = benchmark.task(1)
    return method, task, begin(method, task)


def _state(head: Any) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in head.state_dict().items() if isinstance(value, torch.Tensor)}


def _changed(head: Any, before: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, value in _state(head).items() if not torch.equal(value, before[name])}


def test_keys_follow_every_micro_batch() -> None:
    method, task = _method(), Vectors().task(0)
    _train(method, begin(method, task)[0], task)
    (head,) = memory_heads(method.heads)
    assert head.key_counter.sum() == 32
    assert head.eta.max() <= 32 + 8
    assert head.scrambling_count.item() > 0


def test_old_heads_count_and_give_keys_away_while_the_network_learns_as_published() -> None:
    method, task, (stage, _) = _after_first_task()
    old, new = memory_heads(method.heads)
    assert (old.beta_k, new.beta_k) == (0.0, 0.001)
    before = _state(old)
    _train(method, stage, task)
    assert {"mu", "eta", "key_counter"} <= _changed(old, before)
    assert old.scrambling_count > before["scrambling_count"]


@pytest.mark.parametrize(("override", "network"), [("method.backbone_lr_scale=0", True), ("seed=0", False)])
def test_old_heads_on_what_does_not_learn_only_see_images(override: str, network: bool) -> None:
    """On a frozen network, or on features of a file: no gradient crosses them."""
    method, task, (stage, _) = _after_first_task(override, network=network)
    old = memory_heads(method.heads)[0]
    before = _state(old)
    _train(method, stage, task)
    assert _changed(old, before) == {"key_counter"}


@pytest.mark.parametrize("scale", [0, 0.01])
def test_inert_old_heads_change_nothing(scale: float) -> None:
    method, task, stages = _after_first_task("method.frozen_heads=inert", f"method.backbone_lr_scale={scale}")
    old = memory_heads(method.heads)[0]
    before = _state(old)
    _train(method, stages[0], task)
    assert not _changed(old, before)
    _train(method, stages[1], task, size=16)
    assert not _changed(old, before)
    answering = memory_heads(method.answering)[0]
    assert _changed(answering, before) == {"M", "key_counter"}


def test_an_alignment_freezes_the_keys_of_its_newest_head_for_ever() -> None:
    method, task, stages = _after_first_task()
    _train(method, stages[0], task)
    old, newest = memory_heads(method.heads)
    before = _state(newest)
    _train(method, stages[1], task, size=16)
    assert (newest.beta_k, newest.scramble) == (0.0, False)
    assert (old.beta_k, old.scramble) == (0.0, True)
    assert not _changed(newest, before)
    answering = memory_heads(method.answering)
    assert _changed(answering[1], before) <= {"M", "K"}  # keys are brought to length one again
    torch.testing.assert_close(answering[1].K, before["K"])
    assert answering[0].mu.sum() > old.mu.sum()


def test_keys_that_are_not_frozen_move_in_the_alignment() -> None:
    method, task, stages = _after_first_task("method.freeze_keys_in_alignment=false")
    _train(method, stages[0], task)
    newest = memory_heads(method.heads)[1]
    _train(method, stages[1], task, size=16)
    assert (newest.beta_k, newest.scramble) == (0.001, True)
    assert not torch.allclose(memory_heads(method.answering)[1].K, newest.K)


@pytest.mark.parametrize(("remembered", "modes"), [("published", [True, False]), ("current", [True, True])])
def test_what_later_epochs_of_an_alignment_remember(
    remembered: str, modes: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    method, task, stages = _after_first_task(f"method.remembered={remembered}")
    _train(method, stages[0], task)
    method.begin_stage(stages[1], task)
    method.train()
    seen = []
    for epoch in range(2):
        monkeypatch.setattr(SlcaMemoryHead, "current_epoch", epoch)
        method.on_train_epoch_start()
        seen.append(method.answering.training)
    assert seen == modes


def test_a_later_epoch_goes_on_from_a_saved_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the first epoch left behind is in the state, so that an interrupted alignment does not need it again."""
    method, task, stages = _after_first_task()
    _train(method, stages[0], task)
    alignment = stages[1]
    method.begin_stage(alignment, task)
    method.train()
    batch = type(whole(alignment))(*(part[::4] for part in whole(alignment)[:3]))
    method.losses(batch)["classification"].backward()
    method.after_backward(batch)
    saved = method.state_dict()

    other, _, others = _after_first_task()
    _train(other, others[0], task)
    other.begin_stage(alignment, task)
    other.load_state_dict(saved)
    monkeypatch.setattr(SlcaMemoryHead, "current_epoch", 1)
    for resumed in (method, other):
        resumed.train()
        resumed.on_train_epoch_start()
        resumed.losses(batch)["classification"].backward()
        resumed.after_backward(batch)
    for ours, theirs in zip(method.answering, other.answering, strict=True):
        assert not _changed(ours, _state(theirs))


def test_rows_of_several_processes_come_together_in_the_order_of_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    method, task = _method("method.representation.batch_size=4"), Vectors().task(0)
    method.begin_stage(begin(method, task)[0], task)
    del method._over_processes
    batch = torch.arange(5.0)[:, None]
    gathers = []
    for rank in range(3):
        rows = batch[rank::3]
        monkeypatch.setattr(SlcaMemoryHead, "trainer", type("Trainer", (), {"world_size": 3}))
        gather, counted = method._over_processes(Batch(rows, torch.zeros(len(rows)), rows, 1.0))
        assert counted.tolist() == [True] * len(rows)
        gathers.append((gather, rows))
    padded: list[torch.Tensor] = []
    monkeypatch.setattr(SlcaMemoryHead, "all_gather", lambda self, part: padded.append(part) or part[None])
    for gather, rows in gathers:
        gather(torch.cat([rows, torch.ones(len(rows), 1)], dim=1))
    monkeypatch.setattr(SlcaMemoryHead, "all_gather", lambda self, part: torch.stack(padded))
    together = gathers[0][0](torch.zeros(1, 2))
    assert together[together[:, 1] > 0, 0].tolist() == [0, 1, 2, 3, 4]


def test_a_process_without_a_sample_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    method, task = _method(), Vectors().task(0)
    method.begin_stage(begin(method, task)[0], task)
    del method._over_processes
    monkeypatch.setattr(SlcaMemoryHead, "trainer", type("Trainer", (), {"world_size": 2}))
    _, counted = method._over_processes(Batch(torch.zeros(1, 6), torch.zeros(1), torch.zeros(1), 0.0))
    assert counted.tolist() == [False]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("method.frozen_heads=frozen", "published or inert"),
        ("method.remembered=curent", "Did you mean 'current'"),
        ("method.draws_per_class=100", "Type for example method.remembered=current"),
        ("method.head.delta=11", "method.head.key_mem_units=10"),
        ("method.head.distance=cosin", "method.head.distance"),
        ("method.head.beta=1", "unknown key 'method.head.beta'"),
    ],
)
def test_bad_values_are_refused(override: str, words: str) -> None:
    with pytest.raises(UserError, match=r"method\.") as refused:
        compose_run(["+method=slca_memory_head", override])
    assert words in str(refused.value)
