"""A sweep of 24 runs is cut off by SIGKILL at random moments and started again; its index equals an undisturbed one's.

python experiments/checks/cut_sweep.py --out /tmp/cut_sweep --cuts 3
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from mmcl.results.index import index_digest
from mmcl.results.store import find_results

SWEEP = (
    "+method=finetune,replay,icarl,wa,memo,der",
    "seed=1,2,3,4",
    "backbone=conv2",
    "method.first_task.epochs=2",
    "method.later_tasks.epochs=2",
    "trainer=cpu",
    "hydra/launcher=gpu_pool",
    "hydra.launcher.slots=2",
)


def start(runs: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start the sweep in a process group of its own, so that a signal meets all of it."""
    command = [sys.executable, "-m", "mmcl.run", "-m", *SWEEP, f"paths.runs={runs}"]
    with log.open("ab") as lines:
        return subprocess.Popen(command, stdout=lines, stderr=lines, start_new_session=True)


def finished(runs: Path) -> int:
    """Return how many runs have ended."""
    return sum(result.finished for result in find_results(runs)[0])


def main() -> None:
    """Run the sweep twice, once in peace and once cut off, and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for both stores; deleted by nobody")
    parser.add_argument("--cuts", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0, help="draws the moments")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True)
    undisturbed, cut = arguments.out / "undisturbed", arguments.out / "cut"
    began = time.perf_counter()
    code = start(undisturbed, arguments.out / "undisturbed.log").wait()
    seconds = time.perf_counter() - began
    print(f"undisturbed: exit code {code}, {finished(undisturbed)} runs in {seconds:.0f} s")
    draw = random.Random(arguments.seed)
    for number in range(arguments.cuts):
        process = start(cut, arguments.out / "cut.log")
        wait = draw.uniform(0.1, 0.9) * seconds / arguments.cuts
        time.sleep(wait)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(1)  # what was started by it notices
        print(f"cut {number + 1}: SIGKILL after {wait:.0f} s, {finished(cut)} runs finished")
    code = start(cut, arguments.out / "cut.log").wait()
    digests = [index_digest(folder) for folder in (undisturbed, cut)]
    print(f"cut: exit code {code}, {finished(cut)} runs; index {digests[1]}, undisturbed {digests[0]}")
    same = digests[0] == digests[1] and finished(undisturbed) == finished(cut) == 24
    print("same index" if same else "DIFFERENT")
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
