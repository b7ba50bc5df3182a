"""Fetch a data set once, whole or not at all, also when several processes start together."""

from __future__ import annotations

import os
import shutil
import socket
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

from filelock import FileLock

from mmcl.errors import UserError

SILENCE_SECONDS = 30.0
# What the network, the server, the archive or the disk can do to a download.
FAILURES = (OSError, RuntimeError, ValueError, EOFError, HTTPException, tarfile.TarError, zlib.error)


def fetch_folder(folder: Path, download: Callable[[str], object], advice: str) -> None:
    """Download a folder beside its place and move it there when it is complete.

    Args:
        folder: where it shall be. Another process that asks for it waits, then finds it.
        download: given a root, writes ``root/<folder.name>``.
        advice: for the error message: what is expected and what to type.

    Raises:
        UserError: the download failed. Nothing half-written stays.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / f".{folder.name}.lock"):
            _fetch_locked(folder, download)
    except FAILURES as error:
        raise UserError(f"cannot download {folder.name} into {folder.parent}: {error}. {advice}") from error


def _fetch_locked(folder: Path, download: Callable[[str], object]) -> None:
    if folder.exists():
        return  # another process was faster; if it is incomplete, reading says what is missing
    for abandoned in folder.parent.glob(f".{folder.name}.*.part"):
        shutil.rmtree(abandoned, ignore_errors=True)  # of a process that was killed: the lock is ours
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".part", dir=folder.parent))
    try:
        with _give_up_on_silence():
            download(str(part))
        os.replace(part / folder.name, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


@contextmanager
def _give_up_on_silence() -> Iterator[None]:
    """Make a connection that hangs fail, as torchvision sets no time limit."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SILENCE_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
