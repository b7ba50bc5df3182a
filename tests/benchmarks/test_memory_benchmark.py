"""Evaluations as tasks: names, sizes, and which memory each of them has."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mmcl.benchmarks.memory_benchmark import MemoryBenchmark, MemoryBenchmarkConfig
from mmcl.benchmarks.memory_sets import EncodedSet
from mmcl.errors import UserError
from tests.methods.mml.memory_tasks import drawn_set

KEYS: dict[str, Any] = {
    "_target_": "x",
    "name": "drawn",
    "data": ".",
    "evaluations": ["seen", "unseen"],
    "growing_steps": 3,
    "training_shots": False,
    "memory_images": None,
    "max_sentences": None,
    "label_noise": 0.0,
    "memory_noise": 0.0,
    "split_seed": 1,
}


class DrawnMemory(MemoryBenchmark):
    """Five classes of training, two of validation, four that only a memory knows."""

    encoder_digest = "drawn"

    def setup(self, stage: str | None = None) -> None:
        """Nothing is to be read."""

    def names_of_set(self, which: str) -> tuple[str, ...]:
        """Return names."""
        return self.encode_set(which).class_names

    def encode_set(self, which: str) -> EncodedSet:
        """Draw a set."""
        return drawn_set(*{"seen": (1, 5), "validation": (2, 2), "unseen": (3, 4)}[which])


def benchmark(**changed: Any) -> DrawnMemory:
    """Build a benchmark."""
    return DrawnMemory(MemoryBenchmarkConfig(**{**KEYS, **changed}))


def test_the_first_task_brings_what_may_be_learned_from_whatever_it_asks() -> None:
    for evaluations in (["seen", "unseen"], ["unseen", "seen"]):
        drawn = benchmark(evaluations=evaluations)
        first, second = drawn.task(0), drawn.task(1)
        assert first.training.content.class_count == 5
        assert first.validation.content.class_count == 2
        assert second.training is None
        assert drawn.task_sizes == [len(first.class_names), len(second.class_names)]
        assert (second.known, second.seen) == (first.seen, first.seen + len(second.class_names))


def test_growing_begins_with_the_classes_of_training_and_ends_with_all() -> None:
    drawn = benchmark(evaluations=["growing", "union"])
    assert drawn.task_names == ["growing_0", "growing_1", "growing_2", "union"]
    assert drawn.task_sizes == [5, 7, 9, 9]
    growing, union = drawn.task(2), drawn.task(3)
    assert torch.equal(growing.memory.images.features, union.memory.images.features)


def test_a_wrong_memory_is_about_classes_of_training_and_asks_for_the_unseen_ones() -> None:
    drawn = benchmark(evaluations=["unseen", "wrong_memory"])
    right, wrong = drawn.task(0), drawn.task(1)
    assert right.class_names == wrong.class_names
    assert torch.equal(right.encoded.test(1).features, wrong.encoded.test(1).features)
    seen = {tuple(row.tolist()) for row in drawn_set(1, 5).images.features[:, 0]}
    assert all(tuple(row.tolist()) in seen for row in wrong.memory.images.features)


def test_shots_make_prototypes_where_they_are_asked_for() -> None:
    drawn = benchmark(evaluations=["unseen", "few_shot"], training_shots=True)
    assert drawn.task(0).memory.shots is None
    assert drawn.task(1).memory.shots is not None
    assert drawn.task(0).training.content.shots is not None


@pytest.mark.parametrize("noise", ["label_noise", "memory_noise"])
def test_noise_is_keyed_and_changes_its_own_labels_alone(noise: str) -> None:
    plain, noisy, again = benchmark().task(0), benchmark(**{noise: 0.8}).task(0), benchmark(**{noise: 0.8}).task(0)
    other = benchmark(**{noise: 0.8}, split_seed=2).task(0)

    def parts(task: Any) -> dict[str, torch.Tensor]:
        return {"label_noise": task.training.queries.labels, "memory_noise": task.memory.images.features}

    assert torch.equal(parts(noisy)[noise], parts(again)[noise])
    for unlike in (plain, other):
        assert not torch.equal(parts(noisy)[noise], parts(unlike)[noise])
    (untouched,) = {"label_noise", "memory_noise"} - {noise}
    assert torch.equal(parts(noisy)[untouched], parts(plain)[untouched])


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"evaluations": ["sean"]}, "Did you mean 'seen'"),
        ({"evaluations": []}, "expected at least one"),
        ({"evaluations": ["seen", "seen"]}, "none twice"),
        ({"growing_steps": 1}, "expected at least 2"),
        ({"memory_images": 0}, "null for all of a class"),
        ({"max_sentences": 0}, "null for all of a class"),
        ({"label_noise": 1.5}, "expected a share"),
    ],
)
def test_keys_that_cannot_be_are_refused(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        benchmark(**changed)


def test_other_methods_are_told_what_queries_have() -> None:
    encoded = benchmark().task(0).encoded
    with pytest.raises(UserError, match=r"method\.views=1"):
        encoded.test(8)
    with pytest.raises(UserError, match=r"benchmark\.shots=20"):
        encoded.train(20, 0)
    with pytest.raises(UserError, match="no validation images"):
        encoded.validation(None, 1)
    assert encoded.train(2, 3).features.shape == (10, 4, 16)


def test_one_set_of_classes_is_not_put_together_with_itself() -> None:
    class OneSet(DrawnMemory):
        same_classes = True

    for kind in ("union", "growing", "wrong_memory"):
        with pytest.raises(UserError, match=f"{kind} puts two sets of classes together"):
            assert OneSet(MemoryBenchmarkConfig(**{**KEYS, "evaluations": [kind]})).plan
    keys = {**KEYS, "memory_noise": 0.8}
    noisy = OneSet(MemoryBenchmarkConfig(**keys))
    noisy.encode_set = lambda which: drawn_set(1, 5)  # type: ignore[method-assign]
    seen, unseen = noisy.task(0), noisy.task(1)
    assert torch.equal(seen.memory.images.features, unseen.memory.images.features)
