"""A job of a sweep re-executes itself as a plain run.

Inside Hydra's launchers, processes that Lightning starts would take over the sweep's arguments: each could train with
other hyper-parameters. A process of its own has clean arguments, a clean device and cannot take the sweep down.
"""

from __future__ import annotations

import os
import subprocess
import sys

INHERITED = ("LOCAL_RANK", "NODE_RANK", "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "PL_GLOBAL_SEED")


class JobFailedError(RuntimeError):
    """A job of a sweep ended with an exit code other than 0; the other jobs go on."""


def run_as_plain_run(arguments: list[str]) -> None:
    """Run a job by ``python -m mmcl.run`` with its arguments and wait for it.

    Raises:
        JobFailedError: with the command to type for this job alone.
    """
    command = [sys.executable, "-m", "mmcl.run", *arguments]
    environment = {name: value for name, value in os.environ.items() if name not in INHERITED}
    sys.stdout.write(f"\n# {' '.join(arguments)}\n")
    sys.stdout.flush()
    code = subprocess.run(command, env=environment, check=False).returncode
    if code:
        raise JobFailedError(f"exit code {code} from: python -m mmcl.run {' '.join(arguments)}")
