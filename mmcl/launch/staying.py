"""Many small runs in a few processes that stay: a run of seconds need not wait for a start of seconds."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from multiprocessing.connection import Connection, wait
from pathlib import Path

from mmcl.errors import INTERRUPTED
from mmcl.launch.isolation import ending, ends_with_parent
from mmcl.launch.jobs import Job, Outcome

CONTEXT = multiprocessing.get_context("spawn")
SECONDS_TO_LEAVE = 10


def run_in_staying(jobs: Sequence[Job], count: int, logs: Path | None = None) -> Iterator[Outcome]:
    """Run jobs in ``count`` processes, each on one thread and without its lines; a failed one does not stop the others.

    A process that dies (of too little memory) fails its job alone; another takes its place. When whoever asked wants
    no more, what still runs is stopped; the same runs go on from their last checkpoint.

    Args:
        jobs: what to run, in this order.
        count: processes at the same time.
        logs: folder for what the jobs print; None throws it away.

    Yields:
        What came of each job, as they end.
    """
    waiting = list(reversed(jobs))
    workers = [_Worker(logs) for _ in range(min(count, len(jobs)))]
    try:
        for worker in workers:
            worker.begin(waiting.pop())
        for _ in jobs:
            ready = wait([worker.connection for worker in workers if worker.job is not None])
            worker = next(worker for worker in workers if worker.connection in ready)
            outcome = worker.outcome()
            if waiting:
                worker.begin(waiting.pop())
            yield outcome
    finally:
        for worker in workers:
            worker.stop()


class _Worker:
    """One process that stays, and the job that it works on."""

    def __init__(self, logs: Path | None) -> None:
        self.logs = logs
        self.job: Job | None = None
        self.began = 0.0
        self._start()

    def _start(self) -> None:
        self.connection, others_end = CONTEXT.Pipe()
        self.process = CONTEXT.Process(target=_serve, args=(others_end,))  # no daemon: those may not start readers
        self.process.start()
        others_end.close()

    def begin(self, job: Job) -> None:
        self.job, self.began = job, time.perf_counter()
        self.connection.send((job.overrides, self._log(job)))

    def outcome(self) -> Outcome:
        """Return what came of the job, once the connection is ready."""
        assert self.job is not None
        job, self.job = self.job, None
        result: Path | Exception
        try:
            result = self.connection.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            memory = ", perhaps of too little memory" if self.process.exitcode == -signal.SIGKILL else ""
            result = RuntimeError(f"its process died ({ending(self.process.exitcode or 0)}){memory}")
            self._start()
        seconds = time.perf_counter() - self.began
        if isinstance(result, Exception):
            return Outcome(job, None, str(result), seconds, self._log(job), result)
        return Outcome(job, result, "", seconds, self._log(job))

    def stop(self) -> None:
        """End the process: one without a job leaves by itself, one at work is cut off."""
        self.connection.close()
        if self.job is not None:
            self.process.terminate()
        self.process.join(SECONDS_TO_LEAVE)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()

    def _log(self, job: Job) -> Path | None:
        return None if self.logs is None else self.logs / f"{job.name}.log"


def _serve(connection: Connection) -> None:
    """Work on what comes, until the other end is gone."""
    end_with_parent = ends_with_parent()
    if end_with_parent is not None:
        end_with_parent()
    for number in (signal.SIGINT, signal.SIGTERM):  # a run goes on from its checkpoint, whenever it is cut off
        signal.signal(number, lambda *_: os._exit(INTERRUPTED))
    import torch

    torch.set_num_threads(1)
    while True:
        try:
            overrides, log = connection.recv()
        except EOFError:
            return
        try:
            answer: Path | Exception = _run(overrides, log)
        except Exception as error:  # noqa: BLE001 - told by whoever asked for the run
            answer = error if _crosses(error) else RuntimeError(f"{type(error).__name__}: {error}")
        connection.send(answer)


def _crosses(error: Exception) -> bool:
    """Whether an error survives the way to another process."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 - whatever an error's own code raises
        return False
    return True


def _run(overrides: Sequence[str], log: Path | None) -> Path:
    from mmcl.config.compose import compose_run
    from mmcl.config.method_files import load_method_files
    from mmcl.config.overrides import documented, normalise
    from mmcl.engine.assemble import run
    from mmcl.engine.provenance import command

    load_method_files()
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
    with open(log or os.devnull, "a", encoding="utf-8") as lines, redirect_stdout(lines), redirect_stderr(lines):
        config = compose_run([*overrides, "trainer.progress=false"])
        return run(config, command(documented(normalise(list(overrides)))))
