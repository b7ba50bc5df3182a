"""One process and two: the same memory, the same figures, every test image counted once, and nothing left running."""

from __future__ import annotations

import math
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from mmcl.engine.state import StateFile
from tests.engine.tiny import assert_same_outcome, directory_of, metric_rows, read, run_here, tiny

pytestmark = pytest.mark.slow
PLAIN = ("backbone._target_=tests.engine.plain_backbone.make", "benchmark.steps_per_block=3")
CHECKOUT = Path(__file__).resolve().parents[2]
TOLERANCE = 1e-5


@pytest.mark.parametrize("method", ["replay", "memo"])
def test_two_processes_equal_one(method: str, tmp_path: Path) -> None:
    one = run_here(tiny(tmp_path / "one", f"+method={method}", *PLAIN))
    process = on_two_processes(tmp_path / "two", f"+method={method}", *PLAIN)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert output.count("task  2/2") == 1
    two = Path(output.rstrip().rpartition("\n")[2])
    assert not _processes_of(tmp_path / "two")
    _assert_same_memory(one, two)
    _assert_close_figures(one, two)


@pytest.mark.parametrize("scheduler", ["torchrun", "slurm"])
def test_processes_that_somebody_else_starts(scheduler: str, tmp_path: Path) -> None:
    """Two nodes under torchrun, and two tasks of a SLURM job: the figures of the two that Lightning starts."""
    arguments = ("+method=replay", *PLAIN)
    own, port = on_two_processes(tmp_path / "own", *arguments), _free_port()
    others = [_member(scheduler, rank, port, tmp_path / "others", *arguments) for rank in range(2)]
    outputs = [process.communicate(timeout=120)[0] for process in (own, *others)]
    assert [process.returncode for process in (own, *others)] == [0, 0, 0], outputs
    assert outputs[1].count("task  2/2") == 1
    assert "task  2/2" not in outputs[2]
    results = [directory_of(tmp_path / folder) / "result.json" for folder in ("own", "others")]
    assert_same_outcome(*results)


def test_a_slurm_trainer_outside_of_slurm(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mmcl.run", *tiny(tmp_path, "+method=replay", "trainer=ddp_slurm")]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    ended = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 2, ended.stderr
    assert "srun python -m mmcl.run trainer=ddp_slurm" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not list(tmp_path.iterdir())


def test_killed_on_two_processes_and_started_again(tmp_path: Path) -> None:
    arguments = ("+method=replay", *PLAIN)
    first = on_two_processes(tmp_path / "killed", *arguments)
    while first.poll() is None and not _reached(tmp_path / "killed", "\n1,representation,1,"):
        time.sleep(0.002)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert first.returncode == -signal.SIGKILL
    _wait_for_end_of_processes(tmp_path / "killed")
    again = on_two_processes(tmp_path / "killed", *arguments)
    undisturbed = on_two_processes(tmp_path / "undisturbed", *arguments)
    results = []
    for process in (again, undisturbed):
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output
        results.append(Path(output.rstrip().rpartition("\n")[2]))
    assert_same_outcome(*results)


def test_a_loss_that_is_not_finite_stops_both(tmp_path: Path) -> None:
    process = on_two_processes(tmp_path, "+method=finetune", *PLAIN, "method.first_task.lr=1e30")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 2, output
    assert "is not finite in task 1, stage representation, epoch 0" in output
    assert read(directory_of(tmp_path) / "result.json")["status"] == "failed"
    _wait_for_end_of_processes(tmp_path)


def on_two_processes(runs: Path, *overrides: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "mmcl.run", *tiny(runs, *overrides, "trainer=ddp_cpu", "trainer.devices=2")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return subprocess.Popen(
        command, cwd=CHECKOUT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def _member(scheduler: str, rank: int, port: str, runs: Path, *overrides: str) -> subprocess.Popen[str]:
    """Start one of two processes as torchrun or srun would."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    if scheduler == "torchrun":
        node = ["--nnodes", "2", "--node_rank", str(rank), "--nproc_per_node", "1"]
        meeting = ["--master_addr", "127.0.0.1", "--master_port", port]
        launcher = ["-m", "torch.distributed.run", *node, *meeting, "-m", "mmcl.run"]
        words = ["trainer=ddp_cpu", "trainer.num_nodes=2", "trainer.devices=1"]
    else:
        tasks = {"NTASKS": "2", "NTASKS_PER_NODE": "2", "NNODES": "1", "PROCID": str(rank), "LOCALID": str(rank)}
        job = {"NODEID": "0", "JOB_ID": "4321", "JOB_NAME": "mmcl", "NODELIST": "localhost"}
        environment |= {f"SLURM_{name}": value for name, value in {**tasks, **job}.items()}
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        launcher = ["-m", "mmcl.run"]
        words = ["trainer=ddp_slurm", "trainer.accelerator=cpu", "trainer.sync_batchnorm=false"]
    command = [sys.executable, *launcher, *tiny(runs, *overrides, *words)]
    return subprocess.Popen(
        command, cwd=CHECKOUT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def _free_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def _assert_same_memory(one: Path, two: Path) -> None:
    ours, theirs = (StateFile(result.parent / "state").load().method for result in (one, two))
    assert ours is not None
    assert theirs is not None
    for name in ("labels", "sources", "images"):
        assert torch.equal(ours["memory._extra_state"][name], theirs["memory._extra_state"][name])


def _assert_close_figures(one: Path, two: Path) -> None:
    ours, theirs = metric_rows(one.parent), metric_rows(two.parent)
    assert ours.keys() == theirs.keys()
    for position, value in ours.items():
        assert math.isclose(float(value), float(theirs[position]), rel_tol=0, abs_tol=TOLERANCE), position
    for readout in read(one)["readouts"]:
        counts = [_counted(result.parent / f"confusion_{readout}.csv") for result in (one, two)]
        assert counts == [355, 355]
        matrices = [torch.tensor(_matrix(result, readout)) for result in (one, two)]
        torch.testing.assert_close(*matrices, rtol=0, atol=TOLERANCE, equal_nan=True)
    assert read(one)["bytes"] == read(two)["bytes"]


def _matrix(result: Path, readout: str) -> list[list[float]]:
    rows = read(result)["readouts"][readout]["accuracy_matrix"]
    return [[math.nan if value is None else value for value in row] for row in rows]


def _counted(confusion: Path) -> int:
    return sum(int(count) for line in confusion.read_text().splitlines() for count in line.split(","))


def _reached(runs: Path, words: str) -> bool:
    return any(words in file.read_text() for file in runs.rglob("metrics.csv"))


def _processes_of(runs: Path) -> list[int]:
    """Return the processes that have the folder in their command line."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if os.fsencode(runs) in command:
            found.append(int(process.name))
    return found


def _wait_for_end_of_processes(runs: Path, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while _processes_of(runs):
        assert time.monotonic() < deadline, "a process outlived its run"
        time.sleep(0.05)
