"""MEMO: the trunk is one for all tasks, each task has a branch of its own, and old branches stay as they are."""

from __future__ import annotations

import pytest

from mmcl.backbones.freezing import is_frozen
from mmcl.memory.accounting import module_bytes
from tests.methods.toy import begun, changed, take_step, tensors


def _moved_parts(*overrides: str) -> set[str]:
    """Name the parts of the network that a step of the third task moves, statistics of normalisation included."""
    method, task = begun("memo", *overrides, tasks=2, classes=6)
    (stage,) = method.stages(task)
    method.begin_stage(stage, task)
    before = tensors(method.network)
    take_step(method, task, stage.samples)
    parts = [name.split(".") for name in changed(before, method.network)]
    return {".".join(part[: 2 if part[0] == "branches" else 1]) for part in parts}


@pytest.mark.parametrize(
    ("overrides", "also"),
    [
        (("method.train_base=true", "method.train_adaptive=false"), {"trunk"}),
        (("method.train_base=false", "method.train_adaptive=false"), set()),
        (("method.train_base=false", "method.train_adaptive=true"), {"branches.0", "branches.1"}),
    ],
)
def test_the_newest_branch_learns_and_of_the_rest_what_is_asked(overrides: tuple[str, ...], also: set[str]) -> None:
    assert _moved_parts(*overrides) == {"branches.2", "head", "auxiliary_head"} | also


def test_a_task_adds_a_branch_that_begins_as_the_newest() -> None:
    first, _ = begun("memo", tasks=0)
    method, _ = begun("memo", tasks=2, classes=6)
    assert module_bytes(method.network.trunk).total == module_bytes(first.network.trunk).total
    oldest, newest, new = method.network.branches
    assert not changed(tensors(newest), new)
    assert changed(tensors(oldest), new)


def test_a_shared_trunk_takes_less_than_a_network_for_each_task() -> None:
    ours, theirs = (begun(name, tasks=2, classes=6)[0] for name in ("memo", "der"))
    trunk = module_bytes(ours.network.trunk).total
    assert trunk > 0
    assert module_bytes(theirs.network).total - module_bytes(ours.network).total == 2 * trunk


def test_a_frozen_trunk_stays_frozen_whoever_calls_train() -> None:
    method, _ = begun("memo", "method.train_base=false")
    method.train()
    assert is_frozen(method.network.trunk)
    assert not method.network.trunk.training
    free, _ = begun("memo", "method.train_base=true")
    assert free.train().network.trunk.training
