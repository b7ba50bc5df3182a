"""What a user may get wrong: a message that says what to do, exit code 2, and nothing written or lost."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest
from filelock import FileLock
from lightning import Trainer
from PIL import Image

from mmcl.engine.run_directory import MetricsFile
from mmcl.errors import UserError
from tests.engine import mischief
from tests.engine.launched import Ended, launch
from tests.engine.tiny import assert_same_outcome, directory_of, read, run_here, tiny

MISTAKES = {
    "no method": ([], ["no method chosen", "der, dmn, ", "python -m mmcl.run +method=memo"]),
    "method": (["+method=memmo"], ["unknown method 'memmo'", "Did you mean 'memo'?", "replay"]),
    "benchmark": (["+method=memo", "benchmark=cifar1000"], ["unknown benchmark 'cifar1000'", "'cifar100'"]),
    "experiment": (["+experiment=memo/cifar100_b0_inc"], ["unknown experiment", "memo/cifar100_b0_inc10"]),
    "key": (["+method=memo", "method.alpha_axu=0"], ["unknown key 'method.alpha_axu'", "'method.alpha_aux'"]),
    "key after +": (["+method=memo", "+trainer.precison=x"], ["'trainer.precison'", "'trainer.precision'"]),
    "key after ++": (["+method=memo", "++sed=1"], ["unknown key 'sed'", "'seed'"]),
    "nested key": (["+method=wa", "method.later_tasks.epoch=1"], ["'method.later_tasks.epochs'"]),
    "several at once": (["+method=wa", "sed=1", "paths.rnus=x"], ["'seed'", "'paths.runs'"]),
    "type": (["+method=memo", "method.first_task.lr=fast"], ["'method.first_task.lr'", "Float", "fast"]),
    "seed": (["+method=memo", "seed=1.5"], ["'seed'", "1.5"]),
    "syntax": (["+method=memo", "seed=[1"], ["seed=[1"]),
    "scheduler": (["+method=memo", "method.first_task.scheduler=cosin"], ["scheduler=cosin:", "'cosine'"]),
    "epochs": (["+method=memo", "method.later_tasks.epochs=-1"], ["epochs=-1", "at least 0"]),
    "selection": (["+method=memo", "memory.select=herdin"], ["memory.select=herdin", "'herding'"]),
    "no memory for a class": (["+method=memo", "memory.size=9"], ["9 samples", "10 classes"]),
    "two budgets": (["+method=memo", "memory.per_class=2"], ["memory.size=60 and memory.per_class=2", "null"]),
    "aligned to nothing": (["+method=memo", "memory.align_to=dre"], ["memory.align_to=dre", "'der'"]),
    "class order": (["+method=memo", "benchmark.class_order=[0,1]"], ["class_order"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_stop_before_anything_is_written(mistake: str, tmp_path: Path) -> None:
    arguments, expected = MISTAKES[mistake]
    ended = launch(tiny(tmp_path / "runs", *arguments))
    _assert_told(ended, *expected)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("spelling", ["--config-dir={}", "--config-dir {}", "-cd {}"])
def test_misspelt_key_in_a_users_own_yaml(spelling: str, tmp_path: Path) -> None:
    file = tmp_path / "conf" / "experiment" / "mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("# @package _global_\nmethod:\n  later_tasks:\n    epocs: 3\n")
    flag = spelling.format(tmp_path / "conf").split()
    ended = launch([*flag, *tiny(tmp_path / "runs", "+method=replay", "+experiment=mine")])
    _assert_told(ended, "unknown key 'method.later_tasks.epocs'", "'method.later_tasks.epochs'")
    assert not (tmp_path / "runs").exists()


def test_missing_data_folder(tmp_path: Path) -> None:
    arguments = tiny(tmp_path / "runs", "+method=replay", "benchmark=cifar100", f"paths.data={tmp_path / 'data'}")
    ended = launch([*arguments, "benchmark.download=false"])
    _assert_told(ended, str(tmp_path / "data"), "cifar-100-python", "benchmark.download=true")
    assert not (tmp_path / "runs").exists()
    assert not (tmp_path / "data").exists()


def test_truncated_image_file(tmp_path: Path) -> None:
    broken = _image_folder(tmp_path / "data") / "train" / "c" / "1.png"
    broken.write_bytes(broken.read_bytes()[:40])
    ended = launch(_on_images(tmp_path))
    _assert_told(ended, f"cannot read the image {broken}", "Replace the file")
    result = read(directory_of(tmp_path / "runs") / "result.json")
    assert result["status"] == "failed"
    assert str(broken) in result["error"]
    assert len(result["bytes"]) == 1  # the first task does not need the file, and stays

    _draw(broken, 7)
    again = launch(_on_images(tmp_path))
    assert again.code == 0, again.output
    assert "task  1/2" not in again.output


def test_class_without_images(tmp_path: Path) -> None:
    folder = _image_folder(tmp_path / "data")
    for image in (folder / "train" / "b").iterdir():
        image.unlink()
    _assert_told(launch(_on_images(tmp_path)), "the class 'b' has no images", str(folder / "train" / "b"))
    assert not (tmp_path / "runs").exists()


def test_directory_of_another_configuration(tmp_path: Path) -> None:
    first = [*tiny(tmp_path, "+method=finetune", "method.later_tasks.epochs=0"), f"paths.run={tmp_path / 'mine'}"]
    result = run_here(first)
    before = _contents(tmp_path)
    ended = launch([*first, "seed=2"])
    _assert_told(ended, str(tmp_path / "mine"), "another configuration", "paths.run")
    assert _contents(tmp_path) == before
    assert run_here(first) == result


def test_another_process_at_work(tmp_path: Path) -> None:
    arguments = tiny(tmp_path, "+method=finetune", "method.later_tasks.epochs=0")
    directory = run_here([*arguments, "seed=1"]).parent.parent / "seed2"
    directory.mkdir()
    with FileLock(directory / "run.lock"):
        ended = launch([*arguments, "seed=2"])
    _assert_told(ended, "another process is working on this run", str(directory))
    assert [path.name for path in directory.iterdir()] == ["run.lock"]


def test_more_exemplars_than_images_keeps_all(tmp_path: Path) -> None:
    overrides = ("memory.size=null", "memory.per_class=100000", "method.later_tasks.epochs=0")
    result = read(run_here(tiny(tmp_path, "+method=replay", *overrides)))
    assert result["bytes"][-1]["exemplars"] == 1442


def test_increment_that_does_not_divide_the_classes(tmp_path: Path) -> None:
    overrides = ("benchmark.increment=4", "method.later_tasks.epochs=0")
    result = read(run_here(tiny(tmp_path, "+method=replay", *overrides)))
    assert result["task_sizes"] == [4, 4, 2]


def test_loss_that_is_not_finite(tmp_path: Path) -> None:
    arguments = tiny(tmp_path / "runs", "+method=replay")
    ended = launch(arguments, mischief.loss_becomes_nan)
    _assert_told(ended, "is not finite in task 2, stage representation, epoch 2", "smaller learning rate")
    result = read(directory_of(tmp_path / "runs") / "result.json")
    assert result["status"] == "failed"
    assert "not finite" in result["error"]
    assert result["readouts"]["cnn"]["accuracy_matrix"][0][0] is not None
    undisturbed = run_here(tiny(tmp_path / "undisturbed", "+method=replay"))
    again = launch(arguments)
    assert "task  1/2" not in again.output
    assert_same_outcome(Path(again.last_line), undisturbed)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that was killed inside its second task."""
    runs = tmp_path_factory.mktemp("killed")
    assert launch(tiny(runs, "+method=replay"), mischief.die_inside_an_epoch).code == -9
    return runs


