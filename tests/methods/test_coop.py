from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.functional import normalize

from mmcl.errors import UserError
from mmcl.methods.coop import Coop, CoopConfig
from mmcl.methods.prompt_learner import PromptLearner
from mmcl.protocol import ImageFeatures
from tests.methods.encoded import (
    NAMES,
    DrawnDataset,
    accuracies,
    drawn_task,
    go_through,
    ingredients,
    step_schedule,
    tiny_encoder,
)

SCHEDULE = {"optimizer": "sgd", "lr": 0.02, "epochs": 15, "interval": "epoch", "weight_decay": 5e-4}


class NearTexts(DrawnDataset):
    """Images around what the encoder says of sentences with other words before the class names."""

    def __init__(self, noise: float = 0.02) -> None:
        super().__init__(noise=noise)
        encoder = tiny_encoder()
        with torch.no_grad():
            tokens = encoder.tokenize([f"some other words {name.replace('_', ' ')} again." for name in NAMES])
            self.centres = normalize(encoder.encode_tokens(tokens), dim=1)

    def _draw(self, split: str, per_class: int, views: int) -> ImageFeatures:
        images = super()._draw(split, per_class, views)
        centres = 7 * self.centres[images.labels, None]
        return ImageFeatures(centres + 0.1 * (images.features - centres), images.labels, images.sources)


def _coop(**changed: Any) -> Coop:
    keys: dict[str, Any] = {"_target_": "", "name": "coop", "learns": "prompt", "prompts": "simple"}
    keys |= {"shots": 4, "passes": 2, "context_tokens": 5}
    keys |= {"schedule": step_schedule(**SCHEDULE), "epochs_of_shots": None, "prompts_at_once": 128, **changed}
    return Coop(CoopConfig(**keys), ingredients(tiny_encoder(), 20.0))


def test_learning_moves_the_context_and_raises_the_accuracy() -> None:
    task = drawn_task(NearTexts())
    plain, learned = _coop(schedule=step_schedule(epochs=0)), _coop()
    go_through(plain, task)
    losses = go_through(learned, task)
    assert losses[-1] < losses[0]
    assert not learned.context.detach().allclose(plain.context, atol=1e-3)
    assert accuracies(learned, task)["coop"] > accuracies(plain, task)["coop"]


def test_the_start_is_drawn_small_and_keyed() -> None:
    task = drawn_task(NearTexts())
    contexts = []
    for _ in range(2):
        method = _coop(context_tokens=16)
        torch.rand(7)
        method.grow(task)
        method.begin_task(task)
        contexts.append(method.context.detach())
    assert contexts[0].equal(contexts[1])
    assert contexts[0].shape == (16, 16)
    assert 0.015 < float(contexts[0].std()) < 0.025


def test_parts_of_the_classes_give_the_same_loss_and_gradient() -> None:
    encoder = tiny_encoder()
    gradients = []
    for prompts_at_once in (128, 3, 1):
        learner = PromptLearner(encoder, NAMES, "X X X", prompts_at_once)
        context = learner.initial_context().requires_grad_()
        classifier = learner.classifier(context)
        (classifier * torch.arange(16.0)).square().sum().backward()
        gradients.append(context.grad)
    for gradient in gradients[1:]:
        torch.testing.assert_close(gradient, gradients[0])


def test_the_words_of_a_context_give_the_sentence_itself() -> None:
    encoder = tiny_encoder()
    learner = PromptLearner(encoder, NAMES, "a photo of a", 2)
    sentences = encoder.tokenize([f"a photo of a {name.replace('_', ' ')}." for name in NAMES])
    with torch.no_grad():
        classifier = learner.classifier(learner.initial_context())
        torch.testing.assert_close(classifier, normalize(encoder.encode_tokens(sentences), dim=1))


def test_only_the_context_is_learned() -> None:
    task = drawn_task(NearTexts())
    method = _coop()
    method.grow(task)
    assert [name for name, _ in method.named_parameters()] == ["context"]
    assert method.stage_parameters() == [method.context]
    assert set(method.state_dict()) == {"context", "text_features"}


def test_the_state_is_enough_to_answer() -> None:
    task = drawn_task(NearTexts())
    method, resumed = _coop(), _coop()
    go_through(method, task)
    resumed.grow(task)
    resumed.load_state_dict(method.state_dict())
    features = task.encoded.test(1).features
    assert resumed.scores(features)["coop"].equal(method.scores(features)["coop"])


def test_epochs_follow_the_shots_where_they_are_named() -> None:
    task = drawn_task(NearTexts())
    for shots, epochs in ((4, 9), (2, 15)):
        method = _coop(shots=shots, epochs_of_shots={"4": 9})
        method.grow(task)
        (stage,) = method.stages(task)
        assert stage.schedule.epochs == epochs
        assert stage.samples.features.shape[:2] == (4 * shots, 2)


def test_the_first_epoch_warms_up() -> None:
    task = drawn_task(NearTexts())
    warm = {**SCHEDULE, "warmup_epochs": 1, "warmup_lr": 1e-5}
    method = _coop(schedule=step_schedule(**warm))
    method.grow(task)
    optimizer, rate = method.optimizer_of(method.stages(task)[0])
    rates = [optimizer.param_groups[0]["lr"]]
    optimizer.step()
    rate.step()
    rates.append(optimizer.param_groups[0]["lr"])
    assert rates[0] == pytest.approx(1e-5)
    assert 0.018 < rates[1] < 0.02


def test_a_prompt_that_is_too_long_is_refused() -> None:
    method = _coop(context_tokens=40)
    with pytest.raises(UserError, match="at most 24"):
        method.grow(drawn_task(NearTexts()))


@pytest.mark.parametrize("changed", [{"shots": 0}, {"context_tokens": 0}, {"prompts_at_once": 0}])
def test_values_that_make_no_sense_are_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="expected at least 1"):
        _coop(**changed)


def test_features_from_a_file_are_refused() -> None:
    config = _coop().config
    with pytest.raises(UserError, match=r"coop learns prompts through the text encoder.*method\.learns=shift"):
        Coop(config, ingredients(None))
