from __future__ import annotations

from typing import Any

import pytest
import torch

from mmcl.benchmarks.memory_sets import joined, without_images
from mmcl.errors import UserError
from mmcl.methods.rac import Rac, RacConfig, joined_names
from tests.methods.encoded import go_through, ingredients, step_schedule, tiny_encoder
from tests.methods.memory_cases import SEEN, UNSEEN, answers, class_set, memory_task, move_to

SCHEDULE = {"epochs": 40, "lr": 0.02}
LEARNED = class_set(SEEN, training=8)


def _rac(seed: int = 1, **changed: Any) -> Rac:
    keys = {"_target_": "", "name": "rac", "prompts": "full", "neighbours": 5, "schedule": step_schedule(**SCHEDULE)}
    torch.manual_seed(seed)
    return Rac(RacConfig(**{**keys, **changed}), ingredients(tiny_encoder()))


def _learned(**changed: Any) -> Rac:
    method = _rac(**changed)
    go_through(method, memory_task(LEARNED, learned=LEARNED))
    return method


def test_names_come_nearest_first_and_as_often_as_they_are_near() -> None:
    texts = joined_names(torch.tensor([[2, 0, 2], [1, 1, 0]]), SEEN)
    assert texts == ["green star red circle green star", "blue square blue square red circle"]


def test_scores_are_one_layer_of_image_and_retrieved_names() -> None:
    method, task = _learned(), memory_task(LEARNED)
    found = answers(method, task)["rac"]
    queries, images = task.encoded.test(1).features[:, 0], task.memory.images
    encoder = tiny_encoder()
    for row in (0, 17, 39):
        cosines = torch.cosine_similarity(queries[row], images.features)
        words = " ".join(SEEN[int(images.classes[place])] for place in cosines.argsort(descending=True)[:5])
        with torch.no_grad():
            text = encoder.encode_tokens(encoder.tokenize([words.replace("_", " ")]))[0]
            expected = method.head(queries[row]) + method.head(text)
        torch.testing.assert_close(found[row], expected)


def test_it_learns_the_classes_of_training() -> None:
    task = memory_task(LEARNED, learned=LEARNED)
    method = _rac()
    losses = go_through(method, task)
    assert sum(losses[-3:]) < 0.5 * sum(losses[:3])
    labels = task.encoded.test(1).labels
    assert float((answers(method, task)["rac"].argmax(1) == labels).float().mean()) > 0.75


def test_other_classes_are_never_the_answer() -> None:
    method = _learned()
    both = move_to(method, memory_task(joined([LEARNED, class_set(UNSEEN)]), index=1))["rac"]
    assert both.shape == (70, 7)
    assert bool(both[:, 4:].isneginf().all())
    assert not bool(both[:, :4].isinf().any())
    labels = memory_task(LEARNED).encoded.test(1).labels
    assert float((both[:40].argmax(1) == labels).float().mean()) > 0.75  # though names of others are read, too
    alone = move_to(method, memory_task(class_set(UNSEEN), index=2))["rac"]
    assert alone.shape == (30, 3)
    assert bool(alone.isneginf().all())


def test_without_images_the_image_itself_is_left() -> None:
    method = _learned()
    task = memory_task(without_images(LEARNED), index=1)
    found = move_to(method, task)["rac"]
    features = task.encoded.test(1).features[:, 0]
    torch.testing.assert_close(found, (features @ method.head.weight.T + 2 * method.head.bias).detach())


def test_texts_that_are_too_long_are_cut() -> None:
    method = _learned(neighbours=20)  # 40 words, and the encoder takes 22
    assert not bool(answers(method, memory_task(LEARNED))["rac"].isnan().any())


def test_the_state_is_enough_to_answer() -> None:
    method, resumed = _learned(), _rac(seed=7)
    first, second = memory_task(LEARNED, learned=LEARNED), memory_task(joined([LEARNED, class_set(UNSEEN)]), index=1)
    expected = move_to(method, second)
    for task in (first, second):
        resumed.grow(task)
    resumed.load_state_dict(method.state_dict())
    found = answers(resumed, second)
    assert all(found[name].equal(expected[name]) for name in expected)


def test_the_images_of_the_memory_are_counted() -> None:
    method = _learned()
    answers(method, memory_task(LEARNED))
    report = method.byte_report()
    assert (report.exemplars, report.memory_bytes) == (32, 32 * 16 * 4)


def test_what_it_cannot_do_without_is_asked_for() -> None:
    with pytest.raises(UserError, match="benchmark=shapes_memory"):
        Rac(_rac().config, ingredients())
    with pytest.raises(UserError, match="labelled queries"):
        _rac().grow(memory_task(LEARNED))
    with pytest.raises(UserError, match="method.neighbours=0"):
        _rac(neighbours=0)
    with pytest.raises(UserError, match="method.neighbours=33"):
        _learned(neighbours=33)
