"""A pool of slots, with programs of a moment in place of runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mmcl.launch import isolation
from mmcl.launch.jobs import Job, Outcome
from mmcl.launch.slot_pool import run_in_slots
from mmcl.launch.slots import Slot
from tests.launch.pretend import listens_to_interrupts

CHECKOUT = Path(__file__).resolve().parents[2]
TWO = [Slot("one", {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "MIG-a"}), Slot("two", {"OMP_NUM_THREADS": "3"})]


@pytest.fixture(autouse=True)
def _pretended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "PROGRAM", "tests.launch.pretend")
    monkeypatch.chdir(CHECKOUT)


def _job(folder: Path, name: str, *words: str, expected: float | None = None) -> Job:
    return Job((f"name={name}", f"folder={folder}", *words), expected, name)


def _run(folder: Path, jobs: list[Job], slots: list[Slot], **how: Any) -> dict[str, Outcome]:
    return {outcome.job.name: outcome for outcome in run_in_slots(jobs, slots, folder / "logs", **how)}


def _starts(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted((folder / name).glob("start*"))]


def test_the_longest_goes_first_and_an_unknown_one_before_it(tmp_path: Path) -> None:
    lengths = {"short": 1.0, "long": 100.0, "unknown": None, "middle": 10.0}
    outcomes = _run(tmp_path, [_job(tmp_path, name, expected=lengths[name]) for name in lengths], TWO[:1])
    assert list(outcomes) == ["unknown", "long", "middle", "short"]
    assert all(outcome.result == tmp_path / name / "result.json" for name, outcome in outcomes.items())


def test_each_slot_holds_one_job_at_a_time_and_gives_its_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_PROCID", "3")
    monkeypatch.setenv("LOCAL_RANK", "3")
    names = ["a", "b", "c", "d"]
    _run(tmp_path, [_job(tmp_path, name, "seconds=0.3") for name in names], TWO)
    starts = [_starts(tmp_path, name)[0] for name in names]
    assert [start["OMP_NUM_THREADS"] for start in starts[:2]] == ["1", "3"]
    assert {start["CUDA_VISIBLE_DEVICES"] for start in starts if start["OMP_NUM_THREADS"] == "1"} == {"MIG-a"}
    assert all(start["SLURM_PROCID"] is None and start["LOCAL_RANK"] is None for start in starts)
    for threads in ("1", "3"):
        moments = sorted(start["at"] for start in starts if start["OMP_NUM_THREADS"] == threads)
        assert all(later - earlier > 0.3 for earlier, later in zip(moments, moments[1:], strict=False))


def test_failures_stop_nothing_and_say_why(tmp_path: Path) -> None:
    jobs = [
        _job(tmp_path, "wrong", "codes=2"),
        _job(tmp_path, "killed", "signal=9"),
        _job(tmp_path, "fine"),
    ]
    outcomes = _run(tmp_path, jobs, TWO)
    assert outcomes["fine"].result is not None
    assert outcomes["wrong"].result is None
    assert outcomes["wrong"].error == "exit code 2: mmcl: what went wrong in wrong"
    assert "what went wrong" in (outcomes["wrong"].log or Path()).read_text()
    assert outcomes["killed"].error.startswith("killed by SIGKILL")
    assert len(_starts(tmp_path, "wrong")) == len(_starts(tmp_path, "killed")) == 1, "nothing is tried again"


def test_a_preempted_job_is_put_back_a_bounded_number_of_times(tmp_path: Path) -> None:
    said: list[str] = []
    jobs = [
        _job(tmp_path, "twice", "codes=75,75,0", "++force=true"),
        _job(tmp_path, "always", "codes=75"),
    ]
    outcomes = _run(tmp_path, jobs, TWO, requeues=2, say=said.append)
    assert outcomes["twice"].result is not None
    assert outcomes["always"].error == "exit code 75: preempted 3 times, and put back no more than 2"
    assert len(_starts(tmp_path, "twice")) == len(_starts(tmp_path, "always")) == 3
    assert ["++force=true" in start["argv"] for start in _starts(tmp_path, "twice")] == [True, False, False]
    assert sum("put back" in line for line in said) == 4


def test_who_wants_no_more_stops_the_jobs(tmp_path: Path) -> None:
    jobs = [_job(tmp_path, "quick"), _job(tmp_path, "slow", "seconds=60"), _job(tmp_path, "waiting")]
    outcomes: Iterator[Outcome] = run_in_slots(jobs, TWO, tmp_path / "logs")
    next(outcomes)
    _wait_for(tmp_path / "slow" / "start0")
    outcomes.close()  # type: ignore[attr-defined]
    assert (tmp_path / "slow" / "asked").exists()
    assert not _lives(_starts(tmp_path, "slow")[0]["pid"])


PARENT = """
import sys
from pathlib import Path
from mmcl.launch import isolation
from mmcl.launch.jobs import Job, Terminated, terminated_as_interrupt
from mmcl.launch.slot_pool import run_in_slots
from mmcl.launch.slots import Slot
isolation.PROGRAM = "tests.launch.pretend"
folder = Path(sys.argv[1])
job = Job(("name=slow", f"folder={folder}", "seconds=60"))
try:
    with terminated_as_interrupt():
        list(run_in_slots([job], [Slot("one", {})], folder / "logs"))
except Terminated:
    sys.exit(75)
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize(
    ("number", "code", "is_asked"),
    [(signal.SIGINT, 130, True), (signal.SIGTERM, 75, True), (signal.SIGKILL, -9, False)],
)
def test_no_job_outlives_its_pool(number: signal.Signals, code: int, is_asked: bool, tmp_path: Path) -> None:
    pool = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)],
        cwd=CHECKOUT,
        stdout=subprocess.DEVNULL,
        preexec_fn=listens_to_interrupts,
    )
    _wait_for(tmp_path / "slow" / "start0")
    pool.send_signal(number)
    assert pool.wait(30) == code
    deadline = time.monotonic() + 10
    while _lives(_starts(tmp_path, "slow")[0]["pid"]):
        assert time.monotonic() < deadline, "the job outlived its pool"
        time.sleep(0.02)
    assert (tmp_path / "slow" / "asked").exists() == is_asked


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists() or not path.read_text():
        assert time.monotonic() < deadline, f"{path} never came"
        time.sleep(0.02)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
