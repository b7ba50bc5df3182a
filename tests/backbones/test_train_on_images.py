"""The training of a mini CLIP on real images, through small made-up collections."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mmcl.backbones.mini_clip import MiniClip, MiniClipConfig, WordTokenizer, build_model
from mmcl.errors import UserError

SCRIPTS = Path(__file__).parents[2] / "experiments" / "mini_clip"
ARCHITECTURE = {
    "embed_dim": 8,
    "vision_cfg": {"layers": [1, 1, 1, 1], "width": 4, "image_size": 32},
    "text_cfg": {"layers": 1, "width": 8, "heads": 2, "context_length": 64},
}


@pytest.fixture(scope="module")
def scripts() -> Iterator[Any]:
    """The script with what it imports from its folder, under names that no other test sees."""
    sys.path.insert(0, str(SCRIPTS))
    try:
        yield importlib.import_module("train_on_images")
    finally:
        sys.path.remove(str(SCRIPTS))
        for name in ("train_on_images", "real_collections", "train"):
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def collections(scripts: Any) -> list[Any]:
    """Three collections of which classes 0 of the first two, and 1 to 3 of the last, are held out."""
    made = []
    for name, ids in {
        "CIFAR-100": ["apple", "bee", "crocodile"],
        "Tiny-ImageNet-100": ["n01443537", "n01698640", "n02206856"],
        "CUB-10": ["Ani", "Auklet", "Blackbird", "Sparrow"],
    }.items():
        labels = torch.arange(len(ids)).repeat(2)
        pixels = torch.full((len(labels), 3, 32, 32), 7, dtype=torch.uint8) * labels[:, None, None, None].byte()
        images = scripts.Images(pixels, labels)
        names = [f"thing{number}{name[:2].lower()}" for number in range(len(ids))]
        sentences = [[f"a {name} of size two", f"{name} is alive"] for name in names]
        made.append(scripts.Collected(name, ids, names, sentences, [[] for _ in ids], images, images))
    return made


@pytest.fixture(autouse=True)
def small_kin(scripts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    kin = (("bee", "n02206856"), ("crocodile", "n01698640"))
    monkeypatch.setattr(sys.modules["real_collections"], "KIN", kin)


def options(out: Path, **others: Any) -> argparse.Namespace:
    values = {"data": Path(), "out": out, "epochs": 2, "batch_size": 4, "lr": 1e-3, "seed": 0, "threads": 1, **others}
    return argparse.Namespace(**values)


def model_of(training: Any) -> Any:
    torch.manual_seed(0)
    return build_model(ARCHITECTURE, len(WordTokenizer(training.words)))


def test_kin_is_held_out_along_chains(scripts: Any) -> None:
    with_kin = sys.modules["real_collections"].with_kin
    pairs = [("bus", "trolley"), ("streetcar", "trolley"), ("bee", "wasp")]
    assert with_kin(["streetcar"], pairs) == {"streetcar", "trolley", "bus"}
    assert with_kin([], pairs) == set()


def test_nothing_of_a_held_out_class_is_trained_on(scripts: Any, collections: list[Any]) -> None:
    held_out = scripts.held_out_classes(collections)
    assert held_out == {"apple", "n01443537", "Auklet", "Blackbird", "Sparrow"}
    training = scripts.gather(collections, held_out)
    assert training.images.labels.unique().tolist() == [1, 2, 4, 5, 6]
    assert (training.corpus.counts > 0).nonzero().flatten().tolist() == [1, 2, 4, 5, 6]
    assert "thing0ci" not in training.words
    assert {"thing1ci", "thing2ti", "alive"} <= set(training.words)
    shown = training.images.labels.bincount(minlength=10)
    repeats = [scripts.REPEATS[collected.name] for collected in collections]
    assert shown[[1, 4, 6]].tolist() == [2 * repeat for repeat in repeats]


def test_sentences_are_true_of_their_class_and_of_its_kin(scripts: Any, collections: list[Any]) -> None:
    same = scripts.gather(collections, set()).same
    expected = torch.eye(10, dtype=torch.bool)
    expected[[1, 5, 2, 4], [5, 1, 4, 2]] = True
    assert same.equal(expected)


def test_names_alone_are_hidden_and_only_in_some_draws(scripts: Any) -> None:
    words = scripts.common_words(["two bees near a bee", "bees near a lamp", "a lamp"])
    assert words == ("a", "bees", "lamp", "near")
    corpus = scripts.corpus_of([["bees near a lamp"], ["a lamp", "near lamp"]], ["bee", "desk lamp"], words)
    tokenizer = WordTokenizer(words)

    def said(classes: list[int], draws: list[list[float]]) -> list[str]:
        rows: Tensor = scripts.spoken(corpus, torch.tensor(classes), torch.tensor(draws))
        return [tokenizer.decode(row) for row in rows]

    assert said([0, 1], [[0.9, 0.6], [0.2, 0.6]]) == ["bees near a lamp", "a lamp"]
    assert said([0, 1], [[0.9, 0.4], [0.7, 0.4]]) == ["<unk> near a lamp", "near <unk>"]


def test_a_training_goes_on_where_it_was_stopped(
    scripts: Any, collections: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = scripts.gather(collections, set())
    whole, resumed = model_of(training), model_of(training)
    scripts.train(whole, training, options(tmp_path / "whole.safetensors"))

    original = scripts.train_epoch

    def stop_at_second(*arguments: Any) -> Any:
        if arguments[-1] == 1:
            raise KeyboardInterrupt
        return original(*arguments)

    out = tmp_path / "resumed.safetensors"
    with monkeypatch.context() as patch:
        patch.setattr(scripts, "train_epoch", stop_at_second)
        with pytest.raises(KeyboardInterrupt):
            scripts.train(resumed, training, options(out))
    again = model_of(training)
    scripts.train(again, training, options(out))
    for name, tensor in whole.state_dict().items():
        assert again.state_dict()[name].equal(tensor), name
        if name == "visual.conv1.weight":
            assert not resumed.state_dict()[name].equal(tensor)
    with pytest.raises(UserError, match="delete it, or type another --out"):
        scripts.train(model_of(training), training, options(out, seed=1))


def test_what_was_written_is_a_backbone_of_its_size_and_reported(
    scripts: Any, collections: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held_out = scripts.held_out_classes(collections)
    training = scripts.gather(collections, held_out)
    out = tmp_path / "weights.safetensors"
    scripts.save(model_of(training), ARCHITECTURE, training.words, out)
    encoder = MiniClip(MiniClipConfig(_target_="", name="mini_clip", weights=str(out))).load()
    assert (encoder.dimension, encoder.image_size, encoder.context_length) == (8, 32, 64)
    scripts.report(out, collections, held_out)
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 7
    assert printed[2].startswith("CIFAR-100, 2 images of 1 held-out classes among these (chance 100.0%): zero-shot 100")
    assert printed[-1].startswith("CUB-10, 6 images of 3 held-out classes among these (chance 33.3%)")


def test_missing_data_is_named(scripts: Any, tmp_path: Path) -> None:
    (tmp_path / "cifar-100-python").mkdir()
    with pytest.raises(UserError, match="no folder tinyimagenet100"):
        scripts.read_all(tmp_path, 32)
