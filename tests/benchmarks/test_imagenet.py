from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mmcl.benchmarks.class_order import class_order
from mmcl.benchmarks.image_folder import FilesConfig
from mmcl.benchmarks.imagenet import SUBSETS, ImageNet100, ImageNet100Config, ImageNet1000
from mmcl.cli import main
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


def test_the_usual_subset_is_the_published_one() -> None:
    assert SUBSETS["seed1993"][:10] == [54, 7, 894, 512, 126, 337, 988, 11, 284, 493]
    assert SUBSETS["seed1993"] == class_order(1000, 1993)[:100]


def listed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(["data", "list", *arguments])
    out, err = capsys.readouterr()
    assert stopped.value.code == (2 if err else 0)
    return out + err


def test_a_printed_list_ranks_the_chosen_classes(thousand: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = listed(capsys, "imagenet100", f"paths.data={thousand}", "benchmark.folder=imagenet").splitlines()
    chosen = [f"n{number:08d}" for number in sorted(SUBSETS["seed1993"])]
    assert lines == [
        f"{split}/{name}/0.JPEG {label}" for split in ("train", "val") for label, name in enumerate(chosen)
    ]


def test_written_lists_are_a_benchmark(thousand: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("imagenet100", f"paths.data={thousand}", "benchmark.folder=imagenet", "--out", str(tmp_path / "mine"))
    words = listed(capsys, *arguments)
    assert "train.txt: 100 images of 100 classes" in words
    assert f"benchmark=imagenet100 paths.data={tmp_path} benchmark.folder=mine" in words
    config = config100(thousand, "seed1993")
    ours, theirs = (ImageNet100(part) for part in (replace(config, data=str(tmp_path), folder="mine"), config))
    assert ours.class_names == theirs.class_names
    for split in ("train", "test"):
        mine, whole = (getattr(benchmark.task(1), split) for benchmark in (ours, theirs))
        assert torch.equal(mine.labels, whole.labels)
        paths = [[(part.root / path).resolve() for path in part.paths] for part in (mine.images, whole.images)]
        assert paths[0] == paths[1]
        assert all(path.is_file() for path in paths[0])
    assert "train.txt is there already" in listed(capsys, *arguments)


def test_a_list_needs_images_in_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "digits has no images in files" in listed(capsys, "digits")
    assert "Did you mean 'imagenet100'" in listed(capsys, "imagenet10")
    missing = listed(capsys, "imagenet100", f"paths.data={tmp_path}")
    assert f"{tmp_path}/imagenet100/train (training images) is missing" in missing
    _fill(tmp_path / "imagenet100", 3)
    assert "3 class folders, not 100 or 1000" in listed(capsys, "imagenet100", f"paths.data={tmp_path}")
