"""Features of frozen encoders in memory-mapped files, found by what they were made from.

An entry is a folder ``<name>-<key>`` with ``features.npy``, one small file for each further array, and ``meta.json``.
It is written beside its place and moved there when it is whole; so what lies there was whole once, and what became of
it since is checked when it is found.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import platform
import re
import shutil
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mmcl.errors import UserError, nearest
from mmcl.features.fingerprint import digest_file, digest_of
from mmcl.whole_files import disk_space

log = logging.getLogger(__name__)
VERSION = 1
VERIFIED_BYTES = 2**28  # entries up to this size are read whole before they are used
FEATURES, META = "features.npy", "meta.json"
_SHOWN = 16
_JOINED_BYTES = 1 << 26


@dataclass(frozen=True)
class Wanted:
    """What is asked of the cache.

    Attributes:
        name: words for the listing, such as ``dtd-test``.
        description: everything that the features depend on, as plain types; the key is its digest.
        shape: of the features, the rows first.
        dtype: of the features, ``float16`` or ``float32``.
    """

    name: str
    description: Mapping[str, Any]
    shape: tuple[int, ...]
    dtype: str

    @property
    def key(self) -> str:
        """Digest of all that the features depend on."""
        return digest_of({"version": VERSION, "shape": self.shape, "dtype": self.dtype, **self.description})

    @property
    def folder_name(self) -> str:
        """Name of the entry's folder."""
        return f"{re.sub(r'[^A-Za-z0-9._-]+', '_', self.name)}-{self.key[:_SHOWN]}"


class Entry(NamedTuple):
    """One entry as the listing shows it; ``nbytes`` counts all of its files, ``date`` is when it was written."""

    name: str
    path: Path
    shape: tuple[int, ...]
    dtype: str
    nbytes: int
    date: str


class Stored(NamedTuple):
    """An entry's content: ``features`` mapped from the file and read-only, and the further ``arrays`` by name."""

    features: Tensor
    arrays: dict[str, Tensor]


