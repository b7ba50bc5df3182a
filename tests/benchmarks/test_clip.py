from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torchvision
from omegaconf import OmegaConf
from PIL import Image

from mmcl.benchmarks.clip import ClipBenchmark, ClipConfig, ClipImageFolder, ClipImageFolderConfig
from mmcl.benchmarks.clip_catalogue import CATALOGUE
from mmcl.benchmarks.clip_lists import SPLITS, imagenet_names, imagenet_wnids
from mmcl.benchmarks.dataset_benchmark import ImageTextDataset
from mmcl.config.components import locate
from mmcl.config.locate import shipped_folder
from mmcl.errors import UserError
from mmcl.images import FileImages
from mmcl.protocol import Samples

COMMON: dict[str, Any] = {
    "_target_": "",
    "name": "x",
    "view_seed": 0,
    "exact": False,
    "workers": 0,
    "encode_batch_size": 4,
    "features_precision": "float16",
}
SHAPE = {"train": 3, "val": 2, "test": 2}
CLASSES = ("banded", "polka_dotted")
Rows = dict[str, list[list[Any]]]


def benchmark(data: Path, *names: str, partial: bool = False, download: bool = False) -> ClipBenchmark:
    config = ClipConfig(**COMMON, data=str(data), datasets=list(names), download=download, partial=partial)
    return ClipBenchmark(config)


def read(data: Path, name: str, partial: bool = False) -> ImageTextDataset:
    return benchmark(data, name, partial=partial).read_dataset(name)


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(path)


def publish(monkeypatch: pytest.MonkeyPatch, name: str, classes: int, *images: int | None) -> None:
    """Make a data set of the catalogue as small as the one that a test lays out."""
    monkeypatch.setitem(CATALOGUE, name, replace(CATALOGUE[name], classes=classes, images=images))


def paths(samples: Samples) -> list[str]:
    assert isinstance(samples.images, FileImages)
    return [Path(path).name for path in samples.images.paths]


@pytest.fixture
def dtd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """DTD with two classes in the published layout."""
    publish(monkeypatch, "dtd", 2, 6, 4, 4)
    write_split(tmp_path, split_rows())
    for row in (row for rows in split_rows().values() for row in rows):
        picture(tmp_path / "dtd" / "images" / row[0])
    return tmp_path


def split_rows() -> Rows:
    return {
        split: [[f"{name}/{split}_{i}.png", label, name] for i in range(each) for label, name in enumerate(CLASSES)]
        for split, each in SHAPE.items()
    }


def write_split(data: Path, content: Any, folder: str = "dtd") -> None:
    path = data / folder / "split_zhou_DescribableTextures.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def test_a_split_file_gives_names_labels_and_order(dtd: Path) -> None:
    dataset = read(dtd, "dtd")
    assert dataset.class_names == CLASSES
    assert [len(part) for part in (dataset.train, dataset.validation, dataset.test)] == [6, 4, 4]
    assert dataset.test.labels.tolist() == [0, 1, 0, 1]
    assert paths(dataset.test) == ["test_0.png", "test_0.png", "test_1.png", "test_1.png"]
    assert dataset.train.sources.tolist() == list(range(6))
    assert dataset.sentences("tip").texts == ("banded texture.", "polka dotted texture.")
    assert (dataset.alteration, dataset.unlabelled) == ("augmix", "")
    assert all(item.present for item in benchmark(dtd, "dtd").describe_data() if "sentences" not in item.meaning)


def test_a_tasks_sequence_is_that_of_the_data_sets(dtd: Path) -> None:
    subject = benchmark(dtd, "dtd")
    subject.prepare_data()
    assert (subject.task_names, subject.task_sizes) == (["dtd"], [2])


@pytest.mark.parametrize("folder", ["dtd/dtd/images", "dtd/images"])
def test_every_layout_is_tried(folder: str, dtd: Path) -> None:
    images = (dtd / "dtd" / "images").rename(dtd / "moved")
    (dtd / folder).parent.mkdir(parents=True, exist_ok=True)
    images.rename(dtd / folder)
    assert len(read(dtd, "dtd").test) == 4


def test_a_split_file_may_be_compressed_and_lie_among_the_splits(dtd: Path) -> None:
    plain = dtd / "dtd" / "split_zhou_DescribableTextures.json"
    (dtd / "splits").mkdir()
    (dtd / "splits" / f"{plain.name}.gz").write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()
    assert len(read(dtd, "dtd").train) == 6


