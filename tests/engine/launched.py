"""``python -m mmcl.run`` in a process of its own, which a test may kill or make stumble at a chosen moment.

The processes are forked from a server that has imported the package, so that each starts in an instant.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

LIMIT_SECONDS = 120
_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(["mmcl.run", "torchmetrics", "sklearn.datasets", "tests.engine.launched"])


class Ended(NamedTuple):
    """How a process ended: its exit code, ``-9`` after SIGKILL, and all that it printed."""

    code: int | None
    output: str

    @property
    def last_line(self) -> str:
        """The last line printed."""
        return self.output.rstrip().rpartition("\n")[2]


def launch(arguments: list[str], mischief: Callable[[], None] | None = None) -> Ended:
    """Run with the arguments and wait for the end; ``mischief`` is called in the process before the run."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        process = start(arguments, log, mischief)
        process.join(LIMIT_SECONDS)
        if process.is_alive():
            process.kill()
            raise TimeoutError(log.read_text())
        return Ended(process.exitcode, log.read_text())


def start(arguments: list[str], log: Path, mischief: Callable[[], None] | None = None) -> BaseProcess:
    """Start a run, which prints into a file."""
    log.touch()
    process = _server.Process(target=_main, args=(arguments, str(log), mischief))
    process.start()
    return process


def _main(arguments: list[str], log: str, mischief: Callable[[], None] | None) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
    import torch

    from mmcl import run

    torch.set_num_threads(1)
    sys.argv = ["mmcl", *arguments]
    if mischief is not None:
        mischief()
    try:
        run.main()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
