"""A job that many runs are made of: a plain run in a process of its own.

Inside Hydra's launchers, processes that Lightning starts would take over the sweep's arguments: each could train with
other hyper-parameters. A process of its own has clean arguments, a clean device and cannot take the others down.
"""

from __future__ import annotations

import ctypes
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hydra.errors import CompactHydraException

from mmcl.errors import INTERRUPTED, PREEMPTED, TOGETHER_SECONDS
from mmcl.launch.jobs import Terminated, terminated_as_interrupt

# Which of several processes this one is, for those that it starts are runs of their own.
INHERITED = ("LOCAL_RANK", "NODE_RANK", "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "PL_GLOBAL_SEED")
PROGRAM = "mmcl.run"
SECONDS_BETWEEN_LOOKS = 0.1
# What prctl calls "send me a signal when my parent dies".
PR_SET_PDEATHSIG = 1


class JobFailedError(CompactHydraException):
    """A job of a sweep ended with an exit code other than 0; the other jobs go on. Hydra shows its words alone."""


def plain_command(overrides: Sequence[str]) -> str:
    """Return what to type for one job alone."""
    return f"python -m mmcl.run {shlex.join(overrides)}"


def start_plain_run(
    arguments: Sequence[str], changes: Mapping[str, str] | None = None, left_out: Sequence[str] = (), **how: Any
) -> subprocess.Popen[bytes]:
    """Start ``python -m mmcl.run`` with arguments; it does not outlive this process, even one that is killed.

    Args:
        arguments: flags and overrides.
        changes: variables of its environment that differ from those here.
        left_out: variables that it does not inherit, beside those that say which process this one is.
        how: further arguments of ``Popen``.
    """
    command = [sys.executable, "-m", PROGRAM, *arguments]
    dropped = {*INHERITED, *left_out}
    environment = {name: value for name, value in os.environ.items() if name not in dropped}
    return subprocess.Popen(command, env=environment | dict(changes or {}), preexec_fn=ends_with_parent(), **how)


def run_as_plain_run(arguments: Sequence[str]) -> None:
    """Run a job in a process of its own and wait for it; what ends this process asks the job to save and stop.

    Raises:
        JobFailedError: with the command to type for this job alone.
        KeyboardInterrupt: the job was interrupted, or asked to stop, and goes on with the same command.
    """
    sys.stdout.write(f"\n# {' '.join(arguments)}\n")
    sys.stdout.flush()
    with terminated_as_interrupt():
        process = start_plain_run(arguments)
        try:
            code = process.wait()
        except BaseException:
            wait_for_end([process])
            raise
    if code == PREEMPTED:
        raise Terminated
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    if code:
        raise JobFailedError(f"{ending(code)} from: {plain_command(arguments)}")


def wait_for_end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Ask processes to save and stop, and wait until they have; whoever is impatient interrupts again and kills them.

    Raises:
        KeyboardInterrupt: once more, before all had ended.
    """
    began = time.monotonic()
    try:
        for process in processes:
            process.terminate()
        while any(process.poll() is None for process in processes):
            try:
                time.sleep(SECONDS_BETWEEN_LOOKS)
            except Terminated:
                if time.monotonic() - began > TOGETHER_SECONDS:
                    raise
    except BaseException:
        for process in processes:
            process.kill()
            process.wait()
        raise


def ending(code: int) -> str:
    """Say how a process ended that did not end well."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def ends_with_parent() -> Callable[[], None] | None:
    """Return what a child calls before it becomes another program; None where only Linux could do it."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl  # loaded here: a child between two programs should do as little as it can
    return lambda: prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))