def test_a_missing_split_file_says_what_from_where_and_whereto(dtd: Path) -> None:
    (dtd / "dtd" / "split_zhou_DescribableTextures.json").unlink()
    with pytest.raises(UserError) as caught:
        read(dtd, "dtd")
    for part in ("split_zhou_DescribableTextures.json", "KaiyangZhou/CoOp", str(dtd / "splits")):
        assert part in str(caught.value)
    assert not all(item.present for item in benchmark(dtd, "dtd").describe_data())


def test_a_missing_image_is_named_unless_the_copy_may_be_partial(dtd: Path) -> None:
    (dtd / "dtd" / "images" / "banded" / "test_1.png").unlink()
    with pytest.raises(UserError, match=r"test_1.png is missing; 1 of 4 .*benchmark.partial=true"):
        read(dtd, "dtd")
    dataset = read(dtd, "dtd", partial=True)
    assert (dataset.test.labels.tolist(), dataset.test.sources.tolist()) == ([0, 1, 1], [0, 1, 2])
    [count] = [item for item in benchmark(dtd, "dtd").describe_data() if "of 14 images" in item.meaning]
    assert "13 of 14" in count.meaning
    assert not count.present


def test_a_partial_copy_keeps_the_classes_that_can_be_learned_and_tested(dtd: Path) -> None:
    for image in (dtd / "dtd" / "images" / "banded").glob("train_*"):
        image.unlink()
    dataset = read(dtd, "dtd", partial=True)
    assert dataset.class_names == ("polka_dotted",)
    assert dataset.train.labels.tolist() == [0, 0, 0]
    for image in (dtd / "dtd" / "images" / "polka_dotted").glob("test_*"):
        image.unlink()
    with pytest.raises(UserError, match="no class has images"):
        read(dtd, "dtd", partial=True)


def test_another_list_than_the_published_is_refused(dtd: Path) -> None:
    rows = split_rows()
    rows["val"].pop()
    write_split(dtd, rows)
    with pytest.raises(UserError, match=r"3 validation images, published are 4.*partial=true"):
        read(dtd, "dtd")
    rows["train"] = [row for row in rows["train"] if row[1] == 0]
    write_split(dtd, rows)
    with pytest.raises(UserError, match=r"class 1 \('polka_dotted'\) has no training"):
        read(dtd, "dtd")


def _gap(rows: Rows) -> Any:
    return {split: [[path, 2 * label, name] for path, label, name in part] for split, part in rows.items()}


def _two_names(rows: Rows) -> Any:
    return {**rows, "val": [["banded/val_0.png", 0, "striped"]]}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda rows: [], "is no object with train, val, test"),
        (lambda rows: {"train": rows["train"]}, "is no object with train, val, test"),
        (lambda rows: {**rows, "val": [["a.png", "0", "banded"]]}, r"val: .* is not \[path, label, class name\]"),
        (_gap, "do not run from 0 to 1"),
        (_two_names, "label 0 is both 'banded' and 'striped'"),
    ],
)
def test_a_split_file_of_another_form_is_named(damage: Callable[[Rows], Any], message: str, dtd: Path) -> None:
    write_split(dtd, damage(split_rows()))
    with pytest.raises(UserError, match=message):
        read(dtd, "dtd")


def test_a_missing_prompt_file_says_what_from_where_and_what_needs_none(dtd: Path) -> None:
    with pytest.raises(UserError) as caught:
        read(dtd, "dtd").sentences("tip_cupl")
    for part in ("CuPL_prompts_dtd.json", "YBZh/DMN", str(dtd / "cupl"), "method.prompts=tip"):
        assert part in str(caught.value)


@pytest.mark.parametrize("folder", [".", "cupl", "dtd"])
def test_a_prompt_file_is_found_where_users_put_it(folder: str, dtd: Path) -> None:
    path = dtd / folder / "CuPL_prompts_dtd.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"banded": ["Bands."], "polka dotted": ["Dots."]}))
    assert read(dtd, "dtd").sentences("cupl").texts == ("Bands.", "Dots.")


def test_absent_images_are_all_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        benchmark(tmp_path, "dtd", "stanford_cars").prepare_data()
    dtd_line, cars_line = str(caught.value).splitlines()
    assert str(tmp_path / "dtd" / "images") in dtd_line
    assert "benchmark.download=true" in dtd_line
    assert "benchmark.download" not in cars_line
    assert "paths.data=" in cars_line


def test_torchvision_fetches_into_a_layout_that_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(root: str, download: bool) -> None:
        picture(Path(root) / "dtd" / "dtd" / "images" / "banded" / "train_0.png")

    monkeypatch.setattr(torchvision.datasets, "DTD", fetch)
    benchmark(tmp_path, "dtd", download=True).prepare_data()
    assert (tmp_path / "dtd" / "dtd" / "images").is_dir()


