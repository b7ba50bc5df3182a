"""The command ``mmcl verify``: is a result what the run's kept answers, its checkpoint and the code give?"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from mmcl.errors import UserError

console = Console(highlight=False, soft_wrap=True)


def add_verify_command(commands: Any) -> None:
    """Add ``verify`` to the commands of ``mmcl``."""
    verify = commands.add_parser(
        "verify",
        help="recompute a run's figures from its kept answers and its checkpoint",
        description="Exit code 0: all is as result.json says; 1: something differs or could not be checked; 2: no run.",
    )
    verify.add_argument("run", type=Path, metavar="RUN", help="directory of a finished run, or its result.json")
    verify.add_argument(
        "--without-checkpoint", action="store_true", help="do not answer the last task again, which needs the data"
    )
    verify.add_argument(
        "overrides", nargs="*", metavar="paths.NAME=FOLDER", help="what lies elsewhere here, such as paths.data=~/data"
    )
    verify.set_defaults(action=_verify)


def _verify(parsed: argparse.Namespace) -> int:
    """Print a line for each check."""
    moved = _moved(parsed.overrides)
    from mmcl.engine.run_record import read_run
    from mmcl.engine.verify import exit_code, verify_run

    checks = []
    for check in verify_run(read_run(parsed.run, moved), with_checkpoint=not parsed.without_checkpoint):
        console.print(f"{check.verdict:<12} {check.what:<11} {check.words}", markup=False)
        checks.append(check)
    return exit_code(checks)


def _moved(words: Sequence[str]) -> dict[str, str]:
    """Read ``paths.<name>=<folder>``."""
    moved = {}
    for word in words:
        key, _, folder = word.partition("=")
        if not key.startswith("paths.") or not folder:
            raise UserError(f"{word}: only paths may differ from the run's. Type for example: paths.data=~/data")
        moved[key.removeprefix("paths.")] = folder
    return moved
