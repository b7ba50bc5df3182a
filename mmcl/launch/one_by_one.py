"""Runs one after the other, each in a process of its own that shows its lines."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

from mmcl.launch.isolation import ending, plain_command, start_plain_run, wait_for_end
from mmcl.launch.jobs import Job, Outcome, Terminated

SECONDS_TO_STOP = 30


def run_one_by_one(jobs: Sequence[Job], console: Console) -> Iterator[Outcome]:
    """Run jobs in this order and show what they print; yield what came of each."""
    for number, job in enumerate(jobs, start=1):
        console.print(f"[{number}/{len(jobs)}] {plain_command(job.overrides)}", style="bold", markup=False)
        began = time.perf_counter()
        code, last_line = _run(job.overrides, console)
        seconds = time.perf_counter() - began
        path = Path(last_line)
        if code == 0 and path.name == "result.json" and path.is_file():
            yield Outcome(job, path, seconds=seconds)
        else:
            error = ending(code) if code else f"named no result.json, but {last_line!r}"
            yield Outcome(job, None, error, seconds)


def _run(overrides: Sequence[str], console: Console) -> tuple[int, str]:
    """Return the exit code and the last line of a run."""
    last_line = ""
    with start_plain_run(overrides, stdout=subprocess.PIPE) as process:
        try:
            for line in process.stdout or ():
                text = line.decode(errors="replace").rstrip()
                last_line = text.strip() or last_line
                console.print(text, markup=False)
            return process.wait(), last_line
        except Terminated:
            wait_for_end([process])
            raise
        except KeyboardInterrupt:
            _stop(process)
            raise


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Wait for a process that got the same interrupt from the terminal; end it if it does not."""
    try:
        process.wait(SECONDS_TO_STOP)
    except subprocess.TimeoutExpired:
        process.terminate()
        process.wait()