def test_what_torchvision_fetches_is_in_the_catalogue() -> None:
    for entry in CATALOGUE.values():
        assert bool(entry.torchvision) == bool(entry.fetched)
        if entry.torchvision:
            assert hasattr(torchvision.datasets, entry.torchvision)
            assert entry.fetched in entry.folders


def test_aircraft_takes_its_own_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(monkeypatch, "fgvc_aircraft", 2, 2, 2, 2)
    folder = tmp_path / "fgvc-aircraft-2013b" / "data"
    for number, split in enumerate(SPLITS):
        images = [f"{number}{label}" for label in range(2)]
        for image in images:
            picture(folder / "images" / f"{image}.jpg")
        text = f"{images[0]} F/A-18\n{images[1]} BAE 146-200\n"
        (folder / f"images_variant_{split}.txt").write_text(text)
    (folder / "variants.txt").write_text("BAE 146-200\nF/A-18\n")
    dataset = read(tmp_path, "fgvc_aircraft")
    assert dataset.class_names == ("BAE 146-200", "F/A-18")
    assert dataset.test.labels.tolist() == [1, 0]
    (folder / "variants.txt").write_text("BAE 146-200\n")
    with pytest.raises(UserError, match="'F/A-18' is not in variants.txt"):
        read(tmp_path, "fgvc_aircraft")
    (folder / "variants.txt").unlink()
    with pytest.raises(UserError, match=r"cannot read .*variants.txt"):
        read(tmp_path, "fgvc_aircraft")


def test_sun397_has_a_test_without_its_split_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(monkeypatch, "sun397", 2, 15_880, 3970, 2)
    images = ["a/apse/indoor/sun_b.jpg", "a/abbey/sun_a.jpg"]
    for image in images:
        picture(tmp_path / "SUN397" / image)
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits" / "Testing_01.txt").write_text("".join(f"/{image}\n" for image in images))
    dataset = read(tmp_path, "sun397")
    assert dataset.class_names == ("abbey", "indoor apse")
    assert dataset.test.labels.tolist() == [1, 0]
    assert len(dataset.train) == 0
    assert "split_zhou_SUN397.json" in dataset.unlabelled


def test_imagenet_holds_every_fiftieth_training_image_out(tmp_path: Path) -> None:
    folders = imagenet_wnids()[:2]
    for folder in folders:
        picture(tmp_path / "imagenet" / "images" / "val" / folder / "test.png")
        for number in range(51):
            (tmp_path / "imagenet" / "images" / "train" / folder).mkdir(parents=True, exist_ok=True)
            (tmp_path / "imagenet" / "images" / "train" / folder / f"{number:03}.png").touch()
    with pytest.raises(UserError, match=r"class 2 \('great white shark'\) has no training or no test images"):
        read(tmp_path, "imagenet")
    dataset = read(tmp_path, "imagenet", partial=True)
    assert dataset.class_names == imagenet_names()[:2]
    assert paths(dataset.validation) == ["000.png", "050.png"] * 2
    assert len(dataset.train) == 2 * 49
    assert dataset.train.labels.tolist() == [0] * 49 + [1] * 49
    assert dataset.alteration == "crop"


