"""Each job is encoded once, on any number of processes; what fails leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mmcl.engine.encoding import CachedEncoders
from mmcl.errors import UserError
from mmcl.features.cache import FeatureCache, PartWriter
from mmcl.features.job import EncodingJob, Views
from mmcl.features.views import view_batch
from mmcl.protocol import Sentences
from tests.engine.encoder import CHECKOUT, SmallEncoder, encoders, in_files, pixel_samples, sentences

VIEWS = Views(4, "augmix")


def calls(behind: CachedEncoders) -> int:
    encoder = behind.encoder
    assert isinstance(encoder, SmallEncoder)
    return encoder.calls


def test_features_are_those_of_the_views(tmp_path: Path) -> None:
    behind, samples = encoders(tmp_path), pixel_samples()
    features = behind.images(EncodingJob("test", samples, VIEWS))
    assert isinstance(samples.images, torch.Tensor)
    views = view_batch(samples.images, samples.sources, VIEWS, 8, SmallEncoder.mean, SmallEncoder.std)
    expected = SmallEncoder().encode_images(views.flatten(0, 1)).view(13, 4, 6)
    torch.testing.assert_close(features.features, expected)
    assert torch.equal(features.labels, samples.labels)
    assert torch.equal(features.sources, samples.sources)


def test_encoded_once(tmp_path: Path) -> None:
    behind = encoders(tmp_path)
    first = behind.images(EncodingJob("test", pixel_samples(), VIEWS)), behind.texts("texts", sentences())
    done = calls(behind)
    again = behind.images(EncodingJob("test", pixel_samples(), VIEWS)), behind.texts("texts", sentences())
    assert calls(behind) == done > 0
    for ours, theirs in zip(first, again, strict=True):
        assert torch.equal(ours.features, theirs.features)
    assert first[1].features.dtype == torch.float32
    assert torch.equal(first[1].classes, sentences().classes)


@pytest.mark.parametrize(
    "views", [Views(3, "augmix"), Views(4, "crop"), Views(4, "augmix", seed=1), Views(4, "augmix", "bicubic"), Views()]
)
def test_other_views_are_other_entries(tmp_path: Path, views: Views) -> None:
    behind = encoders(tmp_path)
    behind.images(EncodingJob("test", pixel_samples(), VIEWS))
    behind.images(EncodingJob("test", pixel_samples(), views))
    assert len(behind.cache.list_entries()) == 2


def test_files_and_workers_give_the_same(tmp_path: Path) -> None:
    files = in_files(tmp_path / "images")
    expected = encoders(tmp_path / "a").images(EncodingJob("test", pixel_samples(), VIEWS)).features
    for workers in (0, 1):
        behind = encoders(tmp_path / str(workers), workers=workers)
        torch.testing.assert_close(behind.images(EncodingJob("test", files, VIEWS)).features, expected)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_corrupt_image_is_named(tmp_path: Path, workers: int) -> None:
    files = in_files(tmp_path / "images")
    (tmp_path / "images" / "7.png").write_bytes(b"nothing of an image")
    behind = encoders(tmp_path / "cache", workers=workers)
    with pytest.raises(UserError, match=r"cannot read the image .*7\.png"):
        behind.images(EncodingJob("test", files, Views()))
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    files = in_files(tmp_path / "images")
    (tmp_path / "images" / "7.png").unlink()
    with pytest.raises(UserError, match=r"cannot read the image .*7\.png"):
        encoders(tmp_path / "cache").images(EncodingJob("test", files, Views()))


def test_a_sentence_that_is_too_long(tmp_path: Path) -> None:
    long = Sentences(("short", "long" * 20), torch.tensor([0, 1]))
    with pytest.raises(UserError, match="too long"):
        encoders(tmp_path).texts("texts", long)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: PartWriter, features: torch.Tensor) -> None:
        raise UserError("no space left")

    monkeypatch.setattr(PartWriter, "write", full)
    with pytest.raises(UserError, match="no space left"):
        encoders(tmp_path).images(EncodingJob("test", pixel_samples(), VIEWS))
    assert list(tmp_path.iterdir()) == []


def test_a_fault_of_the_encoder_leaves_nothing(tmp_path: Path) -> None:
    behind = encoders(tmp_path)
    behind.encoder.across = torch.zeros(5, 6)
    with pytest.raises(RuntimeError):
        behind.images(EncodingJob("test", pixel_samples(), VIEWS))
    assert list(tmp_path.iterdir()) == []


def test_half_precision(tmp_path: Path) -> None:
    half, full = (
        encoders(tmp_path, precision=precision).images(EncodingJob("test", pixel_samples(), VIEWS)).features
        for precision in ("float16", "float32")
    )
    assert torch.equal(half, full.half())


@pytest.mark.slow
def test_two_processes_write_the_same_entries(tmp_path: Path) -> None:
    one = encoders(tmp_path / "one")
    for views in (VIEWS, Views()):
        one.images(EncodingJob("pixels", pixel_samples(), views))
    one.texts("words", sentences())
    in_files(tmp_path / "images")
    (tmp_path / "images" / "7.png").write_bytes(b"nothing of an image")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, "-m", "tests.engine.encoder", str(tmp_path / "two"), str(tmp_path / "images")]
    ended = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    two = FeatureCache(tmp_path / "two")
    assert len(list(two.folder.iterdir())) == 3
    assert [entry[0] for entry in two.list_entries()] == [entry[0] for entry in one.cache.list_entries()]
    for entry in two.list_entries():
        assert two.verify(entry.name)
        for path in entry.path.glob("*.npy"):
            ours, theirs = (
                torch.from_numpy(np.load(part)) for part in (path, tmp_path / "one" / entry.name / path.name)
            )
            torch.testing.assert_close(ours, theirs)
