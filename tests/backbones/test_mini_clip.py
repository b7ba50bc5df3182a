from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mmcl.backbones.dual_encoder import DualEncoder
from mmcl.backbones.mini_clip import (
    ARCHITECTURE,
    MEAN,
    SHIPPED_WEIGHTS,
    STD,
    MiniClip,
    MiniClipConfig,
    WordTokenizer,
    weights_metadata,
)
from mmcl.benchmarks.shapes_drawing import draw_images
from mmcl.benchmarks.shapes_sentences import captions, class_sentences, vocabulary
from mmcl.benchmarks.shapes_world import CLASS_NAMES, class_labels, collection_habits, draw_scenes
from mmcl.errors import UserError
from mmcl.methods.text_classifier import text_classifier
from mmcl.pixels import normalise


def mini_clip(weights: Path | None = None) -> MiniClip:
    path = None if weights is None else str(weights)
    return MiniClip(MiniClipConfig(_target_="mmcl.backbones.mini_clip.MiniClip", name="mini_clip", weights=path))


@pytest.fixture(scope="module")
def encoder() -> DualEncoder:
    return mini_clip().load()


def test_the_file_is_small_and_the_encoder_says_what_it_reads(encoder: DualEncoder) -> None:
    assert SHIPPED_WEIGHTS.stat().st_size < 3_000_000
    assert (encoder.dimension, encoder.image_size, encoder.context_length) == (64, 32, 32)
    assert (encoder.mean, encoder.std) == (MEAN, STD)
    assert 1 < encoder.logit_scale <= 100
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert all(tensor.dtype == torch.float32 for tensor in encoder.parameters())


def test_loading_twice_gives_the_same_encoder(encoder: DualEncoder) -> None:
    assert mini_clip().load().digest == encoder.digest


def zero_shot(encoder: DualEncoder, labels: torch.Tensor, per_class: int, prompts: str) -> float:
    """Return the accuracy among all 64 classes on a few images of some of them."""
    images = labels.repeat_interleave(per_class)
    scenes = draw_scenes(11, images, torch.arange(len(images)), collection_habits(0))
    features = encoder.encode_images(normalise(draw_images(scenes, "plain"), MEAN, STD))
    sentences = class_sentences(range(64), prompts)
    texts = encoder.encode_tokens(encoder.tokenize(sentences.texts))
    answers = (features @ text_classifier(texts, sentences.classes, 64).T).argmax(1)
    return float((answers == images).float().mean())


@pytest.mark.parametrize("prompts", ["simple", "cupl"])
@pytest.mark.parametrize("classes", ["seen", "unseen"])
def test_it_classifies_far_above_chance_and_below_the_ceiling(encoder: DualEncoder, classes: str, prompts: str) -> None:
    accuracy = zero_shot(encoder, torch.tensor(class_labels(classes)), 5, prompts)
    assert 5 / len(CLASS_NAMES) < accuracy < 0.95


def test_it_knows_every_word_of_the_world(encoder: DualEncoder) -> None:
    tokenizer = encoder.tokenizer
    assert isinstance(tokenizer, WordTokenizer)
    assert tokenizer.words[3:-1] == vocabulary()
    scenes = draw_scenes(2, torch.arange(64), torch.arange(64), collection_habits(0))
    spoken = [*class_sentences(range(64), "full").texts, *class_sentences(range(64), "cupl").texts]
    spoken += [caption.text for caption in captions(scenes, 0)]
    for text, tokens in zip(spoken, encoder.tokenize(spoken), strict=True):
        assert tokenizer.decode(tokens) == " ".join(text.replace(",", "").rstrip(".").split())


def test_tokens_of_unknown_and_punctuated_words() -> None:
    tokenizer = WordTokenizer(["a", "circle", "red"])
    tokens = tokenizer(["A red, zebra circle!", ""], context_length=8)
    assert tokens.tolist() == [[2, 3, 5, 1, 4, 6, 0, 0], [2, 6, 0, 0, 0, 0, 0, 0]]
    assert tokenizer.decode(tokens[0]) == "a red <unk> circle"


def test_too_long_a_sentence_is_refused(encoder: DualEncoder) -> None:
    encoder.tokenize(["red " * 30])
    with pytest.raises(UserError, match="33 tokens"):
        encoder.tokenize(["red " * 31])


def test_missing_weights_say_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.safetensors.*backbone\.weights=null"):
        mini_clip(tmp_path / "absent.safetensors")


def test_damaged_and_foreign_weights_are_refused(tmp_path: Path) -> None:
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(SHIPPED_WEIGHTS.read_bytes()[:100_000])
    with pytest.raises(UserError, match="not a readable safetensors file"):
        mini_clip(cut).load()
    foreign = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.zeros(2)}, foreign)
    with pytest.raises(UserError, match="no architecture and words"):
        mini_clip(foreign).load()
    save_file({"weight": torch.zeros(2)}, foreign, weights_metadata(ARCHITECTURE, ["red"]))
    with pytest.raises(UserError, match="not the weights of its architecture"):
        mini_clip(foreign).load()
