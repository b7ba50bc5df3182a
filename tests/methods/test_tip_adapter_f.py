"""Tip-Adapter-F: learned keys, and which epoch's are kept."""

from __future__ import annotations

import pytest

from mmcl.errors import UserError
from tests.methods.encoded import DrawnDataset, drawn_task, go_through, step_schedule
from tests.methods.tips import SEARCHLESS, right_answers, tip, tip_f


def test_learning_the_keys_lowers_the_loss_and_moves_them_from_the_cache() -> None:
    task = drawn_task(DrawnDataset())
    start = {"search": "fixed", "alpha": 20.0}
    fixed, learned = tip(**start), tip_f(**start, schedule=step_schedule(epochs=12, lr=0.02))
    go_through(fixed, task)
    losses = go_through(learned, task)
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])
    assert not learned.cache_keys.detach().allclose(fixed.cache_keys, atol=1e-3)


def test_epochs_may_differ_by_data_set() -> None:
    method = tip_f(epochs_of={"eurosat": 9})
    for name, epochs in (("eurosat", 9), ("dtd", 4)):
        task = drawn_task(DrawnDataset(), name)
        method.grow(task)
        assert [stage.schedule.epochs for stage in method.stages(task)] == [epochs]


def test_the_best_epoch_is_never_worse_on_validation_than_the_first_or_last() -> None:
    task = drawn_task(DrawnDataset())
    schedule = step_schedule(epochs=6, lr=0.3)
    best, last, first = (
        tip_f(**SEARCHLESS, keep="best_val", schedule=schedule),
        tip_f(**SEARCHLESS, schedule=schedule),
        tip(**SEARCHLESS),
    )
    for method in (best, last, first):
        go_through(method, task)
    validation = task.encoded.validation(None, 1)
    hits = [right_answers(method, validation.features, validation.labels) for method in (best, last, first)]
    assert hits[0] == int(best.best_hits) == max(hits)


def test_an_unknown_choice_of_epoch_is_refused() -> None:
    with pytest.raises(UserError, match="method.keep=best: expected last or best_val"):
        tip_f(keep="best")
