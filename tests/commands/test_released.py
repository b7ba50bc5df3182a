"""``mmcl released``: figures are those of the pickled modules themselves; a run can begin with the first network."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from mmcl.backbones.cosine_network import CosineNetwork
from mmcl.backbones.projection_resnet import projection_resnet
from mmcl.backbones.signed_features import signed_features
from mmcl.benchmarks.class_order import class_order
from mmcl.cli import main
from mmcl.methods.class_incremental import read_weights
from mmcl.pixels import PixelScale
from tests.backbones.released_modules import ResNet, made, save

THEIRS = PixelScale((0.5071, 0.4866, 0.4409), (0.2009, 0.1984, 0.2023))
OURS = PixelScale((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761))
IMAGENET = PixelScale((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
ORDER = [3, 8, 0, 9, 5, 1, 7, 2, 6, 4]
SIZES = [4, 2, 2, 2]
TEST_IMAGES = 12
NAME = "cifar100_nfg4_ncls2_nproto20_mtl_exp01"

pytestmark = pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")


def pictures(count: int, side: int, seed: int) -> np.ndarray:
    """Coarse patches of colour, uint8 ``(count, 3, side, side)``: unlike noise, each is its own."""
    patches = np.random.RandomState(seed).randint(0, 256, (count, 3, 4, 4))
    return patches.repeat(side // 4, axis=2).repeat(side // 4, axis=3).astype(np.uint8)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Ten classes in the layout of CIFAR-100."""
    folder = tmp_path / "data" / "cifar-100-python"
    folder.mkdir(parents=True)
    for split, each in (("train", 1), ("test", TEST_IMAGES)):
        pixels = pictures(10 * each, 32, seed=each).reshape(10 * each, 3072)
        (folder / split).write_bytes(pickle.dumps({"data": pixels, "fine_labels": list(range(10)) * each}))
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": [f"class{label}" for label in range(10)]}))
    return folder.parent


def networks(**settings: Any) -> list[ResNet]:
    heads = [(SIZES[0],), *((sum(SIZES[:task]), SIZES[task]) for task in (1, 2, 3))]
    return [made(*head, transfer=len(head) > 1, seed=task, **settings) for task, head in enumerate(heads)]


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """A folder as the authors' own: four models from j = 1 on, and the class order."""
    folder = tmp_path / "logs" / NAME
    for task, network in enumerate(networks()):
        save(network, folder / f"run_0_iteration_{task + 1}_model.pth")
    (folder / "seed_1993_cifar100_order_run_0.pkl").write_bytes(pickle.dumps(np.array(ORDER), protocol=2))
    return folder


def evaluated(nets: list[ResNet], images: Tensor, labels: Tensor, sizes: list[int]) -> tuple[list[float], list[float]]:
    """Accuracies of all seen classes and of the first task's, by the modules themselves."""
    rows = [labels < seen for seen in np.cumsum(sizes).tolist()]
    with torch.no_grad():
        right = [net(images).argmax(dim=1) == labels for net in nets]
    of = [
        (hits[seen].double().mean().item(), hits[rows[0]].double().mean().item())
        for hits, seen in zip(right, rows, strict=True)
    ]
    return [pair[0] for pair in of], [pair[1] for pair in of]


