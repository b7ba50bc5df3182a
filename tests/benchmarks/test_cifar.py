from __future__ import annotations

import os
import pickle
import tarfile
from collections.abc import Callable
from dataclasses import replace
from http.client import IncompleteRead
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import CIFAR100

from mmcl.benchmarks.cifar import Cifar10, Cifar100, Cifar100At224, Cifar100At224Config, CifarConfig
from mmcl.errors import UserError

CONFIG = CifarConfig(
    _target_="mmcl.benchmarks.cifar.Cifar100",
    name="cifar100",
    data="",
    base=0,
    increment=5,
    order_seed=1993,
    class_order=None,
    exact=False,
    workers=0,
    steps_per_block=50,
    download=False,
    verify=False,
)


def write(path: Path, entry: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(entry, protocol=2))


@pytest.fixture
def cifar(tmp_path: Path) -> CifarConfig:
    """Ten classes with 4 training and 2 test images in the layout of CIFAR-100."""
    folder = tmp_path / "cifar-100-python"
    random = np.random.RandomState(0)
    for split, each in (("train", 4), ("test", 2)):
        pixels = random.randint(0, 256, (10 * each, 3072)).astype(np.uint8)
        write(folder / split, {"data": pixels, "fine_labels": list(range(10)) * each})
    write(folder / "meta", {"fine_label_names": [f"class{label}" for label in range(10)]})
    return replace(CONFIG, data=str(tmp_path))


def test_pickles_are_read_as_torchvision_lays_them_out(cifar: CifarConfig) -> None:
    benchmark = Cifar100(cifar)
    task = benchmark.task(0)
    assert benchmark.task_sizes == [5, 5]
    assert task.train.images.shape == (20, 3, 32, 32)  # type: ignore[union-attr]
    entry = pickle.loads((benchmark.folder / "train").read_bytes())
    source = int(task.train.sources[7])
    assert torch.equal(task.train.images[7].flatten(), torch.from_numpy(entry["data"][source]))  # type: ignore[index, union-attr]
    assert benchmark.class_names[int(task.train.labels[7])] == f"class{entry['fine_labels'][source]}"


def test_cifar10_joins_its_batches(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    for name in [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]:
        write(folder / name, {"data": np.zeros((10, 3072), np.uint8), "labels": list(range(10))})
    write(folder / "batches.meta", {"label_names": list("abcdefghij")})
    task = Cifar10(replace(CONFIG, data=str(tmp_path), increment=10)).task(0)
    assert (len(task.train), len(task.test)) == (50, 10)
    with pytest.raises(UserError, match="data_batch_1 does not hold the published images"):
        Cifar10(replace(CONFIG, data=str(tmp_path), verify=True)).setup()


def test_other_pixels_are_refused_unless_asked_for(cifar: CifarConfig) -> None:
    with pytest.raises(UserError, match=r"train does not hold the published images.*benchmark.verify=false"):
        Cifar100(replace(cifar, verify=True)).setup()


@pytest.mark.parametrize("kept", [0, 1, 100, 3000, -1])
def test_a_truncated_file_is_named(cifar: CifarConfig, kept: int) -> None:
    path = Path(cifar.data) / "cifar-100-python" / "train"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match=r"cannot read .*train: "):
        Cifar100(cifar).setup()


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("harm",)


def test_a_pickle_that_runs_code_is_refused(cifar: CifarConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(cifar.data)
    write(Path(cifar.data) / "cifar-100-python" / "meta", Harmful())
    with pytest.raises(UserError, match="mkdir is not allowed"):
        Cifar100(cifar).setup()
    assert not Path("harm").exists()


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"data": np.zeros((40, 3072), np.uint8)}, "has no 'fine_labels'"),
        ({"data": np.zeros((40, 3072), np.float32), "fine_labels": [0] * 40}, "not uint8"),
        ({"data": np.zeros((40, 3072), np.uint8), "fine_labels": [0] * 39}, "40 train images, but 39 labels"),
        ({"data": np.zeros((40, 3072), np.uint8), "fine_labels": [10] * 40}, "labels up to 10"),
        ([1, 2], "holds a list"),
    ],
)
def test_a_file_of_another_kind_is_named(cifar: CifarConfig, entry: Any, message: str) -> None:
    write(Path(cifar.data) / "cifar-100-python" / "train", entry)
    with pytest.raises(UserError, match=message):
        Cifar100(cifar).setup()


def test_missing_data_says_where_what_and_how(tmp_path: Path) -> None:
    benchmark = Cifar100(replace(CONFIG, data=str(tmp_path / "nowhere")))
    with pytest.raises(UserError) as caught:
        benchmark.prepare_data()
    for part in (str(benchmark.folder), "train, test, meta", "benchmark.download=true", "paths.data="):
        assert part in str(caught.value)
    assert not any(item.present for item in benchmark.describe_data())


