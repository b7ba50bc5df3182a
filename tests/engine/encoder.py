"""A frozen encoder of a few numbers for the tests of the cache, and a script that encodes with it on any processes."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torchvision.transforms import functional

from mmcl.engine.encoding import CachedEncoders
from mmcl.errors import UserError
from mmcl.features.cache import FeatureCache
from mmcl.features.job import EncodingJob, Views
from mmcl.images import FileImages
from mmcl.protocol import Samples, Sentences

CHECKOUT = Path(__file__).resolve().parents[2]


class SmallEncoder(nn.Module):
    """Projects pixels, and counts of letters; counts the batches that it has seen."""

    dimension, logit_scale, image_size, context_length = 6, 100.0, 8, 40
    mean, std, interpolation = (0.5, 0.4, 0.3), (0.25, 0.25, 0.2), "bicubic"

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("across", torch.randn(3 * 8 * 8, 6, generator=generator))
        self.register_buffer("letters", torch.randn(128, 6, generator=generator))
        self.calls = 0
        self.digest = hashlib.sha256(self.across.numpy().tobytes()).hexdigest()[:16]

    def encode_images(self, images: Tensor) -> Tensor:
        self.calls += 1
        return images.flatten(1) @ self.across

    def tokenize(self, sentences: Sequence[str]) -> Tensor:
        if any(len(sentence) > self.context_length for sentence in sentences):
            raise UserError("a sentence is too long")
        return torch.tensor([[ord(letter) for letter in sentence.ljust(self.context_length)] for sentence in sentences])

    def encode_tokens(self, tokens: Tensor) -> Tensor:
        self.calls += 1
        return self.letters[tokens].mean(1)


def trainer_config(name: str = "cpu") -> DictConfig:
    config = OmegaConf.load(CHECKOUT / "conf" / "trainer" / f"{name}.yaml")
    assert isinstance(config, DictConfig)
    config.progress = False
    return config


def encoders(folder: Path, trainer: str = "cpu", precision: str = "float32", workers: int = 0) -> CachedEncoders:
    return CachedEncoders(
        SmallEncoder(),  # type: ignore[arg-type]
        FeatureCache(folder),
        trainer_config(trainer),
        precision=precision,
        batch_size=16,
        workers=workers,
    )


def pixel_samples(count: int = 13, side: int = 11) -> Samples:
    pixels = torch.randint(256, (count, 3, side, side), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    return Samples(pixels, torch.arange(count) % 3, torch.arange(count) * 2)


def in_files(folder: Path) -> Samples:
    """Write the pixel samples as files."""
    samples = pixel_samples()
    assert isinstance(samples.images, Tensor)
    folder.mkdir()
    paths = tuple(f"{row}.png" for row in range(len(samples)))
    for pixels, path in zip(samples.images, paths, strict=True):
        functional.to_pil_image(pixels).save(folder / path)
    return Samples(FileImages(folder, paths), samples.labels, samples.sources)


def sentences() -> Sentences:
    return Sentences(("a cat", "the cat", "one dog", "a red bird", "bird"), torch.tensor([0, 0, 1, 2, 2]))


def main(folder: Path, images: Path) -> None:
    """Encode on two processes, as the other process does in its own start of this script.

    One image of the folder is corrupt, which one process meets and both hear of.
    """
    torch.set_num_threads(1)
    behind = encoders(folder, "ddp_cpu")
    for views in (Views(4, "augmix"), Views()):
        features = behind.images(EncodingJob("pixels", pixel_samples(), views))
        assert features.features.shape == (13, views.count, 6)
    assert behind.texts("words", sentences()).features.shape == (5, 6)
    calls = behind.encoder.calls
    behind.texts("words", sentences())
    assert behind.encoder.calls == calls
    files = FileImages(images, tuple(f"{row}.png" for row in range(13)))
    with pytest.raises(UserError, match=r"7\.png"):
        behind.images(EncodingJob("files", dataclasses.replace(pixel_samples(), images=files), Views()))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