def test_imagenet_without_training_images_serves_tests(tmp_path: Path) -> None:
    picture(tmp_path / "ImageNet" / "val" / imagenet_wnids()[5] / "test.png")
    dataset = read(tmp_path, "imagenet", partial=True)
    assert dataset.class_names == (imagenet_names()[5],)
    assert str(tmp_path / "ImageNet" / "train") in dataset.unlabelled


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("imagenet_a", "imagenet-a"),
        ("imagenet_r", "imagenet-rendition/imagenet-r"),
        ("imagenet_sketch", "ImageNet-Sketch"),
    ],
)
def test_a_shift_has_the_classes_of_its_folders(
    name: str, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(monkeypatch, name, 2, None, None, 2)
    wnids = imagenet_wnids()
    for index in (13, 6):
        picture(tmp_path / folder / wnids[index] / "image.png")
    dataset = read(tmp_path, name)
    assert dataset.class_names == (imagenet_names()[6], imagenet_names()[13])
    assert dataset.test.labels.tolist() == [0, 1]
    assert "shifted test set" in dataset.unlabelled
    picture(tmp_path / folder / "n00000000" / "image.png")
    with pytest.raises(UserError, match="'n00000000' is no ImageNet class"):
        read(tmp_path, name)


def test_imagenet_v2_reads_its_folders_as_numbers(tmp_path: Path) -> None:
    for label in (2, 10):
        picture(tmp_path / "imagenetv2-matched-frequency-format-val" / str(label) / f"{label}.png")
    dataset = read(tmp_path, "imagenet_v2", partial=True)
    assert dataset.class_names == (imagenet_names()[2], imagenet_names()[10])
    assert paths(dataset.test) == ["2.png", "10.png"]
    with pytest.raises(UserError, match="class 0"):
        read(tmp_path, "imagenet_v2")


def test_cub_takes_its_official_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(monkeypatch, "cub200", 2, 2, 0, 2)
    root = tmp_path / "CUB_200_2011"
    names = ["001.Black_footed_Albatross", "002.Laysan_Albatross"]
    images = [f"{name}/{i}.jpg" for name in names for i in range(2)]
    for image in images:
        picture(root / "images" / image)
    lists = {
        "classes.txt": names,
        "images.txt": images,
        "image_class_labels.txt": [1, 1, 2, 2],
        "train_test_split.txt": [0, 1, 1, 0],
    }
    for file, rows in lists.items():
        (root / file).write_text("".join(f"{number} {row}\n" for number, row in enumerate(rows, start=1)))
    dataset = read(tmp_path, "cub200")
    assert dataset.class_names == ("Black footed Albatross", "Laysan Albatross")
    assert dataset.sentences("tip").texts[0] == "a photo of a Black footed Albatross, a type of bird."
    assert (paths(dataset.train), paths(dataset.test)) == (["1.jpg", "0.jpg"], ["0.jpg", "1.jpg"])
    assert dataset.train.labels.tolist() == [0, 1]
    (root / "train_test_split.txt").write_text("1 0\n")
    with pytest.raises(UserError, match="image 2 of images.txt has no class or split"):
        read(tmp_path, "cub200")


def folder_benchmark(data: Path, templates: tuple[str, ...] = ("a photo of a {}.",)) -> ClipImageFolder:
    config = {**COMMON, "name": "mine"}
    return ClipImageFolder(ClipImageFolderConfig(**config, data=str(data), folder="mine", templates=list(templates)))


def test_any_folder_of_images(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for name in ("red_kite", "teal"):
            picture(tmp_path / "mine" / split / name / f"{split}.png")
    dataset = folder_benchmark(tmp_path, ("{} in flight.",)).read_dataset("mine")
    assert dataset.sentences("tip").texts == ("red kite in flight.", "teal in flight.")
    assert [len(part) for part in (dataset.train, dataset.validation, dataset.test)] == [2, 0, 2]
    with pytest.raises(UserError, match=r"CuPL_prompts_mine.json is missing.*method.prompts=tip"):
        dataset.sentences("cupl")
    picture(tmp_path / "mine" / "train" / "wigeon" / "x.png")
    with pytest.raises(UserError, match="test has no class 'wigeon'"):
        folder_benchmark(tmp_path).read_dataset("mine")


def test_a_folder_without_training_images_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"test is missing"):
        folder_benchmark(tmp_path).read_dataset("mine")
    picture(tmp_path / "mine" / "test" / "teal" / "x.png")
    assert "without training images" in folder_benchmark(tmp_path).read_dataset("mine").unlabelled
    with pytest.raises(UserError, match="needs one {}"):
        folder_benchmark(tmp_path, ("a photo.",))


def test_unknown_repeated_and_no_data_sets_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown 'food'.*Did you mean 'food101'"):
        benchmark(tmp_path, "food")
    with pytest.raises(UserError, match="none twice"):
        benchmark(tmp_path, "dtd", "dtd")
    with pytest.raises(UserError, match="at least one"):
        benchmark(tmp_path)


def test_the_published_numbers_add_up() -> None:
    entry = CATALOGUE["caltech101"]
    assert (entry.classes, entry.images) == (100, (4128, 1649, 2465))
    ours = [CATALOGUE[name].classes for name in shipped("all11")["datasets"]]
    assert ours == [1000, 102, 47, 37, 196, 101, 100, 101, 397, 100, 10]
    assert [CATALOGUE[name].classes for name in shipped("ood")["datasets"]] == [200, 1000, 200, 1000]


def shipped(name: str) -> Any:
    return OmegaConf.load(shipped_folder("conf") / "benchmark" / "clip" / f"{name}.yaml")["benchmark"]


@pytest.mark.parametrize(
    "path", sorted((shipped_folder("conf") / "benchmark" / "clip").glob("*.yaml")), ids=lambda path: path.stem
)
def test_configuration_files_give_the_keys_of_their_class(path: Path) -> None:
    node = shipped(path.stem)
    component = locate(node["_target_"])
    assert set(node) == {field.name for field in fields(component.Config)}
    assert node["name"] == path.stem
    assert f"# python -m mmcl.run +method=dmn benchmark=clip/{path.stem}" in path.read_text()
    if path.stem in CATALOGUE:
        assert list(node["datasets"]) == [path.stem]
