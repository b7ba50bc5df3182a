"""Where results lie: every ``result.json`` below a folder, found without a look into folders that cannot hold any."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

RESULT = "result.json"
NEVER_ENTERED = ("cache", "__pycache__")  # nor hidden folders
RUN_FOLDERS = ("state", "traces", "predictions", "wandb", "memories", "before", "failed")  # what runs fill
OF_A_RUN = {RESULT, "identity.json"}  # a folder with one of these is a run's directory


@dataclass(frozen=True)
class Found:
    """A ``result.json`` of the folder: its time of change in ns and its size in bytes."""

    path: Path
    mtime_ns: int
    size: int


def scan(root: Path) -> tuple[dict[str, Found], list[str]]:
    """Find every ``result.json`` below a folder.

    Folders are not entered if they are hidden, called ``cache``, or filled by a run beside its ``result.json``
    (``RUN_FOLDERS``). Links to folders are not followed.

    Returns:
        The files by their path from the folder, and one line for each folder that could not be searched.
    """
    files: dict[str, Found] = {}
    problems: list[str] = []
    folders = [(str(root), "")]
    while folders:
        folder, key = folders.pop()
        try:
            with os.scandir(folder) as entries:
                content = {entry.name: entry for entry in entries}
            if RESULT in content and content[RESULT].is_file():
                status = content[RESULT].stat()
                path = Path(content[RESULT].path)
                files[storable(key + RESULT)] = Found(path, status.st_mtime_ns, status.st_size)
        except FileNotFoundError:
            continue
        except OSError as error:
            problems.append(f"{folder}: skipped: {error.strerror}")
            continue
        passed = (*NEVER_ENTERED, *RUN_FOLDERS) if OF_A_RUN & content.keys() else NEVER_ENTERED
        folders += [
            (entry.path, f"{key}{name}/")
            for name, entry in content.items()
            if name not in passed and name[0] != "." and entry.is_dir(follow_symlinks=False)
        ]
    return files, problems


def storable(text: str) -> str:
    """Return text that has a UTF-8 form, whatever a file or its name says."""
    return text.encode("utf-8", "backslashreplace").decode()
