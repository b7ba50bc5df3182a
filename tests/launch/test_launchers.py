"""Every launcher gives the figures of the plain run; what is cut off goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmcl.config.compose import compose_run
from mmcl.config.identity import identity
from mmcl.errors import PREEMPTED, UserError
from mmcl.launch.gpu_pool import names_of, seconds_before, slots_for
from tests.engine.launched import Ended, launch
from tests.engine.test_two_processes import CHECKOUT
from tests.engine.tiny import assert_same_outcome, read, run_here, tiny
from tests.launch.pretend import listens_to_interrupts
from tests.one_thread import one_thread

QUICK = ("+method=replay", "method.later_tasks.epochs=2")
SEEDS = (1, 2)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """The results of plain runs by seed."""
    runs = tmp_path_factory.mktemp("plain")
    return {seed: run_here(tiny(runs, *QUICK, f"seed={seed}")) for seed in SEEDS}


def _sweep(runs: Path, launcher: str, *words: str) -> Ended:
    return launch(["-m", *tiny(runs, *QUICK, "seed=1,2", f"hydra/launcher={launcher}", *words)])


def _assert_same(runs: Path, plain: dict[int, Path]) -> None:
    results = {read(path)["config"]["seed"]: path for path in runs.rglob("result.json")}
    assert results.keys() == plain.keys()
    for seed, path in results.items():
        assert_same_outcome(path, plain[seed])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "words"),
    [("gpu_pool", ["hydra.launcher.slots=2"]), ("submitit_local", ["hydra.launcher.timeout_min=5"])],
)
def test_each_launcher_gives_the_figures_of_plain_runs(
    launcher: str, words: list[str], tmp_path: Path, plain: dict[int, Path]
) -> None:
    if launcher.startswith("submitit"):
        pytest.importorskip("submitit")
    ended = _sweep(tmp_path, launcher, *words)
    assert ended.code == 0, ended.output
    _assert_same(tmp_path, plain)
    if launcher == "gpu_pool":
        logs = list((tmp_path / "logs").iterdir())
        assert len(logs) == 2
        assert all(str(log) in ended.output for log in logs)


@pytest.mark.slow
def test_a_failing_and_a_killed_job_stop_no_other(tmp_path: Path, plain: dict[int, Path]) -> None:
    words = ["method.first_task.lr=0.02,1e30", "hydra.launcher.slots=2"]
    ended = _sweep(tmp_path, "gpu_pool", *words)
    assert ended.code == 1, ended.output
    assert "2 jobs failed:" in ended.output
    alone = [line.strip() for line in ended.output.splitlines() if line.startswith("  python -m mmcl.run ")]
    assert len(alone) == 2
    assert all("method.first_task.lr=1e+30" in line for line in alone)
    assert "exit code 2: mmcl: the loss or a weight is not finite" in ended.output
    assert "Traceback" not in ended.output
    finished = [path for path in tmp_path.rglob("result.json") if read(path)["status"] == "finished"]
    for path in finished:
        assert_same_outcome(path, plain[read(path)["config"]["seed"]])
    assert len(finished) == 2


@pytest.mark.slow
def test_preempted_killed_and_interrupted(tmp_path: Path) -> None:
    """One job is preempted and put back, one is killed and fails; an interrupt leaves both to go on."""
    long = ("+method=replay", "method.later_tasks.epochs=25")
    arguments = ["-m", *tiny(tmp_path / "pool", *long, "seed=1,2", "hydra/launcher=gpu_pool", "hydra.launcher.slots=2")]
    pool = _start(arguments)
    _wait(tmp_path, "\n1,representation,1,", 2)
    os.kill(_job_of(tmp_path, "seed=1"), signal.SIGTERM)
    os.kill(_job_of(tmp_path, "seed=2"), signal.SIGKILL)
    _wait(tmp_path, "put back (1 of at most 10 times)", 1, "output")
    _wait(tmp_path, "failed: ", 1, "output")
    time.sleep(1)
    pool.send_signal(signal.SIGINT)
    assert pool.wait(60) == 130, (tmp_path / "output").read_text()
    output = (tmp_path / "output").read_text()
    assert "killed by SIGKILL" in output
    assert {read(path)["status"] for path in tmp_path.rglob("result.json")} == {"running"}
    again = launch(arguments)
    assert again.code == 0, again.output
    _assert_same(tmp_path / "pool", {seed: run_here(tiny(tmp_path / "plain", *long, f"seed={seed}")) for seed in SEEDS})


@pytest.mark.slow
def test_sigterm_to_a_pool_is_handed_on(tmp_path: Path) -> None:
    arguments = tiny(tmp_path / "pool", "+method=replay", "method.later_tasks.epochs=400", "seed=1,2")
    pool = _start(["-m", *arguments, "hydra/launcher=gpu_pool", "hydra.launcher.slots=1"])
    _wait(tmp_path, "\n1,representation,1,", 1)
    pool.send_signal(signal.SIGTERM)
    assert pool.wait(60) == PREEMPTED
    (log,) = (tmp_path / "pool" / "logs").iterdir()
    assert "mmcl: stopped after epoch" in log.read_text()


@pytest.mark.slow
def test_a_search_is_led_by_validation_samples(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    ended = launch(_search(tmp_path, "objective=head_validation/last_accuracy", "hydra.sweeper.n_trials=3"))
    assert ended.code == 0, ended.output
    results = [read(path) for path in tmp_path.rglob("result.json")]
    assert len(results) == 3
    reached = {result["config"]["method"]["lr"]: _last(result) for result in results}
    best = (tmp_path / "sweeps" / "optimization_results.yaml").read_text()
    assert f"best_value: {max(reached.values())}" in best
    assert any(f"method.lr: {rate}" in best for rate, value in reached.items() if value == max(reached.values()))


@pytest.mark.parametrize(
    ("objective", "words"),
    [
        ([], ["hydra/sweeper=search", "objective=head_validation/last_accuracy"]),
        (["objective=head/last_accuracy"], ["test samples", "objective=head_validation/last_accuracy"]),
        (["objective=head_validation"], ["one of its figures", "objective=head_validation/last_accuracy"]),
    ],
)
def test_nothing_is_led_by_test_samples(objective: list[str], words: list[str], tmp_path: Path) -> None:
    ended = launch(_search(tmp_path, *objective))
    assert ended.code == 2, ended.output
    assert all(word in ended.output for word in words), ended.output
    assert not list(tmp_path.rglob("result.json"))


def test_an_objective_that_a_run_does_not_have(tmp_path: Path) -> None:
    arguments = [word for word in _search(tmp_path, "objective=haed_validation/last_accuracy") if "lr=tag" not in word]
    ended = launch([word for word in arguments if "sweeper" not in word] + ["trainer.isolate=false"])
    assert ended.code == 1, ended.output
    assert "no readout 'haed_validation'. Did you mean 'head_validation'?" in ended.output


def test_an_objective_is_no_part_of_a_runs_identity() -> None:
    online = ["+method=vanilla", "trainer=cpu"]
    led = [*online, "objective=head_validation/last_accuracy"]
    assert identity(compose_run(online)) == identity(compose_run(led))


def test_ends_of_an_interval_are_checked(tmp_path: Path) -> None:
    arguments = _search(tmp_path, "objective=head_validation/last_accuracy", "method.weight_dacay=interval(0.0, 0.1)")
    ended = launch(arguments)
    assert ended.code == 2, ended.output
    assert "unknown key 'method.weight_dacay'. Did you mean 'method.weight_decay'?" in ended.output


def test_a_launcher_that_is_not_installed(tmp_path: Path) -> None:
    ended = launch(["-m", *tiny(tmp_path, *QUICK, "hydra/launcher=submitit_moon")])
    assert ended.code == 2, ended.output
    assert "pip install 'mmcl[slurm]'" in ended.output


def test_logs_are_named_by_what_differs() -> None:
    names = names_of([("+method=memo", "seed=1", "paths.runs=/a"), ("+method=memo", "seed=2", "paths.runs=/a")])
    assert [name.rpartition("_")[0] for name in names] == ["seed=1", "seed=2"]
    assert len(set(names_of([("a=1", f"b=/x/{number}") for number in range(3)]))) == 3


def test_the_length_of_a_job_is_that_of_other_seeds(plain: dict[int, Path]) -> None:
    runs = plain[1].parents[4]
    walls = [read(path)["timing"]["wall_seconds"] for path in plain.values()]
    assert seconds_before(compose_run(tiny(runs, *QUICK, "seed=9"))) == pytest.approx(sum(walls) / 2)
    assert seconds_before(compose_run(tiny(runs, *QUICK, "seed=9", "method.later_tasks.lr=0.5"))) is None


def test_a_job_for_several_gpus_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = tmp_path / "nvidia-smi"
    driver.write_text('#!/bin/sh\n[ "$1" = -L ] && echo "GPU 0: NVIDIA A100 (UUID: GPU-1)"\n')
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    one, several = (compose_run(["+method=memo", "trainer=gpu", f"trainer.devices={count}"]) for count in (1, 2))
    assert [slot.name for slot in slots_for([one], None)] == ["gpu GPU-1"]
    with pytest.raises(UserError, match="gives each job one GPU"):
        slots_for([one, several], None)
    on_cpu = compose_run(["+method=memo", "trainer=ddp_cpu"])
    assert all(slot.name.startswith("cpu") for slot in slots_for([on_cpu], None))


def _search(runs: Path, *words: str) -> list[str]:
    online = ["+method=vanilla", "benchmark._target_=tests.engine.short_stream.ShortStream", "seed=3", "trainer=cpu"]
    searched = ["hydra/sweeper=search", "method.lr=tag(log, interval(0.001, 0.1))", "method.hidden=null"]
    return ["-m", *online, *searched, *words, f"paths.runs={runs}"]


def _last(result: dict[str, dict[str, dict[str, float]]]) -> float:
    return result["readouts"]["head_validation"]["last_accuracy"]


def _start(arguments: list[str]) -> subprocess.Popen[bytes]:
    output = (
        next(Path(word.partition("=")[2]) for word in arguments if word.startswith("paths.runs=")).parent / "output"
    )
    with output.open("wb") as file:
        command = [sys.executable, "-m", "mmcl.run", *arguments]
        return subprocess.Popen(
            command, cwd=CHECKOUT, stdout=file, stderr=subprocess.STDOUT, preexec_fn=listens_to_interrupts
        )


def _wait(folder: Path, words: str, files: int, name: str = "metrics.csv") -> None:
    deadline = time.monotonic() + 100
    while sum(words in path.read_text() for path in folder.rglob(name)) < files:
        assert time.monotonic() < deadline, (folder / "output").read_text()
        time.sleep(0.01)


def _job_of(folder: Path, word: str) -> int:
    """Return the process of a job of the pool: it has its own value where the pool has several."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if word.encode() in words and any(str(folder).encode() in entry for entry in words):
            return int(path.name)
    raise AssertionError(f"no job with {word}")
