from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import normalize

from mmcl.backbones.dual_encoder import DualEncoder
from mmcl.errors import UserError
from mmcl.methods.prompt_learner import PromptLearner
from mmcl.methods.tpt import Tpt, TptConfig, first_adamw_step
from tests.methods.encoded import NAMES, DrawnDataset, SplittingTokenizer, drawn_task, go_through, ingredients
from tests.methods.encoded import tiny_encoder as encoder_of

SCALE = 20.0


def _tpt(encoder: DualEncoder | None, **changed: Any) -> Tpt:
    keys: dict[str, Any] = {"_target_": "", "name": "tpt", "learns": "prompt", "prompts": "simple"}
    keys |= {"context": "a photo of a", "views": 8}
    keys |= {"selection_share": 0.4, "lr": 0.005, "weight_decay": 0.01, "prompts_at_once": 128, **changed}
    return Tpt(TptConfig(**keys), ingredients(encoder, SCALE))


def _classifier(encoder: DualEncoder, context: Tensor) -> Tensor:
    """The definition: each sentence's tokens, the four words of the context replaced."""
    tokens = encoder.tokenize([f"a photo of a {name.replace('_', ' ')}." for name in NAMES])
    embedded = encoder.embed_tokens(tokens).clone()
    embedded[:, 1:5] = context
    return normalize(encoder.encode_embedded(embedded, tokens), dim=1)


def _per_image(encoder: DualEncoder, views: Tensor, lr: float) -> Tensor:
    """One image as published: a fresh parameter, a fresh AdamW, one step, the plain view's logits."""
    start = encoder.embed_tokens(encoder.tokenize(["a photo of a"]))[0, 1:5]
    context = nn.Parameter(start.clone())
    optimizer = torch.optim.AdamW([context], lr=lr)
    views = normalize(views, dim=1)
    logits = SCALE * views @ _classifier(encoder, context).T
    entropies = torch.distributions.Categorical(logits=logits).entropy()
    chosen = logits[entropies.argsort()[: int(len(views) * 0.4)]]
    torch.distributions.Categorical(probs=chosen.softmax(1).mean(0)).entropy().backward()
    optimizer.step()
    return SCALE * views[0] @ _classifier(encoder, context.detach()).T


@pytest.mark.parametrize("prompts_at_once", [1, 3, 8, 128])
def test_a_batch_is_the_published_procedure_image_by_image(prompts_at_once: int) -> None:
    encoder, task = encoder_of(), drawn_task(DrawnDataset())
    method = _tpt(encoder, prompts_at_once=prompts_at_once)
    go_through(method, task)
    features = task.encoded.test(8).features[::9]
    expected = torch.stack([_per_image(encoder, views, 0.005) for views in features])
    torch.testing.assert_close(method.scores(features)["tpt"], expected, atol=2e-5, rtol=1e-6)


def test_the_readout_text_is_the_prompt_before_the_step() -> None:
    encoder, task = encoder_of(), drawn_task(DrawnDataset())
    method = _tpt(encoder, lr=0.0)
    go_through(method, task)
    scores = method.scores(task.encoded.test(8).features)
    torch.testing.assert_close(scores["tpt"], scores["text"], atol=1e-4, rtol=0)
    direct = normalize(encoder.encode_tokens(method.learner.tokens), dim=1)
    torch.testing.assert_close(method.text_features, direct)


def test_an_image_does_not_depend_on_the_images_beside_it() -> None:
    method, task = _tpt(encoder_of()), drawn_task(DrawnDataset())
    go_through(method, task)
    features = task.encoded.test(8).features[:4]
    alone = torch.cat([method.scores(row[None])["tpt"] for row in features])
    torch.testing.assert_close(method.scores(features)["tpt"], alone, atol=1e-5, rtol=1e-5)


def test_the_step_makes_the_confident_views_agree_more() -> None:
    encoder, task = encoder_of(), drawn_task(DrawnDataset())
    method = _tpt(encoder, selection_share=1.0, weight_decay=0.0, lr=0.002)
    go_through(method, task)
    views = normalize(task.encoded.test(8).features, dim=2)
    tuned = torch.stack([_classifier(encoder, context) for context in method.tuned_contexts(views)])
    before, after = (_mean_entropy(views @ rows.mT) for rows in (method.text_features, tuned))
    assert bool((after < before).all())


@given(st.integers(0, 2**31), st.floats(0, 0.1), st.floats(0, 1))
@settings(max_examples=20, deadline=None)
def test_the_closed_form_is_the_first_step_of_adamw(seed: int, lr: float, weight_decay: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(3, 2, generator=generator, dtype=torch.float64)
    gradients = torch.randn(5, 3, 2, generator=generator, dtype=torch.float64) * 1e-6
    for stepped, gradient in zip(first_adamw_step(start, gradients, lr, weight_decay), gradients, strict=True):
        parameter = nn.Parameter(start.clone())
        parameter.grad = gradient
        torch.optim.AdamW([parameter], lr=lr, weight_decay=weight_decay).step()
        torch.testing.assert_close(stepped, parameter.detach(), atol=1e-12, rtol=1e-12)


def test_the_state_is_enough_to_answer_and_holds_no_encoder() -> None:
    task = drawn_task(DrawnDataset())
    method, resumed = _tpt(encoder_of()), _tpt(encoder_of())
    go_through(method, task)
    assert set(method.state_dict()) == {"text_features"}
    resumed.grow(task)
    resumed.load_state_dict(method.state_dict())
    resumed.begin_evaluation(task)
    features = task.encoded.test(8).features[:3]
    assert resumed.scores(features)["tpt"].equal(method.scores(features)["tpt"])


def test_features_from_a_file_are_refused() -> None:
    with pytest.raises(UserError, match=r"tpt learns prompts through the text encoder.*method\.learns=shift"):
        _tpt(None)


@pytest.mark.parametrize("changed", [{"views": 2}, {"lr": -1.0}, {"prompts_at_once": 0}])
def test_values_that_make_no_sense_are_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="expected at least"):
        _tpt(encoder_of(), **changed)


def test_a_context_of_split_words_is_refused() -> None:
    with pytest.raises(UserError, match="each of its words must be one token"):
        PromptLearner(encoder_of(tokenizer=SplittingTokenizer()), NAMES, "a photo of a", 128)


def test_an_empty_context_is_refused() -> None:
    with pytest.raises(UserError, match="each of its words must be one token"):
        PromptLearner(encoder_of(), NAMES, "", 128)


def _mean_entropy(cosines: Tensor) -> Tensor:
    return torch.distributions.Categorical(probs=(SCALE * cosines).softmax(-1).mean(1)).entropy()
