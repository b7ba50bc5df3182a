"""MML as a method: what it learns, what it remembers, and what is in its state."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mmcl.benchmarks.memory_sets import EncodedSet, without_images, without_texts
from mmcl.config.schema import MemorySchedule
from mmcl.errors import UserError
from mmcl.methods.mml.mml import Mml, MmlConfig
from mmcl.methods.on_features import FeatureIngredients
from tests.methods.encoded import accuracies, go_through
from tests.methods.mml.memory_tasks import DIMENSION, drawn_set, drawn_task

SCHEDULE = {"epochs": 6, "batch_size": 16, "optimizer": "ema_sgd", "lr": 1e-6, "eps": 1e-6, "weight_decay": 5e-4}


def method(schedule: dict[str, Any] | None = None, seed: int = 1, **changed: Any) -> Mml:
    """Build a method for drawn features."""
    keys: dict[str, Any] = {
        "_target_": "mmcl.methods.mml.mml.Mml",
        "name": "mml",
        "prompts": "full",
        "image_neighbours": 4,
        "text_neighbours": 4,
        "temperature": 16.0,
        "feature_length": 4.0,
        "prototype_items": 4,
        "storage": "float32",
        "index": "exact",
        "selection": "best",
        "schedule": MemorySchedule(**{**SCHEDULE, **(schedule or {})}),
    }
    ingredients = FeatureIngredients(seed=seed, task_count=2, dimension=DIMENSION, logit_scale=100.0, encoder=None)
    return Mml(MmlConfig(**{**keys, **changed}), ingredients)


def learned(changed: Mml, known: EncodedSet, validation: EncodedSet) -> list[float]:
    """Learn as the engine does, epoch figures included; returns the validation accuracies."""
    task = drawn_task(known, 0, validation)
    found: list[float] = []
    after_epoch = changed.on_train_epoch_start

    def epoch_start() -> None:
        if changed._loss_sums or found or epochs:
            found.append(changed.epoch_figures(len(found))["validation_accuracy"])
        epochs.append(1)
        after_epoch()

    epochs: list[int] = []
    changed.on_train_epoch_start = epoch_start  # type: ignore[method-assign]
    go_through(changed, task)
    return found


@pytest.mark.parametrize("optimizer", ["ema_sgd", "adam", "half_official"])
def test_it_learns_on_some_classes_and_answers_for_others(optimizer: str) -> None:
    schedule = {"optimizer": optimizer, "lr": 1e-3} if optimizer == "adam" else {"optimizer": optimizer}
    learner = method({**schedule, "epochs": 12})
    task = drawn_task(drawn_set(1, 8, noise=2.0), 0, drawn_set(2, 5))
    losses = go_through(learner, task)
    assert losses[-1] < 0.8 * losses[0]
    unseen = drawn_task(drawn_set(3, 6), 1)
    learner.grow(unseen)
    learner.begin_task(unseen)
    reached = accuracies(learner, unseen)
    assert set(reached) == {"mml", "addknn", "prototype", "ncm", "knn", "text"}
    assert min(reached.values()) > 2 / 6


def test_the_epoch_that_answers_best_for_the_validation_classes_is_kept() -> None:
    chosen, last = method(), method(selection="last")
    seen, validation = drawn_set(1, 8), drawn_set(2, 5, noise=1.5)
    found = learned(chosen, seen, validation)
    learned(last, seen, validation)
    assert chosen.best.epoch == found.index(max(found))
    kept = chosen.best._weights
    assert all(torch.equal(value, kept[name]) for name, value in chosen.learner.state_dict().items())
    assert any(not torch.equal(value, kept[name]) for name, value in last.learner.state_dict().items())


def test_going_back_to_a_memory_restores_its_answers_to_the_bit() -> None:
    learner = method()
    first, other = drawn_set(1, 6), drawn_set(2, 4)
    scores = []
    for index, known in enumerate((first, other, first)):
        task = drawn_task(known, index)
        learner.grow(task)
        learner.begin_task(task)
        with torch.no_grad():
            scores.append(learner.scores(known.queries.features))
    assert all(torch.equal(scores[0][name], scores[2][name]) for name in learner.readouts)
    assert scores[1]["mml"].shape == (24, 4)


def test_a_memory_of_one_modality_answers_by_it_alone() -> None:
    known = drawn_set(1, 5)
    for alone, side in ((without_images(known), "texts"), (without_texts(known), "images")):
        learner = method()
        task = drawn_task(alone)
        learner.grow(task)
        learner.begin_task(task)
        reached = accuracies(learner, task)
        assert min(reached.values()) > 2 / 5, side
        content = learner._remembered.knowledge
        assert len(getattr(content, "images" if side == "texts" else "texts")) == 0


def test_more_neighbours_than_rows_are_refused_by_the_key_that_sets_them() -> None:
    task = drawn_task(drawn_set(1, 2, per_class=2))
    learner = method(image_neighbours=5)
    learner.grow(task)
    learner.begin_task(task)
    with pytest.raises(UserError, match=r"method\.image_neighbours=5: expected 1 to 4"):
        learner.scores(drawn_set(1, 2).queries.features)


def test_the_state_holds_what_was_learned_and_no_row_of_a_memory() -> None:
    learner = method()
    known = drawn_set(1, 8)
    task = drawn_task(known, 0, drawn_set(2, 5))
    go_through(learner, task)
    state = learner.state_dict()
    tensors = [value for value in state.values() if isinstance(value, torch.Tensor)]
    rows = known.images.features.numel()
    blocks = sum(parameter.numel() for parameter in learner.learner.parameters())
    assert sum(value.numel() for value in tensors) < blocks + rows
    again = method(seed=2)
    again.grow(task)
    again.load_state_dict(state)
    again.begin_evaluation(task)
    assert accuracies(again, task) == accuracies(learner, task)


def test_a_resumed_run_refuses_a_memory_that_has_changed() -> None:
    learner = method()
    task = drawn_task(drawn_set(1, 4))
    learner.grow(task)
    learner.begin_task(task)
    again = method()
    again.grow(task)
    again.load_state_dict(learner.state_dict())
    with pytest.raises(UserError, match="is not the one that this run was begun with"):
        again.begin_evaluation(drawn_task(drawn_set(5, 4)))


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("storage", "float8", "expected one of float32, float16"),
        ("index", "exakt", "Did you mean 'exact'"),
        ("selection", "first", "expected one of best, last"),
        ("image_neighbours", 0, "expected at least 1"),
        ("temperature", 0.0, "expected more than 0"),
        ("feature_length", -1.0, "expected more than 0"),
    ],
)
def test_values_that_cannot_be_are_refused_before_anything_is_encoded(key: str, value: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        method(**{key: value})


@pytest.mark.parametrize("change", [{"lr": 0.0}, {"eps": 0.0}, {"optimizer": "sgd"}, {"batch_size": 0}])
def test_schedules_that_no_optimiser_takes_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        method(change)