@pytest.mark.parametrize("failure", [ConnectionResetError, IncompleteRead, tarfile.ReadError, RuntimeError])
def test_a_download_that_fails_leaves_nothing(
    failure: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half_written(root: str, download: bool) -> None:
        write(Path(root) / "cifar-100-python" / "train", {})
        raise failure(b"lost")

    benchmark = Cifar100(replace(CONFIG, data=str(tmp_path), download=True))
    (tmp_path / ".cifar-100-python.killed.part" / "rest").mkdir(parents=True)
    monkeypatch.setattr(Cifar100, "source", fetching_by(half_written))
    with pytest.raises(UserError, match="cannot download cifar-100-python .*benchmark.download=true"):
        benchmark.prepare_data()
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".lock"] == []


def test_a_download_appears_whole(cifar: CifarConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(cifar.data) / "cifar-100-python"
    stored = folder.rename(folder.parent / "server")
    calls = []

    def complete(root: str, download: bool) -> None:
        calls.append(root)
        stored.rename(Path(root) / "cifar-100-python")

    monkeypatch.setattr(Cifar100, "source", fetching_by(complete))
    for _ in range(2):
        Cifar100(replace(cifar, download=True)).prepare_data()
    assert len(calls) == 1
    assert Cifar100(cifar).task_sizes == [5, 5]


def fetching_by(fetch: Callable[..., None]) -> type:
    """Return torchvision's class with another way to fetch."""

    class Source(CIFAR100):
        def __init__(self, root: str, download: bool) -> None:
            fetch(root, download)

    return Source


def enlarged(config: CifarConfig, workers: int = 0) -> Cifar100At224:
    keys = {**vars(config), "workers": workers}
    return Cifar100At224(Cifar100At224Config(**keys, image_size=28, resize=40))


def test_enlarged_test_images_are_resized_as_torchvision_does(cifar: CifarConfig) -> None:
    benchmark = enlarged(cifar)
    task = benchmark.task(0)
    assert task.test.images.shape == (10, 3, 32, 32)  # type: ignore[union-attr]
    assert (benchmark.image_bytes, benchmark.plain_batch_size) == (3 * 32 * 32, 100)
    (plain,) = task.plain_batches(task.test, torch.device("cpu"))
    image = Image.fromarray(task.test.images[4].permute(1, 2, 0).numpy())  # type: ignore[index, union-attr]
    cut = image.resize((40, 40), Image.Resampling.BICUBIC).crop((6, 6, 34, 34))
    expected = (np.asarray(cut) / 255 - Cifar100.mean) / Cifar100.std
    torch.testing.assert_close(plain.images[4], torch.from_numpy(expected).permute(2, 0, 1).float())


def test_enlarged_training_images_are_keyed_by_image_and_epoch(cifar: CifarConfig) -> None:
    streams = []
    for batch_size, workers, epoch in ((7, 0, 0), (20, 2, 0), (20, 0, 1)):
        benchmark = enlarged(cifar, workers)
        benchmark.serve_training(benchmark.task(0).train, batch_size, (7, 0, "main"))
        loader: Any = benchmark.train_dataloader()
        loader.sampler.set_epoch(epoch)
        served = [batch for item in loader for batch in benchmark.on_after_batch_transfer(item, 0)]
        rows = torch.cat([batch.sources for batch in served]).argsort()
        streams.append(torch.cat([batch.images for batch in served])[rows])
    assert streams[0].shape == (20, 3, 28, 28)
    assert torch.equal(streams[0], streams[1])
    assert not torch.equal(streams[0], streams[2])


def test_impossible_sizes_of_enlarged_images_name_the_keys(cifar: CifarConfig) -> None:
    with pytest.raises(UserError, match=r"benchmark.image_size=64, benchmark.resize=40"):
        Cifar100At224(Cifar100At224Config(**vars(cifar), image_size=64, resize=40))


@pytest.mark.real
@pytest.mark.skipif("MMCL_DATA" not in os.environ, reason="set MMCL_DATA to the folder of the data sets")
def test_the_published_set_is_accepted() -> None:
    benchmark = Cifar100(replace(CONFIG, data=os.environ["MMCL_DATA"], verify=True, increment=10))
    task = benchmark.task(9)
    assert (len(task.train), len(task.past()), len(task.test)) == (5000, 45_000, 10_000)
    assert benchmark.class_names[:3] == ["road", "palm_tree", "snake"]
