"""Runs as jobs of a SLURM cluster, through submitit (``pip install mmcl[slurm]``)."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmcl.errors import PREEMPTED, UserError
from mmcl.launch.isolation import ending, start_plain_run, wait_for_end
from mmcl.launch.jobs import Job, Outcome
from mmcl.whole_files import write_whole

SECONDS_BETWEEN_LOOKS = 5.0
SUBMITTED = "submitted.json"


class PlainRun:
    """What a job of the cluster does: ``python -m mmcl.run`` in a process of its own.

    Args:
        overrides: what is typed after it.
    """

    def __init__(self, overrides: Sequence[str]) -> None:
        self.overrides = tuple(overrides)

    def __call__(self) -> tuple[int, str]:
        """Run, and return the exit code and the last line, which is the path of ``result.json``."""
        process = start_plain_run(self.overrides, stdout=subprocess.PIPE)
        try:
            printed = process.communicate()[0].decode(errors="replace")
        except BaseException:  # submitit leaves its handler of signals by an exit
            wait_for_end([process])
            raise
        sys.stdout.write(printed)
        return process.returncode, (printed.strip().splitlines() or [""])[-1]

    def checkpoint(self) -> Any:
        """Return what submitit puts back into the queue when the job is preempted or runs out of time."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def run_on_slurm(
    jobs: Sequence[Job], folder: Path, parameters: Mapping[str, str | int], cluster: str = "slurm"
) -> Iterator[Outcome]:
    """Submit jobs as one array and wait for them; an interrupt leaves them in the queue.

    What was submitted stands in ``<folder>/submitted.json``: the same call finds jobs that are still in the queue or
    at work instead of submitting them twice.

    Args:
        jobs: what to run.
        folder: folder for submitit's files, which all nodes see.
        parameters: of submitit's executor, such as ``slurm_partition``, ``timeout_min``, ``gpus_per_node``.
        cluster: ``slurm``; ``local`` starts processes on this machine, to try things out.

    Yields:
        What came of each job, as they end.

    Raises:
        UserError: submitit or SLURM is not here, or a parameter is unknown.
    """
    executor = _executor(folder, parameters, cluster)
    record = _read(folder / SUBMITTED)
    again = {job.name: executor.job_class(folder, record[job.name]) for job in jobs if job.name in record}
    handles = {name: handle for name, handle in again.items() if not handle.done()}
    new = [job for job in jobs if job.name not in handles]
    if new:
        with executor.batch():
            submitted = [executor.submit(PlainRun(job.overrides)) for job in new]
        handles |= {job.name: handle for job, handle in zip(new, submitted, strict=True)}
        record |= {name: handle.job_id for name, handle in handles.items()}
        write_whole(folder / SUBMITTED, lambda part: part.write_text(json.dumps(record, indent=1)))
    yield from _outcomes({job.name: job for job in jobs}, handles)


def _outcomes(jobs: Mapping[str, Job], handles: dict[str, Any]) -> Iterator[Outcome]:
    began = time.perf_counter()
    waiting = dict(handles)
    while waiting:
        for name, handle in list(waiting.items()):
            if handle.done():
                del waiting[name]
                yield _outcome(jobs[name], handle, time.perf_counter() - began)
        if waiting:
            time.sleep(SECONDS_BETWEEN_LOOKS)


def _outcome(job: Job, handle: Any, seconds: float) -> Outcome:
    log = Path(handle.paths.stderr)
    try:
        code, last_line = handle.result()
    except Exception as error:  # noqa: BLE001 - whatever submitit says of a job that did not end by itself
        return Outcome(job, None, f"{type(error).__name__}: {str(error).strip()}", seconds, log)
    if code:
        words = ", preempted; the same command goes on" if code == PREEMPTED else ""
        return Outcome(job, None, f"{ending(code)}{words}", seconds, log)
    return Outcome(job, Path(last_line), seconds=seconds, log=log)


def _executor(folder: Path, parameters: Mapping[str, str | int], cluster: str) -> Any:
    try:
        import submitit
    except ImportError as error:
        raise UserError("--launcher slurm needs submitit. Type: pip install 'mmcl[slurm]'") from error
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
    except RuntimeError as error:
        raise UserError(f"--launcher slurm: {error} On a machine without SLURM: --launcher gpu_pool") from error
    try:
        executor.update_parameters(name="mmcl", **parameters)
    except (TypeError, NameError, ValueError) as error:
        raise UserError(f"--slurm: {error}. Such as: --slurm slurm_partition=gpu,timeout_min=600") from error
    return executor


def _read(path: Path) -> dict[str, str]:
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}
