"""The result store: every ``result.json`` below a folder, checked. Stores merge by copying folders."""

from __future__ import annotations

import re
from pathlib import Path

from mmcl.errors import UserError
from mmcl.results.index import Listed, ask
from mmcl.results.result import GROUPS_WITHOUT_INFLUENCE, TEST, Result, decides, read_result
from mmcl.results.result_files import RESULT, scan

__all__ = ["GROUPS_WITHOUT_INFLUENCE", "TEST", "Result", "decides", "find_results", "find_run", "read_result"]
IDENTITY = re.compile("[0-9a-f]{4,16}")
SHOWN = 5  # of many that may be meant


def find_results(root: Path | str) -> tuple[list[Result], list[str]]:
    """Read every ``result.json`` below a folder, oldest first.

    An index in the folder (``mmcl.results.index``) spares reading what has not changed since. Which folders are not
    searched stands in ``mmcl.results.result_files``. A copy of a run is a result of its own; tables count the newest of
    each seed.

    Returns:
        The results, and one line for each file that was skipped: half-written, foreign or of another layout.
    """
    return ask(root, lambda index: (index.results(), index.problems()))


def find_run(name: str, runs: Path | str = "runs") -> Result:
    """Return the result that a user names.

    Args:
        name: directory of a run, its ``result.json``, or the first digits of an identity, four or more.
        runs: folder below which an identity is looked for; of several copies the newest is taken.

    Raises:
        UserError: nothing or several runs have that name, or the file is not whole or not of this layout.
    """
    path = Path(name).expanduser()
    if not path.exists() and IDENTITY.fullmatch(name):
        path = _with_identity(name, Path(runs).expanduser())
    if path.is_dir():
        path = _result_in(path)
    try:
        return read_result(path)
    except FileNotFoundError as error:
        raise UserError(
            f"{name}: no such run. Name the directory of a run, its result.json, or the first digits of its identity. "
            f"Type: mmcl index {runs}"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: no result of a run: {error}. Name another run, or run it again") from error


def _with_identity(beginning: str, runs: Path) -> Path:
    listed: list[Listed] = ask(runs, lambda index: index.with_identity(beginning))
    identities = sorted({run.identity for run in listed})
    if not listed:
        raise UserError(
            f"{beginning}: no run below {runs} has an identity that begins so. Another folder: --runs FOLDER"
        )
    if len(identities) > 1:
        shown = ", ".join(identities[:SHOWN]) + (", ..." if len(identities) > SHOWN else "")
        raise UserError(f"{beginning}: {len(identities)} runs begin so: {shown}. Type more digits")
    return listed[-1].path


def _result_in(folder: Path) -> Path:
    path = folder / RESULT
    if path.is_file():
        return path
    below = sorted(found.path.parent for found in scan(folder)[0].values())
    hint = f"Name a run below it, such as {below[0]}" if below else "Name the directory of a run"
    raise UserError(f"{folder}: no {RESULT} in it. {hint}")
