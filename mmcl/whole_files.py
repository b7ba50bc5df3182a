"""Files that are whole or not there, whatever happens while they are written."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mmcl.errors import UserError


@contextmanager
def disk_space(folder: Path) -> Iterator[None]:
    """Guard the writing of a file in a folder.

    Raises:
        UserError: the disk is full, or the folder cannot be written; what was there before is untouched.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"no space left while writing in {folder}. What was saved before is intact: free some space and type "
                "the same command again to go on"
            ) from error
        if error.errno in (
            errno.EACCES,
            errno.EPERM,
            errno.EROFS,
            errno.ENOTDIR,
            errno.EEXIST,
            errno.EISDIR,
            errno.ENOENT,
        ):
            raise UserError(
                f"cannot write in {folder}: {error.strerror}. Name another file or folder (paths.runs, paths.cache)"
            ) from error
        raise


@contextmanager
def whole_file(part: Path) -> Iterator[Path]:
    """Guard the writing of a temporary file that is renamed when it is whole; it vanishes if anything fails.

    Raises:
        UserError: the disk is full; what was there before is untouched.
    """
    with disk_space(part.parent):
        part.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
        finally:
            part.unlink(missing_ok=True)


def write_whole(path: Path, save: Callable[[Path], object]) -> None:
    """Let ``save`` replace a file, whole or not at all."""
    with whole_file(path.with_name(f".{path.name}.part")) as part:
        save(part)
        os.replace(part, path)
