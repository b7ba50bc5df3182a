"""Versions of a file, whose names carry the digest of their content."""

from __future__ import annotations

import hashlib
import io
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from mmcl.whole_files import whole_file

log = logging.getLogger(__name__)


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

    def newest(self, before: int | None = None) -> Path | None:
        """Return the path of the newest version whose content has its digest, or None.

        Args:
            before: only versions with a lower number count; None takes all.
        """
        for path in self._newest_first():
            if before is not None and _number(path) >= before:
                continue
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


def on_cpu(value: Any) -> Any:
    """Return a part of a state, perhaps nested, whose tensors are detached copies or lie on the CPU."""
    if isinstance(value, dict):
        return {name: on_cpu(part) for name, part in value.items()}
    if isinstance(value, list):
        return [on_cpu(part) for part in value]
    return value.detach().cpu() if isinstance(value, torch.Tensor) else value
