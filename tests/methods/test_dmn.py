"""DMN as a method: its settings, what it learns, chooses and refuses, and its state."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mmcl.errors import UserError
from mmcl.methods.dmn import Dmn
from mmcl.protocol import DatasetTask, ImageFeatures
from tests.methods.dmn_cases import dmn_method
from tests.methods.encoded import DIMENSION, DrawnDataset, accuracies, drawn_task, go_through

QUICK: dict[str, Any] = {"views": 4, "selection_share": 0.5, "slots_per_class": 5}


def ready(**overrides: Any) -> tuple[Dmn, DatasetTask]:
    """Take a method through the task of a drawn data set."""
    method, task = dmn_method(DIMENSION, 20.0, **{**QUICK, **overrides}), drawn_task(DrawnDataset())
    go_through(method, task)
    return method, task


def served(method: Dmn, task: DatasetTask) -> dict[str, Tensor]:
    method.begin_evaluation(task)
    return method.scores(task.encoded.test(method.test_views).features)


def test_zero_shot_has_no_static_memory_and_adds_up_probabilities() -> None:
    method, task = ready()
    answers = served(method, task)
    assert method.readouts == tuple(answers) == ("text", "dynamic", "fused")
    torch.testing.assert_close(answers["fused"], answers["text"] + answers["dynamic"])
    for name in ("text", "dynamic"):
        torch.testing.assert_close(answers[name].sum(dim=1), torch.ones(48))
    assert method.stages(task) == []
    assert method.memory.counts.sum() > 0


def test_accuracy_rises_from_text_over_the_stream_to_shots() -> None:
    zero_shot, few_shot = (accuracies(*ready(shots=shots)) for shots in (0, 16))
    assert zero_shot["text"] < zero_shot["fused"] < few_shot["fused"]


@pytest.mark.parametrize("projection", ["bias", "affine"])
def test_learning_lowers_the_loss(projection: str) -> None:
    method = dmn_method(
        DIMENSION, 20.0, **QUICK, shots=4, learn=True, projection=projection, schedule__lr=0.01, passes=2
    )
    task = drawn_task(DrawnDataset())
    losses = go_through(method, task)
    assert len(losses) == 20
    assert losses[-1] < 0.8 * losses[0]
    assert method.stages(task)[0].samples.features.shape == (16, 2, DIMENSION)  # type: ignore[union-attr]
    free, _ = ready(shots=4)
    assert not torch.allclose(served(method, task)["dynamic"], served(free, task)["dynamic"])


def test_weight_decay_pulls_only_what_is_learned() -> None:
    def moved(weight_decay: float) -> Dmn:
        method = dmn_method(
            DIMENSION, **QUICK, shots=2, learn=True, position="value", schedule__weight_decay=weight_decay
        )
        task = drawn_task(DrawnDataset())
        method.grow(task)
        method.begin_task(task)
        stage = method.stages(task)[0]
        method.begin_stage(stage, task)
        for parameter in method.projections.parameters():
            parameter.data.fill_(0.5)
        optimizer, _ = method.optimizer_of(stage)
        method.projections.value.grad = torch.ones_like(method.projections.value)
        optimizer.step()
        return method

    plain, decayed = moved(0.0).projections, moved(0.25).projections
    rate = 1e-4
    torch.testing.assert_close(
        plain.value - decayed.value, torch.full((4, DIMENSION), rate * 0.25 * 0.5), atol=1e-7, rtol=0
    )
    for projections in (plain, decayed):
        assert all(bool((getattr(projections, place) == 0.5).all()) for place in ("query", "key", "output", "text"))


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"shots": 1}, [1, 1, 1]),
        ({"shots": 1, "learn": True, "schedule__epochs": 0}, [1, 1, 0.3]),
        ({"shots": 1, "weights__static": 0.5, "weights__text": 0.0}, [0, 1, 0.5]),
    ],
)
def test_weights_by_setting(overrides: dict[str, Any], expected: list[float]) -> None:
    method, _ = ready(**overrides)
    assert method.fusion_weights.tolist() == pytest.approx(expected)


def test_validation_chooses_the_weights_and_leaves_no_trace() -> None:
    method, task = ready(shots=2, fusion="val")
    given, _ = ready(shots=2)
    assert method.fusion_weights.tolist() != given.fusion_weights.tolist()
    answers, answers_given = served(method, task), served(given, task)
    for name in ("text", "dynamic", "static"):
        assert torch.equal(answers[name], answers_given[name])
    assert torch.equal(method.fusion_weights, ready(shots=2, fusion="val")[0].fusion_weights)


def test_the_oracle_looks_at_test_labels_under_a_name_of_its_own() -> None:
    method, task = ready(shots=2)
    answers, labels = served(method, task), task.encoded.test(4).labels
    oracle = method.oracles(task)["fused"]
    oracle.update(answers, labels)
    fused = (answers["fused"].argmax(dim=1) == labels).double().mean()
    assert set(oracle.compute()) == {"accuracy", "weight_dynamic", "weight_static"}
    assert oracle.compute()["accuracy"] >= fused


def test_channels_concern_the_static_memory_alone() -> None:
    (some, task), (every, _) = ready(shots=2, channels=5), ready(shots=2)
    assert some.channel_mask.sum() == 5
    chosen, whole = served(some, task), served(every, task)
    assert torch.equal(chosen["dynamic"], whole["dynamic"])
    assert not torch.allclose(chosen["static"], whole["static"])


def test_augmented_shots_go_into_the_static_memory_alone() -> None:
    method, task = ready(shots=2, augmented_shots=3)
    assert method.shots.shape == (4, 2, 3, DIMENSION)
    assert method.memory.fixed == 3
    assert served(method, task)["static"].shape == (48, 4)
    assert torch.equal(method.memory.features[:, 1:3], method.shots[:, :, 0])


def test_learning_and_memory_see_different_augmented_views() -> None:
    method, task = ready(shots=2, augmented_shots=3, learn=True, passes=2, schedule__epochs=2)
    stored = method.shots.flatten(0, 2)
    learned: ImageFeatures = method.stages(task)[0].samples  # type: ignore[assignment]
    served_features = torch.nn.functional.normalize(learned.features.flatten(0, 1), dim=1)
    assert (served_features @ stored.T).max() < 0.9999


@pytest.mark.parametrize("shots", [0, 2])
def test_a_stream_goes_on_from_a_state_dict_bit_for_bit(shots: int) -> None:
    method, task = ready(shots=shots, learn=shots > 0, schedule__epochs=2)
    features = task.encoded.test(method.test_views).features
    method.begin_evaluation(task)
    method.scores(features[:20])
    state = {name: part.clone() for name, part in method.state_dict().items()}
    resumed = dmn_method(DIMENSION, 20.0, **QUICK, shots=shots, learn=shots > 0, schedule__epochs=2)
    resumed.grow(task)
    resumed.begin_evaluation(task)
    resumed.load_state_dict(state)
    rest, again = method.scores(features[20:]), resumed.scores(features[20:])
    for name, answer in rest.items():
        assert torch.equal(answer, again[name]), name


def test_a_data_set_after_another_begins_anew() -> None:
    method, _ = ready(shots=2, learn=True, schedule__epochs=1)
    names = ("one", "two", "three")
    task = drawn_task(DrawnDataset(names))
    go_through(method, task)
    alone = dmn_method(DIMENSION, 20.0, **QUICK, shots=2, learn=True, schedule__epochs=1)
    go_through(alone, task)
    after, first = served(method, task), served(alone, task)
    assert all(torch.equal(after[name], first[name]) for name in after)


def test_bytes_are_those_of_both_memories() -> None:
    method, _ = ready(shots=2)
    report = method.byte_report()
    assert report.exemplars == 4 * 5 + 4 * 2
    assert report.memory_bytes == (4 * 5 + 4 * 2) * DIMENSION * 4


def test_single_data_sets_may_have_a_schedule_of_their_own() -> None:
    method, task = ready(shots=1, learn=True, schedule_of={"drawn": {"epochs": 3, "lr": 0.01}})
    schedule: Any = method.stages(task)[0].schedule
    assert (schedule.epochs, schedule.lr, schedule.weight_decay) == (3, 0.01, 0.0001)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"learn": True}, "method.learn=true needs labelled images. Type for example method.shots=16"),
        ({"fusion": "val"}, "the zero-shot setting has no validation labels"),
        ({"fusion": "oracle"}, "method.fusion=oracle: expected one of fixed, val"),
        ({"position": "quey"}, "Did you mean 'query'"),
        ({"projection": "matrix"}, "expected one of bias, affine"),
        ({"views": 4}, "keeps 0 of 4 views"),
        ({"slots_per_class": 0}, "method.slots_per_class=0: expected at least 1"),
        ({"sharpness": 50.0}, "expected 0 to 20"),
        ({"channel_similarity_weight": 2.0}, "expected 0 to 1"),
        ({"channels": 17}, "features have 16 channels"),
        ({"schedule_of": {"dtd": {"epoch": 3}}}, "schedule_of.dtd.epoch'.*Did you mean 'epochs'"),
    ],
)
def test_values_that_mean_nothing_are_refused(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        dmn_method(DIMENSION, **overrides)
