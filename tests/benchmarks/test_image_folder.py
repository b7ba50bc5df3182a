from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mmcl.benchmarks.image_folder import ImageFolder, ImageFolderConfig
from mmcl.errors import UserError
from mmcl.images import FileImages
from mmcl.protocol import Batch

CONFIG = ImageFolderConfig(
    _target_="mmcl.benchmarks.image_folder.ImageFolder",
    name="tiny",
    data="",
    base=0,
    increment=2,
    order_seed=0,
    class_order=[2, 0, 1],
    exact=False,
    workers=0,
    steps_per_block=50,
    folder="tiny",
    image_size=12,
    resize=16,
    brightness=0.25,
    in_memory=False,
)
CLASSES = ("ant", "bee", "cat")


def paint(path: Path, seed: int, size: tuple[int, int] = (20, 18), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.RandomState(seed).randint(0, 256, (size[1], size[0], 3)).astype(np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)


@pytest.fixture
def tiny(tmp_path: Path) -> ImageFolderConfig:
    """Three classes with 4 training and 2 test images."""
    for label, name in enumerate(CLASSES):
        for split, each in (("train", 4), ("val", 2)):
            for number in range(each):
                mode = "L" if number == 0 else "RGB"
                paint(tmp_path / "tiny" / split / name / f"{number}.png", 10 * label + number, mode=mode)
    return replace(CONFIG, data=str(tmp_path))


def batches(benchmark: ImageFolder, epoch: int = 0) -> list[Batch]:
    loader: Any = benchmark.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return [batch for item in loader for batch in benchmark.on_after_batch_transfer(item, 0)]


def by_source(served: list[Batch]) -> torch.Tensor:
    sources = torch.cat([batch.sources for batch in served])
    return torch.cat([batch.images for batch in served])[sources.argsort()]


def test_folders_become_classes_in_order(tiny: ImageFolderConfig) -> None:
    benchmark = ImageFolder(tiny)
    task = benchmark.task(0)
    assert benchmark.class_names == ["cat", "ant", "bee"]
    assert benchmark.task_sizes == [2, 1]
    assert benchmark.image_bytes == 3 * 12 * 12
    assert isinstance(task.train.images, FileImages)
    assert task.train.images.paths[:5] == (*(f"train/cat/{n}.png" for n in range(4)), "train/ant/0.png")
    assert all(item.present for item in benchmark.describe_data())


def test_augmentation_is_keyed_by_image_and_epoch(tiny: ImageFolderConfig) -> None:
    streams = []
    for batch_size, workers, epoch in ((3, 0, 0), (8, 2, 0), (8, 0, 1)):
        benchmark = ImageFolder(replace(tiny, workers=workers))
        benchmark.serve_training(benchmark.task(0).train, batch_size, (7, 0, "main"))
        state = torch.get_rng_state()
        streams.append(by_source(batches(benchmark, epoch)))
        assert torch.equal(torch.get_rng_state(), state)
    assert streams[0].shape == (8, 3, 12, 12)
    assert torch.equal(streams[0], streams[1])
    assert not torch.equal(streams[0], streams[2])


def test_plain_batches_and_test_loader_agree(tiny: ImageFolderConfig) -> None:
    benchmark = ImageFolder(tiny)
    task = benchmark.task(1)
    (plain,) = task.plain_batches(task.test, torch.device("cpu"))
    benchmark.serve_test(task.test)
    (served,) = benchmark.test_dataloader()
    assert torch.equal(benchmark.on_after_batch_transfer(served, 0).images, plain.images)
    assert torch.equal(plain.labels, task.test.labels)
    assert list(task.plain_batches(task.test.select(torch.arange(0)), torch.device("cpu"))) == []


def test_list_files_name_images_and_labels(tiny: ImageFolderConfig) -> None:
    root = Path(tiny.data) / "tiny"
    for split in ("train", "val"):
        labelled = [(name, number, label) for number in (1, 0) for label, name in enumerate(CLASSES)]
        lines = [f"{split}/{name}/{number}.png {label}\n" for name, number, label in labelled]
        (root / f"{split}.txt").write_text("".join(lines) + "\n")
    benchmark = ImageFolder(tiny)
    assert benchmark.class_names == ["cat", "ant", "bee"]
    assert benchmark.task(0).train.images.paths[:2] == ("train/cat/1.png", "train/cat/0.png")  # type: ignore[union-attr]
    (root / "val.txt").write_text("val/ant/0.png 0\nval/bee/0.png two\n")
    with pytest.raises(UserError, match=r"val.txt, line 2: .* is not 'path label'"):
        ImageFolder(tiny).setup()


def test_small_images_may_live_in_memory(tiny: ImageFolderConfig) -> None:
    benchmark = ImageFolder(replace(tiny, in_memory=True))
    train = benchmark.task(0).train
    assert train.images.shape == (8, 3, 18, 20)  # type: ignore[union-attr]
    assert benchmark.image_bytes == 3 * 18 * 20
    benchmark.serve_training(train, 8, (0, 0, "main"))
    assert by_source(batches(benchmark)).shape == (8, 3, 18, 20)
    paint(Path(tiny.data) / "tiny/train/bee/0.png", 0, size=(21, 18))
    with pytest.raises(UserError, match=r"bee/0.png is 21x18: .*benchmark.in_memory=false"):
        ImageFolder(replace(tiny, in_memory=True)).setup()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_truncated_image_is_named(tiny: ImageFolderConfig, workers: int) -> None:
    path = Path(tiny.data) / "tiny/train/cat/2.png"
    path.write_bytes(path.read_bytes()[:200])
    benchmark = ImageFolder(replace(tiny, workers=workers))
    benchmark.serve_training(benchmark.task(0).train, 4, (0, 0, "main"))
    with pytest.raises(UserError) as caught:
        batches(benchmark)
    assert str(caught.value).startswith(f"cannot read the image {path}")
    assert "Traceback" not in str(caught.value)


def test_a_class_without_images_is_named(tiny: ImageFolderConfig) -> None:
    for path in (Path(tiny.data) / "tiny/val/bee").iterdir():
        path.unlink()
    with pytest.raises(UserError, match=r"the class 'bee' has no images in .*val/bee"):
        ImageFolder(tiny).setup()


def test_missing_data_says_where_and_which_layout(tmp_path: Path) -> None:
    benchmark = ImageFolder(replace(CONFIG, data=str(tmp_path)))
    with pytest.raises(UserError) as caught:
        benchmark.prepare_data()
    for part in (str(tmp_path / "tiny" / "train"), "train/<class>/<image>", "train.txt", "benchmark.folder="):
        assert part in str(caught.value)


def test_impossible_sizes_name_the_keys() -> None:
    with pytest.raises(UserError, match=r"benchmark.image_size=32, benchmark.resize=16"):
        ImageFolder(replace(CONFIG, image_size=32))
