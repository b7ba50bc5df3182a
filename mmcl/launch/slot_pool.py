"""Many runs on the slots of one machine: each in a process of its own, as many at once as there are slots."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmcl.errors import PREEMPTED
from mmcl.launch.isolation import SECONDS_BETWEEN_LOOKS, ending, plain_command, start_plain_run, wait_for_end
from mmcl.launch.jobs import Job, Outcome, longest_first
from mmcl.launch.slots import Slot

REQUEUES = 10
# Which task of a SLURM job this process is; a run in a slot is none of them.
OF_A_SLURM_TASK = re.compile(r"^SLURM_(NTASKS|NTASKS_PER_NODE|NPROCS|NNODES|PROCID|LOCALID|NODEID|STEP_.*)$")
SHOWN_CHARACTERS = 300


@dataclass
class _Running:
    """A job at work."""

    job: Job
    slot: Slot
    log: Path
    process: subprocess.Popen[bytes]
    began: float


def run_in_slots(
    jobs: Sequence[Job],
    slots: Sequence[Slot],
    logs: Path,
    *,
    requeues: int = REQUEUES,
    flags: Sequence[str] = (),
    say: Callable[[str], None] | None = None,
) -> Iterator[Outcome]:
    """Run jobs, longest first, and yield what came of each as they end; a failed one does not stop the others.

    A job that was preempted is put back, and goes on where it was; any other failure is final. What interrupts this
    process, or ends it by SIGTERM where :func:`~mmcl.launch.jobs.terminated_as_interrupt` watches, asks the jobs to
    save and stop; a second time kills them. The same runs go on from their checkpoints.

    Args:
        jobs: what to run; their names are those of their logs.
        slots: where.
        logs: folder for what the jobs print; a job that runs again adds to its log.
        requeues: how often a preempted job is put back.
        flags: flags for every job, such as ``--config-dir mine``.
        say: told in a line what begins where, and what is put back; None prints it.
    """
    pool = _Pool(list(reversed(longest_first(list(jobs)))), logs, tuple(flags), requeues, say or _print)
    free = list(reversed(slots))
    try:
        while pool.waiting or pool.running:
            while free and pool.waiting:
                pool.begin(free.pop())
            ended = [running for running in pool.running if running.process.poll() is not None]
            for running in ended:
                free.append(running.slot)
                outcome = pool.ended(running)
                if outcome is not None:
                    yield outcome
            if not ended:
                time.sleep(SECONDS_BETWEEN_LOOKS)
    finally:
        wait_for_end([running.process for running in pool.running])


class _Pool:
    """What waits, what runs, and how often each job was put back."""

    def __init__(
        self, waiting: list[Job], logs: Path, flags: Sequence[str], requeues: int, say: Callable[[str], None]
    ) -> None:
        self.waiting, self.logs, self.flags, self.requeues, self.say = waiting, logs, flags, requeues, say
        self.running: list[_Running] = []
        self.put_back: dict[str, int] = {}
        self.count = len(waiting)
        self.started = 0
        logs.mkdir(parents=True, exist_ok=True)

    def begin(self, slot: Slot) -> None:
        """Start the next job in a session of its own: a key at the terminal interrupts this process alone."""
        job = self.waiting.pop()
        path = self.logs / f"{job.name}.log"
        # What was begun afresh goes on when it is put back.
        again = job.name in self.put_back
        words = [word for word in job.overrides if not (again and word.lstrip("+").startswith("force="))]
        if not again:
            self.started += 1
            self.say(f"[{self.started}/{self.count}] {slot.name}: log {path}")
        inherited = [name for name in os.environ if OF_A_SLURM_TASK.match(name)]
        with path.open("ab") as log:
            log.write(f"# {slot.name}: {plain_command(words)}\n".encode())
            log.flush()
            process = start_plain_run(
                [*self.flags, *words],
                slot.environment,
                inherited,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.running.append(_Running(job, slot, path, process, time.perf_counter()))

    def ended(self, running: _Running) -> Outcome | None:
        """Return what came of a job whose process has ended; None where it is put back."""
        self.running.remove(running)
        job, code = running.job, running.process.returncode
        seconds = time.perf_counter() - running.began
        if code == 0:
            result = _result_named_in(running.log)
            error = "" if result else f"named no result.json. See {running.log}"
            return Outcome(job, result, error, seconds, running.log)
        times = self.put_back.get(job.name, 0) + 1
        if code == PREEMPTED and times <= self.requeues:
            self.put_back[job.name] = times
            self.say(f"preempted, put back ({times} of at most {self.requeues} times): log {running.log}")
            self.waiting.append(job)
            return None
        last = _last_words(running.log)
        if code == PREEMPTED:
            last = f"preempted {times} times, and put back no more than {self.requeues}"
        return Outcome(job, None, f"{ending(code)}: {last}", seconds, running.log)


def _result_named_in(log: Path) -> Path | None:
    """Return the result that a run named in its last lines; others of a program may follow, such as warnings."""
    for line in reversed(_tail(log)):
        path = Path(line.strip())
        if path.name == "result.json" and path.is_file():
            return path
    return None


def _last_words(log: Path) -> str:
    """Return the last message of a run that failed, or its last line."""
    lines = [line.strip() for line in _tail(log) if line.strip()]
    messages = [line for line in lines if line.startswith("mmcl: ")]
    return (messages or lines or ["printed nothing"])[-1][:SHOWN_CHARACTERS]


def _tail(log: Path) -> list[str]:
    """Return the lines of the last start."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith("# ")]
    return lines[starts[-1] + 1 if starts else 0 :]


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
