from __future__ import annotations

from typing import Any

import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcl.backbones.dual_encoder import DualEncoder
from mmcl.errors import UserError

VISION = {"layers": 2, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 16}
TEXT = {"layers": 2, "width": 32, "heads": 2, "context_length": 12}
RESNET = {"layers": (1, 1, 1, 1), "width": 8, "head_width": 8, "image_size": 32}
TOKENIZER = open_clip.SimpleTokenizer()
SENTENCES = ["a photo of a cat.", "a tabby!"]


def clip(
    kind: Any = open_clip.CLIP, vision: dict[str, Any] | None = None, quick_gelu: bool = False, **text: Any
) -> Any:
    torch.manual_seed(1)
    return kind(32, vision or VISION, {**TEXT, **text}, quick_gelu=quick_gelu).eval()


@pytest.fixture(scope="module")
def encoder() -> DualEncoder:
    return DualEncoder(clip(), TOKENIZER)


@pytest.mark.parametrize(
    "model",
    [
        clip(quick_gelu=True),
        clip(vision=RESNET),
        clip(open_clip.CustomTextCLIP),
        clip(open_clip.CustomTextCLIP, pool_type="last", no_causal_mask=True, proj_bias=True),
        clip(open_clip.CustomTextCLIP, pool_type="eos", eos_id=TOKENIZER.eot_token_id),
        clip(open_clip.CustomTextCLIP, proj_type="none"),
    ],
    ids=["vit", "resnet", "separate_text", "last_token", "numbered_end", "no_projection"],
)
def test_features_are_those_of_the_model_before_normalisation(model: Any) -> None:
    encoder = DualEncoder(model, TOKENIZER)
    images = torch.randn(2, 3, encoder.image_size, encoder.image_size)
    tokens = TOKENIZER(SENTENCES, context_length=encoder.context_length)
    with torch.no_grad():
        torch.testing.assert_close(encoder.encode_images(images), model.encode_image(images), rtol=0, atol=1e-6)
        features, expected = encoder.encode_tokens(encoder.tokenize(SENTENCES)), model.encode_text(tokens)
    torch.testing.assert_close(features, expected, rtol=0, atol=1e-6)
    assert features.shape == (2, encoder.dimension)


def test_gradients_reach_the_embeddings_and_nothing_else(encoder: DualEncoder) -> None:
    tokens = encoder.tokenize(SENTENCES)
    embedded = encoder.embed_tokens(tokens).clone().requires_grad_()
    features = encoder.encode_embedded(embedded, tokens)
    torch.testing.assert_close(features, encoder.encode_tokens(tokens), rtol=0, atol=1e-6)
    features.square().sum().backward()
    assert embedded.grad is not None
    reached = embedded.grad.abs().sum(dim=-1) > 0
    up_to_the_end = torch.arange(tokens.shape[1]) <= tokens.argmax(dim=1, keepdim=True)
    assert torch.equal(reached, up_to_the_end)
    assert all(parameter.grad is None for parameter in encoder.parameters())


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=4))
def test_sentences_are_kept_whole_or_refused(encoder: DualEncoder, words: list[int]) -> None:
    sentences = [" ".join(["cat"] * count) for count in words]
    longest = max(words) + 2
    if longest <= encoder.context_length:
        tokens = encoder.tokenize(sentences)
        assert tokens.shape == (len(words), longest)
        assert (tokens != 0).sum(dim=1).tolist() == [count + 2 for count in words]
    else:
        first = next(count for count in words if count + 2 > encoder.context_length)
        with pytest.raises(UserError, match=f"has {first + 2} tokens, the text encoder takes at most 12"):
            encoder.tokenize(sentences)


def test_padding_changes_no_feature(encoder: DualEncoder) -> None:
    short = encoder.tokenize(SENTENCES)
    padded = torch.nn.functional.pad(short, (0, encoder.context_length - short.shape[1]))
    torch.testing.assert_close(encoder.encode_tokens(short), encoder.encode_tokens(padded), rtol=0, atol=1e-6)


def test_no_sentences_are_no_rows(encoder: DualEncoder) -> None:
    assert encoder.encode_tokens(encoder.tokenize([])).shape == (0, 32)


def test_encoders_stay_frozen(encoder: DualEncoder) -> None:
    torch.nn.Sequential(encoder).train()
    assert not any(module.training for module in encoder.modules())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


def test_the_scale_of_the_cosine_is_no_longer_a_logarithm() -> None:
    model = clip()
    model.logit_scale.data.fill_(torch.tensor(100.0).log())
    assert DualEncoder(model, TOKENIZER).logit_scale == pytest.approx(100, abs=1e-4)


def test_the_digest_follows_whatever_changes_features(encoder: DualEncoder) -> None:
    others = [clip(quick_gelu=True), clip(heads=4), clip()]
    others[2].ln_final.bias.data[3] += 1e-3
    digests = {DualEncoder(model, TOKENIZER).digest for model in others}
    assert len(digests | {encoder.digest}) == 4
    assert DualEncoder(clip(), TOKENIZER).digest == encoder.digest
    assert len(encoder.digest) == 16


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (clip(open_clip.CustomTextCLIP, embed_cls=True), "text tower of another kind"),
        (clip(vision={**VISION, "image_size": (16, 24)}), "16 x 24 pixels: expected square"),
    ],
    ids=["text", "images"],
)
def test_other_models_are_refused(model: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        DualEncoder(model, TOKENIZER)


def test_the_beginning_of_a_sentence_that_is_too_long_is_read_where_that_is_asked_for(encoder: DualEncoder) -> None:
    sentences = ["red " * 200, "a red ring"]
    tokens = encoder.tokenize_beginnings(sentences)
    assert torch.equal(tokens, TOKENIZER(sentences, encoder.context_length)[:, : tokens.shape[1]])
    assert tokens.shape[1] == encoder.context_length
    with pytest.raises(UserError, match="at most"):
        encoder.tokenize(sentences)
