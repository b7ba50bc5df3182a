"""Files that are whole or not there, and versions of a file whose names carry the digest of their content."""

from __future__ import annotations

import errno
import hashlib
import io
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from mmcl.errors import UserError

log = logging.getLogger(__name__)


@contextmanager
def disk_space(folder: Path) -> Iterator[None]:
    """Guard the writing of a file in a folder.

    Raises:
        UserError: the disk is full; what was there before is untouched.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(
            f"no space left while writing in {folder}. What was saved before is intact: free some space and type the "
            "same command again to go on"
        ) from error


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


def tensors(content: object) -> Callable[[Path], None]:
    """Return what saves content for ``torch.load``; a full disk is an OSError, which ``torch.save`` to a path hides."""

    def save(part: Path) -> None:
        buffer = io.BytesIO()
        torch.save(content, buffer)
        part.write_bytes(buffer.getbuffer())

    return save


class Versions:
    """Successive versions of one file. The newest good one is read; a damaged one is named and passed over.

    Args:
        folder: where they lie.
        stem: beginning of their names, followed by number and digest.
        keep: how many stay when a new one is written.
    """

    def __init__(self, folder: Path, stem: str, keep: int = 2) -> None:
        self.folder, self.stem, self.keep = folder, stem, keep

    def write(self, number: int, save: Callable[[Path], None]) -> None:
        """Let ``save`` write version ``number``, whole or not at all; versions beyond ``keep`` are deleted.

        Others of the same number or a higher one were damaged, or they would have been read: they go, too.
        """
        with whole_file(self.folder / f".{self.stem}.part") as part:
            save(part)
            written = self.folder / f"{self.stem}-{number:06d}-{_digest(part)}.pt"
            os.replace(part, written)
        for damaged in self._newest_first():
            if damaged != written and _number(damaged) >= number:
                damaged.unlink()
        for old in self._newest_first()[self.keep :]:
            old.unlink()

    def newest(self) -> Path | None:
        """Return the path of the newest version whose content has its digest, or None."""
        for path in self._newest_first():
            if path.stem.rsplit("-", 1)[1] == _digest(path):
                return path
            log.warning("%s is damaged; falling back to the version before", path)
        return None

    def clear(self) -> None:
        """Delete all versions."""
        for path in self._newest_first():
            path.unlink()

    def _newest_first(self) -> list[Path]:
        return sorted(self.folder.glob(f"{self.stem}-*.pt"), reverse=True)


def _number(path: Path) -> int:
    return int(path.stem.rsplit("-", 2)[1])


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()[:16]
