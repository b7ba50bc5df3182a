from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from mmcl.benchmarks.memory_sets import EncodedSet, without_images
from mmcl.errors import UserError
from mmcl.memory.prototypes import ClassRows
from mmcl.methods.memory_probe import MemoryProbe, MemoryProbeConfig, logistic_regression
from mmcl.protocol import ImageFeatures, MemoryTask
from tests.methods.encoded import ingredients
from tests.methods.memory_cases import SEEN, UNSEEN, answers, class_set, memory_task, move_to


def _probe(**changed: Any) -> MemoryProbe:
    keys = {"_target_": "", "name": "memory_probe", "prompts": "full", "features": "raw", "inverse_regularisation": 0.5}
    return MemoryProbe(MemoryProbeConfig(**{**keys, **changed}), ingredients())


def _learned() -> EncodedSet:
    return class_set(SEEN, training=6)


def _rows(images: ImageFeatures) -> ClassRows:
    return ClassRows(images.features[:, 0], images.labels)


def test_the_fit_is_where_the_penalised_loss_is_flat() -> None:
    rows = _rows(class_set(SEEN, noise=0.6).images)
    weight, bias = (part.double().requires_grad_() for part in logistic_regression(rows, 4, 0.02))
    losses = cross_entropy(rows.features.double() @ weight.T + bias, rows.classes, reduction="sum")
    (0.02 * losses + 0.5 * weight.square().sum()).backward()
    for part in (weight, bias):
        assert float(part.grad.abs().max()) < 1e-3
    assert float(weight.detach().abs().max()) > 0.02


@pytest.mark.parametrize("missing", [0, 1, 3])
def test_a_class_without_rows_is_never_the_answer(missing: int) -> None:
    rows = _rows(class_set(SEEN).images)
    kept = rows.classes != missing
    weight, bias = logistic_regression(ClassRows(rows.features[kept], rows.classes[kept]), 4, 1.0)
    found = (rows.features @ weight.T + bias).argmax(dim=1)
    assert not bool((found == missing).any())
    assert found[kept].equal(rows.classes[kept])


def test_two_classes_are_told_apart_in_their_order() -> None:
    rows = _rows(class_set(SEEN[:2]).images)
    weight, bias = logistic_regression(rows, 2, 1.0)
    assert (rows.features @ weight.T + bias).argmax(dim=1).equal(rows.classes)


def _task(kind: str) -> tuple[MemoryTask, ClassRows]:
    """Return a task with the labelled images that the probe must fit."""
    learned, unseen = _learned(), class_set(UNSEEN)
    return {
        "shots": (memory_task(unseen, with_shots=True, learned=learned), _rows(unseen.shots)),
        "training": (memory_task(learned, learned=learned), _rows(learned.training)),
        "images": (memory_task(unseen, learned=learned), _rows(unseen.images)),
        "nothing to learn": (memory_task(unseen), _rows(unseen.images)),
    }[kind]


@pytest.mark.parametrize("kind", ["shots", "training", "images", "nothing to learn"])
def test_what_is_fitted_depends_on_what_a_task_has(kind: str) -> None:
    task, rows = _task(kind)
    method = _probe()
    scores = move_to(method, task)
    weight, bias = logistic_regression(rows, len(task.class_names), 0.5)
    queries = task.encoded.test(1)
    torch.testing.assert_close(scores["probe"], queries.features[:, 0] @ weight.T + bias)
    assert float((scores["probe"].argmax(1) == queries.labels).float().mean()) > 0.6


def test_the_classes_of_training_are_known_again_in_a_later_task() -> None:
    learned = _learned()
    method = _probe()
    first = move_to(method, memory_task(learned, learned=learned))
    move_to(method, memory_task(class_set(UNSEEN), index=1))
    assert move_to(method, memory_task(learned, index=2))["probe"].equal(first["probe"])
    others = class_set(tuple(reversed(SEEN)))
    move_to(method, memory_task(others, index=3))
    torch.testing.assert_close(method.head.weight, logistic_regression(_rows(others.images), 4, 0.5)[0])


def test_without_images_the_texts_answer() -> None:
    scores = move_to(_probe(), memory_task(without_images(class_set(UNSEEN)), learned=_learned()))
    assert scores["probe"].argmax(1).equal(scores["text"].argmax(1))


def test_the_length_of_a_unit_feature_says_nothing() -> None:
    method = _probe(features="unit", inverse_regularisation=100.0)
    task = memory_task(class_set(UNSEEN))
    features = task.encoded.test(1).features
    expected = move_to(method, task)["probe"]
    torch.testing.assert_close(method.scores(3 * features)["probe"], expected)
    rows = task.memory.images
    weight, bias = logistic_regression(ClassRows(normalize(rows.features, dim=1), rows.classes), 3, 100.0)
    torch.testing.assert_close(expected, normalize(features[:, 0], dim=1) @ weight.T + bias)


def test_the_state_is_enough_to_answer() -> None:
    learned = _learned()
    tasks = [memory_task(learned, learned=learned), memory_task(class_set(UNSEEN), index=1)]
    method, resumed = _probe(), _probe()
    for task in tasks:
        expected = move_to(method, task)
        resumed.grow(task)
    resumed.load_state_dict(method.state_dict())
    assert answers(resumed, tasks[1])["probe"].equal(expected["probe"])
    again = memory_task(learned, index=2)
    assert move_to(resumed, again)["probe"].equal(move_to(method, again)["probe"])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"features": "units"}, "method.features=units: expected raw or unit"),
        ({"inverse_regularisation": 0.0}, "method.inverse_regularisation=0.0"),
    ],
)
def test_values_that_make_no_sense_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        _probe(**changed)
