"""Sweeps: every job is a plain run, and none takes the others along."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engine.launched import launch
from tests.engine.tiny import assert_same_outcome, read, run_here, tiny

QUICK = ("method.first_task.epochs=1", "method.later_tasks.epochs=1")


@pytest.mark.slow
def test_a_sweep_leaves_a_result_for_each_job(tmp_path: Path) -> None:
    ended = launch(["-m", *tiny(tmp_path / "swept", "+method=replay,finetune", "seed=2", *QUICK)])
    assert ended.code == 0, ended.output
    results = {path: read(path) for path in (tmp_path / "swept").rglob("result.json")}
    ran = {(result["config"]["method"]["name"], result["config"]["seed"]) for result in results.values()}
    assert ran == {("replay", 2), ("finetune", 2)}
    assert {result["status"] for result in results.values()} == {"finished"}
    assert all(f"\n{path}\n" in ended.output for path in results)
    alone = run_here(tiny(tmp_path / "alone", "+method=replay", "seed=2", *QUICK))
    assert_same_outcome(tmp_path / "swept" / alone.relative_to(tmp_path / "alone"), alone)


@pytest.mark.slow
def test_a_failing_job_does_not_stop_the_others(tmp_path: Path) -> None:
    _check_one_failure(tmp_path, "trainer.isolate=true")


def test_a_failing_job_in_the_same_process(tmp_path: Path) -> None:
    _check_one_failure(tmp_path, "trainer.isolate=false")


def test_a_mistake_in_any_job_stops_before_the_first(tmp_path: Path) -> None:
    ended = launch(["-m", *tiny(tmp_path / "runs", "+method=replay,wa"), "method.temperature=3.0"])
    assert ended.code == 2, ended.output
    assert "unknown key 'method.temperature'" in ended.output
    assert not (tmp_path / "runs").exists()


def _check_one_failure(runs: Path, isolate: str) -> None:
    ended = launch(["-m", *tiny(runs, "+method=finetune", "method.first_task.lr=1e30,0.02", *QUICK), isolate])
    assert ended.code not in (0, None), ended.output
    assert "is not finite in task 1" in ended.output
    statuses = {read(path)["config"]["method"]["first_task"]["lr"]: read(path) for path in runs.rglob("result.json")}
    assert {rate: result["status"] for rate, result in statuses.items()} == {1e30: "failed", 0.02: "finished"}


def test_methods_are_swept_on_a_benchmark_whose_recipe_depends_on_them(tmp_path: Path) -> None:
    ended = launch(
        [
            "-m",
            "+method=clip_zeroshot,tip_adapter",
            "benchmark=shapes",
            "benchmark.classes=unseen",
            "benchmark.test_per_class=1",
            "trainer=cpu",
            "trainer.isolate=false",
            f"paths.runs={tmp_path}",
        ]
    )
    assert ended.code == 0, ended.output
    assert {path.parts[-4] for path in tmp_path.rglob("result.json")} == {"clip_zeroshot", "tip_adapter"}
