"""TPT and CoOp on features that come without a text encoder, as a user starts them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmcl.config.compose import compose_run, compose_sweep
from tests.engine import mischief
from tests.engine.launched import launch
from tests.engine.own_features import CLASSES, write_features
from tests.engine.tiny import assert_same_outcome, read, run_here

SIGKILLED = -9
METHODS = ("clip_zeroshot", "tip_adapter", "tip_adapter_f", "tpt", "coop", "dmn")


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with 16 training images of each class, texts of one kind, and no validation images."""
    path = write_features(tmp_path_factory.mktemp("features") / "toy.npz")
    content = {name: values for name, values in np.load(path).items() if "validation" not in name}
    content |= {name: np.concatenate([content[name]] * 2) for name in ("image_train", "label_train")}
    np.savez(path, **content)
    return path


def _typed(method: str, runs: Path, features: Path, *overrides: str) -> list[str]:
    typed = [f"+method={method}", "benchmark=features", f"paths.features={features}", f"paths.runs={runs}"]
    return [*typed, "benchmark.logit_scale=14", "trainer=cpu", "trainer.progress=false", *overrides]


@pytest.mark.slow
def test_all_methods_are_swept_over_one_file(tmp_path: Path, features: Path) -> None:
    ended = launch(["-m", *_typed(",".join(METHODS), tmp_path, features, "trainer.isolate=false")])
    assert ended.code == 0, ended.output
    results = {path.parts[-4]: read(path)["readouts"] for path in tmp_path.rglob("result.json")}
    assert set(results) == set(METHODS)
    zero_shot = results["clip_zeroshot"]["text"]["last_accuracy"]
    assert results["tpt"]["text"]["last_accuracy"] == pytest.approx(zero_shot, abs=1e-4)
    assert results["coop"]["coop"]["last_accuracy"] > zero_shot > 1.5 / CLASSES


def test_a_sweep_composes_what_a_single_run_composes(tmp_path: Path, features: Path) -> None:
    jobs = compose_sweep(_typed(",".join(METHODS), tmp_path, features))
    assert [job.method.name for job in jobs] == list(METHODS)
    for job in jobs:
        assert job == compose_run(_typed(job.method.name, tmp_path, features))
        assert job.method.prompts == "full"
        assert job.method.get("learns") == {"tpt": "shift", "coop": "shift"}.get(job.method.name)


def test_elsewhere_and_as_published_prompts_are_learned(tmp_path: Path, features: Path) -> None:
    for method in ("tpt", "coop"):
        assert compose_run([f"+method={method}"]).method.learns == "prompt"
        assert compose_run(["recipe=paper", *_typed(method, tmp_path, features)]).method.learns == "prompt"


@pytest.mark.parametrize("method", ["tpt", "coop"])
def test_prompts_without_an_encoder_name_the_shift(method: str, tmp_path: Path, features: Path) -> None:
    ended = launch(_typed(method, tmp_path, features, "method.learns=prompt"))
    assert ended.code == 2, ended.output
    assert "method.learns=shift" in ended.output
    assert "Traceback" not in ended.output


def test_a_misspelt_word_stops_before_any_data(tmp_path: Path) -> None:
    ended = launch(_typed("coop", tmp_path, Path("/nowhere/a.npz"), "method.learns=shifts"))
    assert ended.code == 2, ended.output
    assert "method.learns=shifts: expected prompt or shift. Did you mean 'shift'" in ended.output
    assert not list(tmp_path.iterdir())


def test_killed_inside_learning_and_started_again(tmp_path: Path, features: Path) -> None:
    short = ("method.epochs_of_shots=null", "method.schedule.epochs=4", "trainer.checkpoint_every_n_batches=1")
    arguments = _typed("coop", tmp_path / "killed", features, *short)
    assert launch(arguments, mischief.die_inside_few_shot_learning).code == SIGKILLED
    again = launch(arguments)
    assert again.code == 0, again.output
    undisturbed = run_here(_typed("coop", tmp_path / "undisturbed", features, *short))
    assert_same_outcome(Path(again.last_line), undisturbed)


def test_killed_inside_the_stream_and_started_again(tmp_path: Path, features: Path) -> None:
    often = "trainer.checkpoint_every_n_batches=1"
    arguments = _typed("tpt", tmp_path / "killed", features, often)
    assert launch(arguments, mischief.die_inside_a_stream).code == SIGKILLED
    again = launch(arguments)
    assert again.code == 0, again.output
    assert_same_outcome(Path(again.last_line), run_here(_typed("tpt", tmp_path / "undisturbed", features, often)))
