"""MML through the engine: its tasks, resume, two processes, and what a user may get wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mmcl.errors import UserError
from tests.engine import mischief
from tests.engine.launched import launch
from tests.engine.own_features import write_features
from tests.engine.tiny import assert_same_outcome, directory_of, metric_rows, read, run_here, stop_after_each_save

CHECKOUT = Path(__file__).resolve().parents[2]
SIGKILLED = -9
SHORT = (
    "+method=mml",
    "benchmark=features_memory",
    "benchmark.evaluations=[seen,unseen,union]",
    "method.image_neighbours=2",
    "method.text_neighbours=1",
    "method.feature_length=3",
    "method.schedule.epochs=4",
    "method.schedule.batch_size=5",
    "trainer=cpu",
    "trainer.progress=false",
    "trainer.checkpoint_every_n_batches=1",
)


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_features(tmp_path_factory.mktemp("features") / "toy.npz")


def _typed(runs: Path, features: Path, *overrides: str) -> list[str]:
    given = {override.partition("=")[0] for override in overrides}
    kept = [override for override in SHORT if override.partition("=")[0] not in given]
    return [*kept, f"paths.features={features}", f"paths.runs={runs}", *overrides]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, features: Path) -> Path:
    return run_here(_typed(tmp_path_factory.mktemp("undisturbed"), features))


def test_every_evaluation_is_a_task_and_the_best_epoch_is_named(undisturbed: Path) -> None:
    result = read(undisturbed)
    assert set(result["readouts"]) == {"mml", "addknn", "prototype", "ncm", "knn", "text"}
    assert len(result["readouts"]["mml"]["accuracy_curve"]) == 3
    names = {name for _, stage, _, name in metric_rows(undisturbed.parent) if stage == "mml"}
    assert {"classification", "validation_loss", "validation_accuracy"} <= names
    assert len(list(undisturbed.parent.glob("retrieved_*.json"))) == 3


def test_killed_inside_learning_and_started_again(tmp_path: Path, features: Path, undisturbed: Path) -> None:
    arguments = _typed(tmp_path, features)
    assert launch(arguments, mischief.die_inside_memory_learning).code == SIGKILLED
    ended = launch(arguments)
    assert ended.code == 0, ended.output
    assert_same_outcome(directory_of(tmp_path) / "result.json", undisturbed)


def test_a_run_goes_on_after_every_saved_state(
    tmp_path: Path, features: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = _typed(tmp_path, features)
    stop_after_each_save(arguments, 2 + 1 + 1, monkeypatch)  # stage and end of the first task, ends of the others
    assert_same_outcome(run_here(arguments), undisturbed)


def test_evaluation_alone_goes_on_from_what_was_learned_and_learns_nothing(
    tmp_path: Path,
    features: Path,
    undisturbed: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = _typed(tmp_path, features)
    with pytest.raises(UserError, match="stage mml of task 1 has not been learned"):
        run_here([*arguments, "eval_only=true"])
    assert not list(tmp_path.iterdir())
    stop_after_each_save(arguments, 1, monkeypatch)
    finished = run_here([*arguments, "eval_only=true"])
    assert_same_outcome(finished, undisturbed)
    capsys.readouterr()
    assert run_here([*arguments, "eval_only=true"]) == finished
    assert capsys.readouterr().out.count("unseen  mml ") == 1
    with pytest.raises(UserError, match="force=true forgets it"):
        run_here([*arguments, "eval_only=true", "force=true", "seed=2"])


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path: Path, features: Path, undisturbed: Path) -> None:
    typed = _typed(tmp_path, features, "trainer=ddp_cpu", "trainer.devices=2")
    command = [sys.executable, "-m", "mmcl.run", *typed]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=CHECKOUT, timeout=240, check=False)
    assert ended.returncode == 0, ended.stderr
    one, two = read(undisturbed), read(directory_of(tmp_path) / "result.json")
    assert two["readouts"]["mml"]["accuracy_curve"] == pytest.approx(one["readouts"]["mml"]["accuracy_curve"], abs=1e-6)
    ours, theirs = metric_rows(undisturbed.parent), metric_rows(directory_of(tmp_path))
    for row in ours:
        if row[1] == "mml" and row[3] in ("classification", "validation_loss"):
            assert float(theirs[row]) == pytest.approx(float(ours[row]), rel=1e-3, abs=1e-6), row


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["method.image_neighbours=99"], r"method\.image_neighbours=99: expected 1 to"),
        (["benchmark.evaluations=[sean]"], "Did you mean 'seen'"),
        (["method.schedule.optimizer=adamw"], "Did you mean 'adam'"),
        (["benchmark.unseen_share=0.9"], "leave nothing"),
        (["benchmark.shots_share=0.0", "benchmark.evaluations=[few_shot]"], "few_shot needs shots"),
    ],
)
def test_bad_input_says_what_to_type(overrides: list[str], words: str, tmp_path: Path, features: Path) -> None:
    with pytest.raises(UserError, match=words):
        run_here(_typed(tmp_path, features, *overrides))
    assert not [path for path in tmp_path.rglob("result.json") if read(path)["status"] == "finished"]


def test_other_methods_on_features_answer_for_the_same_tasks(tmp_path: Path, features: Path, undisturbed: Path) -> None:
    kept = [override for override in SHORT if not override.startswith(("+method", "method."))]
    typed = ["+method=clip_zeroshot", *kept, f"paths.features={features}", f"paths.runs={tmp_path}"]
    ours = read(run_here([*typed, "method.prompts=full"]))["readouts"]["text"]["accuracy_curve"]
    assert ours == read(undisturbed)["readouts"]["text"]["accuracy_curve"]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["benchmark.shots_share=0.0", "benchmark.evaluations=[seen,few_shot]"], "few_shot needs shots"),
        (["method.text_neighbours=3"], r"method\.text_neighbours=3: expected 1 to 2"),
    ],
)
def test_what_a_later_task_lacks_is_missed_before_anything_is_learned(
    overrides: list[str], words: str, tmp_path: Path, features: Path
) -> None:
    with pytest.raises(UserError, match=words):
        run_here(_typed(tmp_path, features, *overrides))
    assert not any(row[1] == "mml" for row in metric_rows(directory_of(tmp_path)))


def test_seeds_that_draw_classes_are_seeds_of_one_configuration(
    tmp_path: Path, features: Path, undisturbed: Path
) -> None:
    other = run_here(_typed(tmp_path, features, "seed=2"))
    assert other.parents[1].name == undisturbed.parents[1].name
