from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from mmcl.errors import UserError
from mmcl.methods.clip_zeroshot import ClipZeroshot, cosine_logits
from mmcl.methods.on_features import OnFeaturesConfig
from mmcl.protocol import TextFeatures
from tests.methods.encoded import DrawnDataset, accuracies, drawn_task, go_through, ingredients


def _method(prompts: str = "simple") -> ClipZeroshot:
    return ClipZeroshot(OnFeaturesConfig("", "clip_zeroshot", prompts), ingredients())


def test_logits_are_scaled_cosines() -> None:
    features = torch.tensor([[3.0, 4.0], [0.0, 0.5]])
    logits = cosine_logits(features, torch.eye(2), 10.0)
    torch.testing.assert_close(logits, torch.tensor([[6.0, 8.0], [0.0, 10.0]]))


def test_it_answers_by_the_plain_view_alone() -> None:
    method, task = _method(), drawn_task(DrawnDataset())
    go_through(method, task)
    features = task.encoded.test(3).features
    torch.testing.assert_close(method.scores(features)["text"], method.scores(features[:, :1])["text"])
    assert accuracies(method, task)["text"] > 0.5


def test_the_kind_of_prompts_is_the_configured_one() -> None:
    task = drawn_task(DrawnDataset())
    classifiers = {}
    for prompts in ("simple", "cupl"):
        method = _method(prompts)
        go_through(method, task)
        classifiers[prompts] = method.text_features
        torch.testing.assert_close(method.text_features, normalize(task.encoded.texts(prompts).features, dim=1))
    assert not classifiers["simple"].equal(classifiers["cupl"])


def test_a_class_without_a_sentence_is_refused() -> None:
    class Wordless(DrawnDataset):
        def texts(self, prompts: str) -> TextFeatures:
            features, classes = super().texts(prompts)
            return TextFeatures(features[1:], classes[1:])

    with pytest.raises(UserError, match=r"no sentence for classes \[0\]"):
        go_through(_method(), drawn_task(Wordless()))


def test_the_state_is_enough_to_answer() -> None:
    task = drawn_task(DrawnDataset())
    method, resumed = _method(), _method()
    go_through(method, task)
    resumed.grow(task)
    resumed.load_state_dict(method.state_dict())
    features = task.encoded.test(1).features
    assert resumed.scores(features)["text"].equal(method.scores(features)["text"])
