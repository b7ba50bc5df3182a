"""A shift of the text features in place of a prompt's context: its mathematics, and TPT and CoOp that learn one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import normalize

from mmcl.errors import UserError
from mmcl.methods.coop import Coop, CoopConfig
from mmcl.methods.shift_learner import ShiftLearner, shifted_classifiers
from mmcl.methods.text_classifier import text_classifier
from mmcl.methods.tpt import Tpt, TptConfig, classifier_gradients, context_gradients
from tests.methods.encoded import (
    DIMENSION,
    NAMES,
    DrawnDataset,
    accuracies,
    drawn_task,
    go_through,
    ingredients,
    step_schedule,
    tiny_encoder,
)

SCALE = 20.0
SHIFT = {"_target_": "", "learns": "shift", "prompts": "full", "prompts_at_once": 128}


class ShiftedTexts(DrawnDataset):
    """Texts that are off their images by one and the same vector, which puts one class before all others."""

    def texts(self, prompts: str) -> Any:
        """Return the centres, moved."""
        drawn = super().texts(prompts)
        return type(drawn)(self.centres - 0.9 * self.centres[1] + 0.6 * self.centres[2], drawn.classes)


def _tpt(seed: int = 1, **changed: Any) -> Tpt:
    keys: dict[str, Any] = {**SHIFT, "name": "tpt", "context": "a photo of a", "views": 8, "selection_share": 0.4}
    return Tpt(TptConfig(**{**keys, "lr": 0.005, "weight_decay": 0.01, **changed}), ingredients(None, SCALE, seed))


def _coop(seed: int = 1, **changed: Any) -> Coop:
    keys: dict[str, Any] = {**SHIFT, "name": "coop", "shots": 4, "passes": 2, "context_tokens": 5}
    schedule = step_schedule(optimizer="sgd", lr=0.02, epochs=15, interval="epoch", weight_decay=5e-4)
    return Coop(
        CoopConfig(**{**keys, "schedule": schedule, "epochs_of_shots": None, **changed}), ingredients(None, SCALE, seed)
    )


def _drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _texts(prompts: str = "full") -> Tensor:
    features, classes = DrawnDataset().texts(prompts)
    return text_classifier(features, classes, len(NAMES))


# ------------------------------------------------------------------ mathematics


@given(st.integers(0, 2**31), st.integers(1, 5), st.integers(1, 3))
@settings(max_examples=20, deadline=None)
def test_each_row_is_the_unit_sum_of_text_and_shift(seed: int, classes: int, shifts: int) -> None:
    texts, drawn = normalize(_drawn(classes, 6, seed=seed), dim=1), _drawn(shifts, 6, seed=seed + 1)
    rows = shifted_classifiers(texts, drawn)
    for b in range(shifts):
        for c in range(classes):
            whole = texts[c] + drawn[b]
            torch.testing.assert_close(rows[b, c], whole / whole.norm())


def test_no_shift_is_the_text_classifier() -> None:
    texts = _texts()
    learner = ShiftLearner(texts, 128)
    torch.testing.assert_close(learner.classifier(learner.initial_context()), texts)
    assert learner.initial_context().shape == learner.drawn_context(torch.Generator()).shape == (DIMENSION,)


def test_a_small_shift_weighs_the_classes_by_where_they_lie_along_it() -> None:
    texts, image = normalize(_drawn(5, 8), dim=1), normalize(_drawn(8, seed=1), dim=0)
    shift = 1e-4 * _drawn(8, seed=2)
    change = (shifted_classifiers(texts, shift[None])[0] - texts) @ image
    expected = image @ shift - (texts @ image) * (texts @ shift)
    torch.testing.assert_close(change, expected, atol=1e-6, rtol=0)
    assert float(expected.abs().max()) > 1e-5


@pytest.mark.parametrize("classes_at_once", [1, 3, 128])
def test_gradients_of_the_entropy_are_those_of_finite_differences(classes_at_once: int) -> None:
    texts, views = normalize(_drawn(5, 8), dim=1), normalize(_drawn(2, 4, 8, seed=1), dim=2)
    learner = ShiftLearner(texts, classes_at_once)
    start = learner.initial_context()
    _, gradients = classifier_gradients(views, texts, SCALE, 2)
    pulled = torch.zeros(2, 8, dtype=torch.float64)
    for part in learner.parts():
        pulled += context_gradients(
            lambda s, part=part: learner.classifiers(s[None], part)[0], start, gradients[:, part]
        )

    def losses(shift: Tensor) -> Tensor:
        return classifier_gradients(views, learner.classifier(shift), SCALE, 2)[0]

    steps = 1e-6 * torch.eye(8, dtype=torch.float64)
    numeric = torch.stack([(losses(start + step) - losses(start - step)) / 2e-6 for step in steps], dim=1)
    torch.testing.assert_close(pulled, numeric, atol=1e-6, rtol=1e-5)


# ------------------------------------------------------------------ TPT


def _per_image(texts: Tensor, views: Tensor, lr: float) -> Tensor:
    """The definition: a fresh shift and a fresh AdamW for the image, one step, the plain view's logits."""
    shift = nn.Parameter(torch.zeros(DIMENSION))
    optimizer = torch.optim.AdamW([shift], lr=lr)
    views = normalize(views, dim=1)
    logits = SCALE * views @ normalize(texts + shift, dim=1).T
    entropies = torch.distributions.Categorical(logits=logits).entropy()
    chosen = logits[entropies.argsort()[: int(len(views) * 0.4)]]
    torch.distributions.Categorical(probs=chosen.softmax(1).mean(0)).entropy().backward()
    optimizer.step()
    return SCALE * views[0] @ normalize(texts + shift.detach(), dim=1).T


