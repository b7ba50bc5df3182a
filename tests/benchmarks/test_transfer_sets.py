"""The sets of pre-trained networks: layouts, published transforms, and what is said of data that is another set."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.transforms import InterpolationMode, v2

from mmcl.benchmarks.files import open_image
from mmcl.benchmarks.transfer_sets import Cars196, Cub200, FineGrainedConfig, ImageNetR, TransferConfig, TransferSet
from mmcl.errors import UserError
from tests.benchmarks.test_image_folder import paint

KEYS: dict[str, Any] = {
    "_target_": "",
    "name": "tiny",
    "data": "",
    "base": 0,
    "increment": 2,
    "order_seed": 0,
    "class_order": [0, 1, 2],
    "exact": False,
    "workers": 0,
    "steps_per_block": 50,
    "image_size": 12,
    "resize": 16,
    "brightness": 0.0,
    "verify": False,
}
CUB = FineGrainedConfig(**KEYS, folder="cub_200", train_resize=20)
BIRDS = ("001.Albatross", "002.Auklet", "003.Bunting")


def paint_tree(root: Path, names: tuple[str, ...] = BIRDS, test: str = "val") -> None:
    for label, name in enumerate(names):
        for split, numbers in (("train", (3, 1)), (test, (2,))):
            for number in numbers:
                paint(root / split / name / f"bird_{number}.png", 10 * label + number, size=(30, 24))


def paint_official(root: Path) -> None:
    """The same birds as CUB-200-2011 publishes them, its lists in an order of their own."""
    images = [(name, number) for name in BIRDS for number in (3, 2, 1)]
    for name, number in images:
        paint(root / "images" / name / f"bird_{number}.png", 10 * BIRDS.index(name) + number, size=(30, 24))
    lists = {
        "images.txt": [f"{name}/bird_{number}.png" for name, number in images],
        "image_class_labels.txt": [str(BIRDS.index(name) + 1) for name, _ in images],
        "train_test_split.txt": [str(int(number != 2)) for _, number in images],
        "classes.txt": list(BIRDS),
    }
    for file, lines in lists.items():
        (root / file).write_text("".join(f"{index} {line}\n" for index, line in enumerate(lines, start=1)))


def plain(benchmark: TransferSet) -> torch.Tensor:
    task = benchmark.task(1)
    return torch.cat([batch.images for batch in task.plain_batches(task.test, torch.device("cpu"))])


def test_the_official_lists_give_what_the_folders_give(tmp_path: Path) -> None:
    paint_tree(tmp_path / "folders" / "cub_200")
    paint_official(tmp_path / "official" / "CUB_200_2011")
    folders, official = (Cub200(replace(CUB, data=str(tmp_path / kind))) for kind in ("folders", "official"))
    assert folders.class_names == official.class_names == list(BIRDS)
    for benchmark in (folders, official):
        assert all(item.present for item in benchmark.describe_data())
        assert (len(benchmark.task(0).train), len(benchmark.task(1).test)) == (4, 3)
        names = [Path(path).name for path in benchmark.task(1).train.images.paths]  # type: ignore[union-attr]
        assert names == ["bird_1.png", "bird_3.png"]
    assert torch.equal(plain(folders), plain(official))


def test_fine_grained_images_are_shifted_not_cropped(tmp_path: Path) -> None:
    paint_tree(tmp_path / "cub_200")
    benchmark = Cub200(replace(CUB, data=str(tmp_path)))
    train = benchmark.task(0).train
    whole = v2.functional.resize(open_image(train.images, 1), [20, 20], interpolation=InterpolationMode.BICUBIC)
    pixels = v2.functional.pil_to_tensor(whole)
    transforms = benchmark.image_transforms()
    assert transforms is not None
    altered = transforms.train(open_image(train.images, 1))
    windows = [pixels[:, top : top + 12, left : left + 12] for top in range(9) for left in range(9)]
    assert any(torch.equal(altered, window) or torch.equal(altered, window.flip(2)) for window in windows)


def test_test_images_are_resized_by_bicubic_interpolation(tmp_path: Path) -> None:
    paint_tree(tmp_path / "imagenet-r", test="test")
    config = TransferConfig(**{**KEYS, "data": str(tmp_path)}, folder="imagenet-r")
    benchmark = ImageNetR(config)
    test = benchmark.task(1).test
    resized = v2.functional.resize(open_image(test.images, 0), [16], interpolation=InterpolationMode.BICUBIC)
    expected = v2.functional.pil_to_tensor(v2.functional.center_crop(resized, [12, 12]))
    transforms = benchmark.image_transforms()
    assert transforms is not None
    assert torch.equal(transforms.test(open_image(test.images, 0)), expected)


def test_another_set_is_refused_unless_asked_for(tmp_path: Path) -> None:
    paint_tree(tmp_path / "cars196")
    config = replace(CUB, folder="cars196", data=str(tmp_path), verify=True)
    with pytest.raises(UserError, match=r"3 classes and 9 images, the published set 196 and 16185.*verify=false"):
        Cars196(config).setup()
    assert Cars196(replace(config, verify=False)).task_sizes == [2, 1]


@pytest.mark.parametrize(("kind", "word"), [(Cub200, "CUB_200_2011"), (Cars196, "8144"), (ImageNetR, "hendrycks")])
def test_missing_data_says_where_and_whence(kind: type[TransferSet], word: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        kind(replace(CUB, data=str(tmp_path))).prepare_data()
    for part in (str(tmp_path / "cub_200" / "train"), "train/<class>/<image>", word):
        assert part in str(caught.value)


def test_impossible_sizes_name_the_keys() -> None:
    with pytest.raises(UserError, match=r"benchmark.image_size=12, benchmark.train_resize=8"):
        Cub200(replace(CUB, train_resize=8))


@pytest.mark.real
@pytest.mark.skipif("MMCL_DATA" not in os.environ, reason="set MMCL_DATA to the folder of the data sets")
def test_official_birds_are_read() -> None:
    config = replace(CUB, data=os.environ["MMCL_DATA"], class_order=None, image_size=224, resize=256, train_resize=300)
    benchmark = Cub200(config)
    task = benchmark.task(0)
    (batch,) = task.plain_batches(task.test.select(torch.arange(3)), torch.device("cpu"))
    assert batch.images.shape == (3, 3, 224, 224)
    assert benchmark.folder.name == "CUB_200_2011"