def typed(data: Path) -> list[str]:
    return [f"paths.data={data}", "benchmark.verify=false", "benchmark.download=false", "trainer=cpu"]


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["released", *map(str, arguments)])
    captured = capsys.readouterr()
    assert ended.value.code in (0, None), captured.err
    return captured.out


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["released", *map(str, arguments)])
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_figures_are_those_of_the_modules_themselves(
    released: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = run(capsys, released, *typed(data), "--out", tmp_path / "out")
    pixels = torch.from_numpy(pictures(10 * TEST_IMAGES, 32, seed=TEST_IMAGES))
    labels = torch.tensor([ORDER.index(row % 10) for row in range(len(pixels))])
    curve, first = evaluated(networks(), THEIRS.normalise(pixels), labels, SIZES)
    assert curve != evaluated(networks(), OURS.normalise(pixels), labels, SIZES)[0], (
        "it matters how they are normalised"
    )

    result = json.loads((tmp_path / "out" / "released.json").read_text())
    figures = result["readouts"]["cnn"]
    assert figures["accuracy_curve"] == pytest.approx(curve)
    assert [row[0] for row in figures["accuracy_matrix"]] == pytest.approx(first)
    assert figures["average_incremental_accuracy"] == pytest.approx(sum(curve) / 4)
    assert figures["first_task_forgetting"] == pytest.approx(first[0] - first[-1])
    assert (result["released"], result["benchmark"]) == (NAME, "cifar100_lucir")
    assert (result["class_order"], result["task_sizes"]) == (ORDER, SIZES)
    for task, (seen, accuracy, of_first) in enumerate(zip((4, 6, 8, 10), curve, first, strict=True), start=1):
        assert f"{task}/4 {seen} {100 * accuracy:.2f} {100 * of_first:.2f}" in " ".join(printed.split())
    fall = 100 * (first[0] - first[-1])
    assert f"average accuracy {25 * sum(curve):.2f}, forgetting of the first task {fall:.2f}" in printed


def test_the_subset_of_imagenet_is_read_from_its_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    order = class_order(100, 1993)
    nets = [made(50, layers=4, pool=2, width=2), made(50, 50, layers=4, pool=2, width=2, transfer=True, seed=1)]
    folder = tmp_path / "logs" / "imagenet_sub_nfg50_ncls50_nproto20_mtl_exp01"
    for task, network in enumerate(nets):
        save(network, folder / f"run_0_iteration_{task}_model.pth")
    (folder / "seed_1993_imagenet_sub_order_run_0.pkl").write_bytes(pickle.dumps(np.array(order)))
    pixels = pictures(100, 64, seed=3)
    for split in ("train", "val"):
        for label, image in enumerate(pixels):
            file = tmp_path / "imagenet100" / split / f"n{label:08d}" / "image.png"
            file.parent.mkdir(parents=True)
            Image.fromarray(image.transpose(1, 2, 0)).save(file)
    small = ["benchmark.image_size=64", "benchmark.resize=64", "benchmark.workers=0", "trainer=cpu"]
    run(capsys, folder, f"paths.data={tmp_path}", *small, "--out", tmp_path)
    labels = torch.tensor([order.index(label) for label in range(100)])
    curve, first = evaluated(nets, IMAGENET.normalise(torch.from_numpy(pixels)), labels, [50, 50])
    figures = json.loads((tmp_path / "released.json").read_text())["readouts"]["cnn"]
    assert figures["accuracy_curve"] == pytest.approx(curve)
    assert figures["first_task_forgetting"] == pytest.approx(first[0] - first[1])


def test_a_run_can_begin_with_the_first_network(
    released: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = run(capsys, released, "--convert", tmp_path / "out")
    file = tmp_path / "out" / "first_task.pt"
    for word in (
        "benchmark=cifar100_lucir benchmark.base=4 benchmark.increment=2",
        "benchmark.class_order=[3,8,0,9,5,1,7,2,6,4]",
        f"method.first_task_weights={file}",
    ):
        assert word in printed
    network = CosineNetwork(signed_features(projection_resnet(8, 4)))
    network.expand(4)
    network.load_state_dict(read_weights(str(file)))
    pixels = torch.from_numpy(pictures(6, 32, seed=9))
    with torch.no_grad():
        ours = network.eval()(THEIRS.normalise(pixels)).logits
        theirs: nn.Module = networks()[0]
        torch.testing.assert_close(ours, theirs(THEIRS.normalise(pixels)), rtol=1e-5, atol=1e-5)


def test_a_missing_model_is_named(released: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (released / "run_0_iteration_3_model.pth").unlink()
    said = refusal(capsys, released, *typed(data))
    assert "1 of 4 models are missing, first run_0_iteration_3_model.pth" in said


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ([3, 8, 0, 9, 5, 1, 7, 2, 6, 6], "each class from 0 on exactly once"),
        ([[3, 8], [0, 9]], "each class from 0 on exactly once"),
        (np.linspace(0, 1, 10), "each class from 0 on exactly once"),
        ([0, 1, 2], "the class order has 3 classes"),
    ],
)
def test_a_wrong_order_is_refused(
    released: Path, data: Path, capsys: pytest.CaptureFixture[str], order: Any, message: str
) -> None:
    (file,) = released.glob("*.pkl")
    file.write_bytes(pickle.dumps(np.array(order)))
    assert message in refusal(capsys, released, *typed(data))


def test_an_order_of_another_data_set_is_refused(
    released: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (file,) = released.glob("*.pkl")
    file.write_bytes(pickle.dumps(np.arange(8)))
    assert "benchmark.class_order must name each class of 0 to 9" in refusal(capsys, released, *typed(data))


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("harm",)


def test_pickles_that_run_code_are_refused(
    released: Path, data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data)
    torch.save(Harmful(), released / "run_0_iteration_1_model.pth")
    assert "mkdir is not allowed" in refusal(capsys, released, *typed(data))
    (file,) = released.glob("*.pkl")
    file.write_bytes(pickle.dumps(Harmful()))
    assert "mkdir is not allowed" in refusal(capsys, released, *typed(data))
    assert not Path("harm").exists()


def test_damaged_files_are_named(released: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = released / "run_0_iteration_2_model.pth"
    model.write_bytes(model.read_bytes()[:-100])
    assert f"{model} cannot be read" in refusal(capsys, released, *typed(data))
    (file,) = released.glob("*.pkl")
    file.write_bytes(file.read_bytes()[:-10])
    assert f"cannot read {file}" in refusal(capsys, released, *typed(data))
    file.unlink()
    assert "found none" in refusal(capsys, released, *typed(data))


def test_a_model_of_another_task_is_refused(
    released: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (released / "run_0_iteration_3_model.pth").rename(released / "run_0_iteration_1_model.pth")
    save(networks()[2], released / "run_0_iteration_3_model.pth")
    assert "run_0_iteration_1_model.pth knows 8 classes, expected 4" in refusal(capsys, released, *typed(data))
    save(made(2, 2), released / "run_0_iteration_1_model.pth")
    said = refusal(capsys, released, "--convert", tmp_path / "out")
    assert "the first task has no old ones" in said


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cifar10_nfg4_ncls2_exp", "Data sets: cifar100, imagenet_sub, imagenet"),
        ("cifar100_nfg5_ncls2_exp", "nfg5 is no multiple of ncls2"),
        ("nowhere", "no such folder"),
    ],
)
def test_the_name_of_the_folder_tells_the_tasks(
    released: Path, data: Path, capsys: pytest.CaptureFixture[str], name: str, message: str
) -> None:
    folder = released.with_name(name)
    if name != "nowhere":
        released.rename(folder)
    assert message in refusal(capsys, folder, *typed(data))


def test_what_the_folder_says_is_not_typed(released: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "Leave it out" in refusal(capsys, released, *typed(data), "benchmark.increment=5")
    assert "benchmark.increment" in refusal(capsys, released, *typed(data), "benchmark.incremnt=5")
    assert "is missing" in refusal(capsys, released, *typed(data.parent))