class PartWriter:
    """Writes rows of features one batch after the other into a ``.npy`` file, through ordinary writes.

    (A write to a mapped file would end the process where the disk is full.)

    Args:
        path: the file.
        shape: of all that will be written, the rows first.
        dtype: ``float16`` or ``float32``.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: str) -> None:
        self.path, self.shape, self.dtype = path, shape, np.dtype(dtype)
        with disk_space(path.parent):
            self._file = path.open("wb")
            _write_header(self._file, shape, self.dtype)

    def write(self, features: Tensor) -> None:
        """Append rows.

        Raises:
            UserError: the disk is full, or a number is not finite in the cache's type.
        """
        rows = features.detach().to("cpu", torch.float32).numpy()
        with np.errstate(over="ignore"):
            rows = np.ascontiguousarray(rows, self.dtype)
        if not np.isfinite(rows).all():
            raise UserError(
                f"the encoder gives features that are not finite as {self.dtype}. Type benchmark.features_precision="
                "float32 and trainer.precision=32-true; if it stays so, the weights are damaged"
            )
        with disk_space(self.path.parent):
            self._file.write(rows.data)

    def close(self) -> None:
        """Finish the file."""
        with disk_space(self.path.parent):
            self._file.close()


class FeatureCache:
    """A folder of entries.

    One process looks for entries and writes them; others may read. Two runs may make the same entry at the same time:
    the first to finish wins.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._verified: set[Path] = set()

    # ------------------------------------------------------------------ reading

    def find(self, wanted: Wanted) -> bool:
        """Say whether a whole entry is there; what is truncated or of another key is removed."""
        path = self.folder / wanted.folder_name
        if not path.exists():
            return False
        fault = _fault(path, wanted) or self._checksum_fault(path)
        if fault:
            log.warning("%s is %s; it is made again", path, fault)
            _remove(path)
        return not fault

    def _checksum_fault(self, path: Path) -> str:
        """Compare checksums, once in a process; of large entries ``mmcl cache verify`` does it on demand."""
        entry = _entry(path)
        if path in self._verified or entry is None or entry.nbytes > VERIFIED_BYTES:
            return ""
        if not self.verify(path.name):
            return "damaged (its checksum is another)"
        self._verified.add(path)
        return ""

    def read(self, wanted: Wanted) -> Stored:
        """Return an entry that :meth:`find` has found."""
        path = self.folder / wanted.folder_name
        names = json.loads((path / META).read_text())["files"]
        arrays = {Path(name).stem: torch.from_numpy(np.load(path / name)) for name in names if name != FEATURES}
        return Stored(_mapped(path / FEATURES), arrays)

    def list_entries(self) -> list[Entry]:
        """Return all entries by name, with sizes and dates."""
        return [entry for path in sorted(self.folder.glob(f"*/{META}")) if (entry := _entry(path.parent))]

    def verify(self, name: str) -> bool:
        """Compare the checksums of all files of an entry; this reads every byte."""
        path = self.folder / name
        files = json.loads((path / META).read_text())["files"]
        return all(digest_file(path / file) == facts["sha256"] for file, facts in files.items())

    # ------------------------------------------------------------------ writing

    def begin(self, wanted: Wanted) -> Path:
        """Return a new temporary folder for the parts of an entry."""
        part = self.folder / f".{wanted.folder_name}.{platform.node()}.{os.getpid()}.part"
        with disk_space(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._remove_leftovers(f".{wanted.folder_name}.*.part")
            _remove(part)
            part.mkdir()
        return part

    def commit(self, wanted: Wanted, part: Path, arrays: Mapping[str, Tensor], processes: int = 1) -> None:
        """Join the parts of all processes, add what belongs to the entry, and move it to its place.

        Part ``r`` of ``processes`` is the file ``part-r.npy`` and holds rows ``r, r + processes, ...``.
        """
        with disk_space(self.folder):
            _join([part / f"part-{rank}.npy" for rank in range(processes)], part / FEATURES, wanted)
            for name, values in arrays.items():
                np.save(part / f"{name}.npy", values.numpy())
            files = {path.name: _facts(path) for path in sorted(part.glob("*.npy"))}
            meta = {
                "name": wanted.name,
                "key": wanted.key,
                "version": VERSION,
                "shape": wanted.shape,
                "dtype": wanted.dtype,
                "description": wanted.description,
                "files": files,
                "date": time.strftime("%Y-%m-%d %H:%M:%S"),
            }
            (part / META).write_text(json.dumps(meta, indent=1))
            self._place(wanted, part)

    def discard(self, part: Path) -> None:
        """Remove a temporary folder, whatever is in it."""
        _remove(part)

    def clear(self, patterns: Sequence[str] | None = None) -> list[Entry]:
        """Delete entries and return them.

        Args:
            patterns: names as listed, or patterns such as ``dtd-*``; null deletes all.

        Raises:
            UserError: a pattern fits no entry.
        """
        entries = self.list_entries()
        chosen = entries
        if patterns is not None:
            for pattern in patterns:
                if not any(fnmatchcase(entry.name, pattern) for entry in entries):
                    hint = nearest(pattern, [entry.name for entry in entries])
                    raise UserError(f"no entry '{pattern}' in {self.folder}.{hint} mmcl cache ls shows them")
            chosen = [entry for entry in entries if any(fnmatchcase(entry.name, pattern) for pattern in patterns)]
        for entry in chosen:
            _remove(entry.path)
        if patterns is None:
            self._remove_leftovers(".*.part")
        return chosen

    def _place(self, wanted: Wanted, part: Path) -> None:
        path = self.folder / wanted.folder_name
        try:
            os.replace(part, path)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
            # Another run was faster; its entry serves as well, unless it was damaged since.
            if self.find(wanted):
                _remove(part)
            else:
                os.replace(part, path)

    def _remove_leftovers(self, pattern: str) -> None:
        """Remove what runs that were killed on this machine have left behind."""
        for path in self.folder.glob(pattern):
            *_, node, number, _ = path.name.rsplit(".", 3)
            if path.name.endswith(f".{platform.node()}.{number}.part") and number.isdigit() and not _lives(int(number)):
                log.info("removing %s, left by a process of %s that has ended", path, node)
                _remove(path)


def _fault(path: Path, wanted: Wanted) -> str:
    """Return what is wrong with an entry, or an empty string."""
    try:
        meta = json.loads((path / META).read_text())
        if meta["key"] != wanted.key:
            return "of another key"
        if any((path / name).stat().st_size != facts["bytes"] for name, facts in meta["files"].items()):
            return "truncated"
        features = np.load(path / FEATURES, mmap_mode="r")
        return "" if (features.shape, features.dtype.name) == (wanted.shape, wanted.dtype) else "of another shape"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"damaged ({error})"


def _entry(path: Path) -> Entry | None:
    try:
        meta = json.loads((path / META).read_text())
        nbytes = sum(file.stat().st_size for file in path.iterdir())
        return Entry(path.name, path, tuple(meta["shape"]), meta["dtype"], nbytes, meta["date"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _mapped(path: Path) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(np.load(path, mmap_mode="r"))


def _join(parts: list[Path], path: Path, wanted: Wanted) -> None:
    """Merge the rows of parts in turn into one file; a single part is the file."""
    if len(parts) == 1:
        os.replace(parts[0], path)
        return
    mapped = [np.load(part, mmap_mode="r") for part in parts]
    per_part = max(1, _JOINED_BYTES // (len(parts) * max(1, mapped[0][:1].nbytes)))
    with path.open("wb") as file:
        _write_header(file, wanted.shape, np.dtype(wanted.dtype))
        for start in range(0, len(mapped[0]), per_part):
            pieces = [part[start : start + per_part] for part in mapped]
            rows = np.empty((sum(map(len, pieces)), *wanted.shape[1:]), wanted.dtype)
            for rank, piece in enumerate(pieces):
                rows[rank :: len(parts)] = piece
            file.write(rows.data)
    for part in parts:
        part.unlink()


def _write_header(file: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    descr = np.lib.format.dtype_to_descr(dtype)
    np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})


def _facts(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": digest_file(path)}


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
