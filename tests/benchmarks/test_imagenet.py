from __future__ import annotations

from pathlib import Path

import pytest

from mmcl.benchmarks.image_folder import FilesConfig
from mmcl.benchmarks.imagenet import SUBSETS, ImageNet100, ImageNet100Config, ImageNet1000
from mmcl.errors import UserError

KEYS = {
    "_target_": "",
    "name": "imagenet",
    "base": 0,
    "increment": 10,
    "order_seed": 1993,
    "class_order": None,
    "exact": False,
    "workers": 0,
    "steps_per_block": 50,
    "folder": "imagenet",
    "image_size": 224,
    "resize": 256,
    "brightness": 0.0,
}


@pytest.fixture(scope="module")
def thousand(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A thousand class folders with one empty file in each split: listing reads no pixels."""
    root = tmp_path_factory.mktemp("data")
    _fill(root / "imagenet", 1000)
    return str(root)


def _fill(folder: Path, classes: int) -> None:
    for number in range(classes):
        for split in ("train", "val"):
            image = folder / split / f"n{number:08d}" / "0.JPEG"
            image.parent.mkdir(parents=True)
            image.touch()


def config100(data: str, subset: str) -> ImageNet100Config:
    return ImageNet100Config(**KEYS, data=data, subset=subset)  # type: ignore[arg-type]


@pytest.mark.parametrize("subset", ["seed1993", "first100"])
def test_a_subset_of_a_thousand_keeps_sorted_labels(thousand: str, subset: str) -> None:
    names = ImageNet100(config100(thousand, subset)).read().class_names
    assert names == [f"n{number:08d}" for number in sorted(SUBSETS[subset])]
    assert len(names) == 100


def test_a_tree_of_a_hundred_is_taken_whole(tmp_path: Path) -> None:
    _fill(tmp_path / "imagenet", 100)
    assert len(ImageNet100(config100(str(tmp_path), "seed1993")).task(9).test) == 100
    (tmp_path / "imagenet" / "train" / "n99999999").mkdir()
    with pytest.raises(UserError, match=r"101 class folders.*benchmark=imagefolder"):
        ImageNet100(config100(str(tmp_path), "seed1993")).setup()


def test_a_thousand_classes_or_none(thousand: str, tmp_path: Path) -> None:
    assert len(ImageNet1000(FilesConfig(**KEYS, data=thousand)).task_sizes) == 100  # type: ignore[arg-type]
    _fill(tmp_path / "imagenet", 3)
    with pytest.raises(UserError, match=r"3 class folders, expected 1000"):
        ImageNet1000(FilesConfig(**KEYS, data=str(tmp_path))).setup()  # type: ignore[arg-type]


def test_an_unknown_subset_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"benchmark.subset=seed1992.*Did you mean 'seed1993'"):
        ImageNet100(config100("", "seed1992"))
