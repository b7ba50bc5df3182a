"""A data set's test stream: its order, a kill in the middle, one process and two, and what may befall it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mmcl.config.compose import compose_run
from mmcl.config.identity import identity
from mmcl.engine.stream import stream_order
from tests.engine import mischief
from tests.engine.launched import launch
from tests.engine.own_features import CLASSES, TEST, write_features
from tests.engine.test_two_processes import CHECKOUT
from tests.engine.tiny import assert_same_outcome, directory_of, read, run_here

SIGKILLED = -9
LEARNED = ("method.shots=2", "method.learn=true", "method.schedule.epochs=3", "method.schedule.lr=0.01")


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_features(tmp_path_factory.mktemp("features") / "toy.npz")


def _dmn(runs: Path, features: Path, *overrides: str) -> list[str]:
    return [
        "+method=dmn",
        "benchmark=features",
        "method.prompts=tip",
        "method.views=4",
        "method.selection_share=0.5",
        "method.slots_per_class=5",
        "trainer=cpu",
        "trainer.checkpoint_every_n_batches=1",
        f"paths.features={features}",
        f"paths.runs={runs}",
        *overrides,
    ]


def test_the_order_is_a_function_of_the_seed_and_covers_every_sample() -> None:
    order = stream_order(50, True, seed=3, task_index=1)
    assert torch.equal(order, stream_order(50, True, seed=3, task_index=1))
    assert not torch.equal(order, stream_order(50, True, seed=4, task_index=1))
    assert sorted(order.tolist()) == list(range(50))
    assert stream_order(5, False, seed=3, task_index=1).tolist() == list(range(5))


def test_the_figures_of_a_data_set(tmp_path: Path, features: Path) -> None:
    result = run_here(_dmn(tmp_path, features, *LEARNED))
    content = read(result)
    assert content["task_names"] == ["toy"]
    assert set(content["readouts"]) == {"text", "dynamic", "static", "fused"}
    fused = content["readouts"]["fused"]
    assert fused["accuracy_matrix"] == [[fused["last_accuracy"]]]
    assert fused["acc_oracle"] >= fused["last_accuracy"] > 1.5 / CLASSES
    assert "acc_oracle" not in content["readouts"]["text"]
    order = np.load(result.parent / "stream_000_toy.npy")
    assert sorted(order.tolist()) == list(range(TEST))
    confusion = np.loadtxt(result.parent / "confusion_fused.csv", delimiter=",")
    assert confusion.shape == (CLASSES, CLASSES)
    assert confusion.sum() == TEST


@pytest.mark.parametrize("accident", [mischief.die_inside_a_stream, mischief.die_writing_a_stream_state])
def test_killed_inside_a_stream_and_started_again(accident: object, tmp_path: Path, features: Path) -> None:
    arguments = _dmn(tmp_path / "killed", features, *LEARNED)
    assert launch(arguments, accident).code == SIGKILLED  # type: ignore[arg-type]
    states = [path.name for path in (directory_of(tmp_path / "killed") / "state").iterdir()]
    assert any(name.startswith("task000-stream-") for name in states)
    again = launch(arguments)
    assert again.code == 0, again.output
    undisturbed = run_here(_dmn(tmp_path / "undisturbed", features, *LEARNED))
    assert_same_outcome(Path(again.last_line), undisturbed)
    assert not list((directory_of(tmp_path / "killed") / "state").glob("task000-stream-*"))


def test_killed_inside_few_shot_learning_and_started_again(tmp_path: Path, features: Path) -> None:
    arguments = _dmn(tmp_path / "killed", features, *LEARNED)
    assert launch(arguments, mischief.die_inside_few_shot_learning).code == SIGKILLED
    again = launch(arguments)
    assert again.code == 0, again.output
    assert_same_outcome(Path(again.last_line), run_here(_dmn(tmp_path / "undisturbed", features, *LEARNED)))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dmn", "clip_zeroshot"])
def test_two_processes_equal_one(method: str, tmp_path: Path, features: Path) -> None:
    overrides = LEARNED if method == "dmn" else ()
    arguments = _dmn(tmp_path / "one", features, *overrides)
    if method != "dmn":
        arguments = [word for word in arguments if not word.startswith(("+method", "method"))]
        arguments = ["+method=clip_zeroshot", "method.prompts=tip", *arguments]
    one = read(run_here(arguments))
    changed = {"trainer=cpu": "trainer=ddp_cpu", f"paths.runs={tmp_path / 'one'}": f"paths.runs={tmp_path / 'two'}"}
    two = [changed.get(word, word) for word in arguments]
    command = [sys.executable, "-m", "mmcl.run", *two, "trainer.devices=2"]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=CHECKOUT, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    other = read(Path(ended.stdout.rstrip().rpartition("\n")[2]))
    for name, readout in one["readouts"].items():
        assert other["readouts"][name]["last_accuracy"] == pytest.approx(readout["last_accuracy"], abs=1e-5)
        if "acc_oracle" in readout:
            assert other["readouts"][name]["acc_oracle"] == pytest.approx(readout["acc_oracle"], abs=1e-5)
    assert other["bytes"] == one["bytes"]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["method.fusion=val"], ["fusion", "shots"]),
        (["method.learn=true"], ["shots"]),
        (["method.shots=9"], ["9", "class"]),
        (["method.views=9"], ["views"]),
        (["method.prompts=cupl"], ["cupl"]),
        (["benchmark=digits"], ["digits", "shapes"]),
        (["paths.features=/nowhere/a.npz"], ["/nowhere/a.npz"]),
    ],
)
def test_bad_input_says_what_to_type(overrides: list[str], words: list[str], tmp_path: Path, features: Path) -> None:
    ended = launch([*_dmn(tmp_path, features), *overrides])
    assert ended.code == 2, ended.output
    for word in words:
        assert word in ended.output
    assert "Traceback" not in ended.output
    assert all(read(result)["status"] == "failed" for result in tmp_path.rglob("result.json"))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["method.shots=2", "method.learn=true", "method.schedule.lr=0"], ["lr=0", "more than 0"]),
        (["+method.schedule_of.dtdd.epochs=1"], ["schedule_of", "dtdd", "dtd"]),
        (["+method.schedule_of.dtd.lr=fast"], ["schedule_of.dtd", "fast"]),
        (["method.shots=2", "method.learn=true", "method.schedule.lr=1e30"], ["method.schedule.lr=", "not finite"]),
    ],
)
def test_wrong_schedules(overrides: list[str], words: list[str], tmp_path: Path, features: Path) -> None:
    ended = launch([*_dmn(tmp_path, features), *overrides])
    assert ended.code == 2, ended.output
    assert all(word in ended.output for word in words), ended.output
    assert "Traceback" not in ended.output


def test_missing_validation_images_stop_before_anything_is_learned(tmp_path: Path, features: Path) -> None:
    content = {name: values for name, values in np.load(features).items() if "validation" not in name}
    np.savez(tmp_path / "bare.npz", **content)
    ended = launch(_dmn(tmp_path / "runs", tmp_path / "bare.npz", *LEARNED, "method.fusion=val"))
    assert ended.code == 2
    assert "image_validation" in ended.output
    assert "few_shot" not in (directory_of(tmp_path / "runs") / "metrics.csv").read_text()


def test_a_folder_of_features_is_a_sequence_of_data_sets(tmp_path: Path) -> None:
    folder = tmp_path / "features"
    folder.mkdir()
    for seed, name in enumerate(("b", "a")):
        write_features(folder / f"{name}.npz", seed)
    content = read(run_here(_dmn(tmp_path / "runs", folder)))
    assert content["task_names"] == ["a", "b"]
    fused = content["readouts"]["fused"]
    assert fused["average_incremental_accuracy"] == pytest.approx(sum(fused["accuracy_curve"]) / 2)
    assert len(fused["acc_oracle_curve"]) == 2
    assert fused["forgetting"] is None


def test_what_a_file_is_called_and_holds_is_part_of_the_identity(tmp_path: Path) -> None:
    first = write_features(tmp_path / "one.npz")
    other_name, other_content = tmp_path / "two.npz", write_features(tmp_path / "three.npz", seed=1)
    other_name.write_bytes(first.read_bytes())
    moved = tmp_path / "elsewhere" / "one.npz"
    moved.parent.mkdir()
    moved.write_bytes(first.read_bytes())
    known = {path: identity(compose_run(_dmn(tmp_path, path))) for path in (first, other_name, other_content, moved)}
    assert known[first] == known[moved]
    assert len(set(known.values())) == 3