def test_disk_full_while_the_state_is_saved(killed: Path, tmp_path: Path) -> None:
    arguments = tiny(shutil.copytree(killed, tmp_path / "runs"), "+method=replay")
    state = directory_of(tmp_path / "runs") / "state"
    before = {path.name for path in state.glob("sequence*")}
    (state / ".sequence.part").symlink_to("/dev/full")
    ended = launch(arguments)
    _assert_told(ended, "no space left", str(state), "type the same command again")
    assert {path.name for path in state.glob("sequence*")} == before
    assert Path("/dev/full").is_char_device()
    again = launch(arguments)
    assert_same_outcome(Path(again.last_line), run_here(tiny(tmp_path / "undisturbed", "+method=replay")))


def test_disk_full_while_a_checkpoint_is_saved(killed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    arguments = tiny(shutil.copytree(killed, tmp_path / "runs"), "+method=replay")
    before = _contents(directory_of(tmp_path / "runs") / "state")
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "save_checkpoint", full)
        with pytest.raises(UserError, match="no space left"):
            run_here(arguments)
    assert _contents(directory_of(tmp_path / "runs") / "state") == before


def test_disk_full_while_metrics_are_added(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path / "metrics.csv")
    metrics.path = Path("/dev/full")
    with pytest.raises(UserError, match="no space left"):
        metrics.append(0, "representation", 0, {"loss": 1.0})


def _assert_told(ended: Ended, *words: str) -> None:
    assert ended.code == 2, ended.output
    assert "Traceback" not in ended.output
    assert "mmcl: " in ended.output
    for word in words:
        assert word in ended.output


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _image_folder(data: Path) -> Path:
    for split, count in (("train", 3), ("val", 2)):
        for shade, name in enumerate("abcd"):
            for index in range(count):
                _draw(data / "tiny" / split / name / f"{index}.png", 60 * shade + index)
    return data / "tiny"


def _draw(path: Path, shade: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.effect_noise((20, 20), 30).point(lambda value: (value + shade) % 256)
    image.convert("RGB").save(path)


def _on_images(folder: Path) -> list[str]:
    images = ("benchmark=imagefolder", "benchmark.folder=tiny", "benchmark.image_size=16", "benchmark.resize=16")
    order = ("benchmark.workers=0", "benchmark.class_order=[0,1,2,3]", "benchmark.increment=2", "memory.size=4")
    return tiny(folder / "runs", "+method=replay", *images, *order, f"paths.data={folder / 'data'}")