@pytest.mark.parametrize("prompts_at_once", [1, 3, 8, 128])
def test_a_batch_of_tpt_is_one_step_of_adamw_image_by_image(prompts_at_once: int) -> None:
    task, method = drawn_task(DrawnDataset()), _tpt(prompts_at_once=prompts_at_once)
    go_through(method, task)
    features = task.encoded.test(8).features[::9]
    expected = torch.stack([_per_image(_texts(), views, 0.005) for views in features])
    torch.testing.assert_close(method.scores(features)["tpt"], expected, atol=2e-5, rtol=1e-6)
    assert not expected.allclose(method.scores(features)["text"], atol=1e-2)


def test_the_texts_are_those_of_the_prompts_that_are_typed() -> None:
    task = drawn_task(DrawnDataset())
    for prompts in ("tip", "full"):
        method = _tpt(prompts=prompts)
        go_through(method, task)
        torch.testing.assert_close(method.text_features, _texts(prompts))
    assert not _texts("tip").allclose(_texts("full"), atol=0.01)


def test_a_shift_needs_no_encoder_and_uses_none() -> None:
    task = drawn_task(DrawnDataset())
    features = task.encoded.test(8).features[:3]
    alone, beside = _tpt(), Tpt(_tpt().config, ingredients(tiny_encoder(), SCALE))
    for method in (alone, beside):
        go_through(method, task)
    assert beside.scores(features)["tpt"].equal(alone.scores(features)["tpt"])


def test_the_state_of_tpt_is_the_classifier_and_is_enough() -> None:
    task, method, resumed = drawn_task(DrawnDataset()), _tpt(), _tpt()
    go_through(method, task)
    assert set(method.state_dict()) == {"text_features"}
    resumed.grow(task)
    resumed.load_state_dict(method.state_dict())
    features = task.encoded.test(8).features[:3]
    assert resumed.scores(features)["tpt"].equal(method.scores(features)["tpt"])


# ------------------------------------------------------------------ CoOp


def test_learning_finds_the_shift_that_the_texts_are_off_by() -> None:
    task = drawn_task(ShiftedTexts())
    plain, learned = _coop(schedule=step_schedule(epochs=0)), _coop()
    go_through(plain, task)
    losses = go_through(learned, task)
    assert bool((plain.context == 0).all())
    assert losses[-1] < losses[0]
    assert accuracies(learned, task)["coop"] > accuracies(plain, task)["coop"]


def test_every_seed_starts_from_the_texts() -> None:
    task = drawn_task(DrawnDataset())
    for seed in (1, 2):
        method = _coop(seed, schedule=step_schedule(epochs=0))
        go_through(method, task)
        torch.testing.assert_close(method.text_features, _texts())


def test_the_shift_alone_is_learned_and_kept() -> None:
    task, method, resumed = drawn_task(DrawnDataset()), _coop(), _coop()
    go_through(method, task)
    assert [name for name, _ in method.named_parameters()] == ["context"]
    assert set(method.state_dict()) == {"context", "text_features"}
    resumed.grow(task)
    resumed.load_state_dict(method.state_dict())
    assert resumed.context.equal(method.context)
    features = task.encoded.test(1).features
    assert resumed.scores(features)["coop"].equal(method.scores(features)["coop"])


def test_bytes_are_the_shift_and_the_texts_before_and_after() -> None:
    method = _coop()
    go_through(method, drawn_task(DrawnDataset()))
    report = method.byte_report()
    rows = 4 * len(NAMES) * DIMENSION
    assert (report.head_bytes, report.buffer_bytes, report.memory_bytes) == (rows + 4 * DIMENSION, rows, 0)


# ------------------------------------------------------------------ keys


@pytest.mark.parametrize("make", [_tpt, _coop])
def test_what_is_learned_is_one_of_two_words(make: Any) -> None:
    with pytest.raises(UserError, match=r"method\.learns=shfit: expected prompt or shift\. Did you mean 'shift'"):
        make(learns="shfit")
    with pytest.raises(UserError, match="expected at least 1"):
        make(prompts_at_once=0)
    with pytest.raises(UserError, match=r"method\.learns=shift"):
        make(learns="prompt")
