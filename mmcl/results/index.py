"""An index of all results below a folder in one SQLite file; the ``result.json`` files are the truth.

It lies in the folder itself as ``.mmcl_index.sqlite``, names files by their path from there, and can be deleted at any
time. Before each answer it is brought up to date: a file is read again if its size or time of change is another one.
In a folder that cannot be written, or while another process writes for long, an index in memory answers instead; one
that is damaged or of another version is made anew.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from mmcl.results.result import Result, Unread, check_content, make_result
from mmcl.results.result_files import RESULT, Found, scan, storable

NAME = ".mmcl_index.sqlite"
IN_MEMORY = ":memory:"
BUSY_SECONDS = 10.0
SETTLED_NS = 2 * 10**9  # a file may change again within the clock tick of a file system
UNSETTLED = -1
DIGITS = 16
LARGE_PARTS = ("readouts", "timing")  # of a result
TABLES = (
    "CREATE TABLE files (path TEXT PRIMARY KEY, mtime_ns INTEGER, size INTEGER, problem TEXT)",
    "CREATE TABLE results (path TEXT PRIMARY KEY, identity TEXT, status TEXT, method TEXT, benchmark TEXT, seed TEXT, "
    "date TEXT, commit_name TEXT, command TEXT, settings TEXT, figures TEXT, kept_bytes INTEGER, wall_seconds REAL, "
    "checksum INTEGER, content TEXT, readouts TEXT, timing TEXT)",
    "CREATE TABLE readouts (path TEXT, readout TEXT, average REAL, last REAL, PRIMARY KEY (path, readout))",
)
VERSION = zlib.crc32("1".join(TABLES).encode()) & 0x7FFFFFFF  # the number counts changes of what columns mean
Answer = TypeVar("Answer")


class DamagedIndexError(Exception):
    """The file of an index does not hold what was written."""


class Count(NamedTuple):
    """How many results there are of a kind."""

    status: str
    method: str
    benchmark: str
    results: int


class Listed(NamedTuple):
    """A result as the index lists it.

    Attributes:
        path: the ``result.json``.
        identity: hash of what decides the figures.
        status: ``finished``, ``running`` or ``failed``.
        date: when it was written, ISO 8601.
    """

    path: Path
    identity: str
    status: str
    date: str


def ask(root: Path | str, question: Callable[[Index], Answer]) -> Answer:
    """Answer a question from the index of a folder, which is brought up to date before.

    Args:
        root: folder of the runs; one that does not exist has no results.
        question: called with the index; twice if the index turns out to be damaged.
    """
    folder = Path(root).expanduser()
    files, unreadable = scan(folder)

    def answer(place: str) -> Answer:
        with closing(_connect(place)) as connection:
            _bring_up_to_date(connection, files)
            return question(Index(connection, folder, files, unreadable))

    if files and not (folder / RESULT).is_file():  # of a single run there is nothing to save
        for _ in range(2):
            try:
                return answer(str(folder / NAME))
            except (sqlite3.Error, DamagedIndexError, TypeError, ValueError) as error:
                if _cannot_be_used(error):
                    break
                discard(folder)
    return answer(IN_MEMORY)


def discard(root: Path | str) -> None:
    """Delete the index of a folder, if there is one and it can be deleted; the next question makes it anew."""
    place = Path(root).expanduser() / NAME
    for path in (place, place.with_name(f"{NAME}-journal")):
        with contextlib.suppress(OSError):
            path.unlink()


def index_digest(root: Path | str) -> str:
    """Return a hash of what the results of a folder say, whenever and wherever they were made; see ``Index.digest``."""
    return ask(root, Index.digest)


class Index:
    """What is known of the results below a folder.

    Args:
        connection: to an index that is up to date.
        root: the folder.
        files: of the folder, by the path that the index knows.
        unreadable: one line for each folder that could not be searched.
    """

    def __init__(
        self, connection: sqlite3.Connection, root: Path, files: dict[str, Found], unreadable: Sequence[str]
    ) -> None:
        self.connection, self.root, self.files, self.unreadable = connection, root, files, unreadable

    @property
    def location(self) -> Path | None:
        """The file of the index; None in memory."""
        place = self.connection.execute("PRAGMA database_list").fetchone()[2]
        return self.root / NAME if place else None

    def results(self) -> list[Result]:
        """Return all results, oldest first."""
        rows = self.connection.execute("SELECT date, path, checksum, content, readouts, timing FROM results").fetchall()
        rows.sort(key=itemgetter(0, 1))  # sooner than SQLite, which would write the contents elsewhere
        with _many_objects():
            return [make_result(self._path(path), _parsed(checksum, texts)) for _, path, checksum, *texts in rows]

    def problems(self) -> list[str]:
        """Return one line for each file that was skipped, and for each folder that could not be searched."""
        rows = self.connection.execute("SELECT path, problem FROM files WHERE problem IS NOT NULL ORDER BY path")
        return [*self.unreadable, *(f"{self._path(path)}: skipped: {problem}" for path, problem in rows)]

    def counts(self) -> list[Count]:
        """Return how many results there are of each status, method and benchmark."""
        kinds = "benchmark, method, status"
        rows = self.connection.execute(
            f"SELECT status, method, benchmark, count(*) FROM results GROUP BY {kinds} ORDER BY {kinds}"
        )
        return [Count(*row) for row in rows]

    def with_identity(self, beginning: str) -> list[Listed]:
        """Return the results whose identity begins with these digits, oldest first."""
        rows = self.connection.execute(
            "SELECT path, identity, status, date FROM results WHERE substr(identity, 1, ?) = ? ORDER BY date, path",
            (len(beginning), beginning),
        )
        return [Listed(self._path(path), *rest) for path, *rest in rows]

    def digest(self) -> str:
        """Return a hash of identity, status and figures of all results, 16 hexadecimal digits.

        Times, hardware, dates and places do not count, nor does how often the same is there.
        """
        rows = self.connection.execute("SELECT DISTINCT figures FROM results ORDER BY figures")
        return _hash("".join(figures for (figures,) in rows))

    def _path(self, key: str) -> Path:
        return self.files[key].path if key in self.files else self.root / key


def _connect(place: str) -> sqlite3.Connection:
    """Open an index; it has the tables of this version, empty if it had others."""
    connection = sqlite3.connect(place, timeout=BUSY_SECONDS, isolation_level=None)
    try:
        if connection.execute("PRAGMA user_version").fetchone()[0] != VERSION:
            with _writing(connection):
                _make_tables(connection)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _make_tables(connection: sqlite3.Connection) -> None:
    if connection.execute("PRAGMA user_version").fetchone()[0] == VERSION:
        return  # another process was faster
    known = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    for (name,) in known.fetchall():
        connection.execute(f'DROP TABLE "{name}"')
    for statement in TABLES:
        connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {VERSION}")


@contextmanager
def _writing(connection: sqlite3.Connection) -> Iterator[None]:
    """Write all or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _bring_up_to_date(connection: sqlite3.Connection, files: dict[str, Found]) -> None:
    """Read the files that are new or have changed, and forget those that are gone."""
    known = {path: stamp for path, *stamp in connection.execute("SELECT path, mtime_ns, size FROM files")}
    changed = [key for key, file in files.items() if known.get(key) != [file.mtime_ns, file.size]]
    gone = [(key,) for key in (*changed, *(key for key in known if key not in files)) if key in known]
    if not changed and not gone:
        return
    with _many_objects():
        entries = [entry for key in changed if (entry := _read(key, files[key])) is not None]
    with _writing(connection):
        for table in ("files", "results", "readouts"):
            connection.executemany(f"DELETE FROM {table} WHERE path = ?", gone)
        for entry in entries:
            _insert(connection, "files", entry.file)
            if entry.result:
                _insert(connection, "results", entry.result)
            for readout in entry.readouts:
                _insert(connection, "readouts", readout)


def _insert(connection: sqlite3.Connection, table: str, row: tuple[Any, ...]) -> None:
    connection.execute(f"INSERT OR REPLACE INTO {table} VALUES ({', '.join('?' * len(row))})", row)


class Entry(NamedTuple):
    """What the index says about one file: a row for each table, in the order of its columns."""

    file: tuple[Any, ...]
    result: tuple[Any, ...] = ()
    readouts: Sequence[tuple[Any, ...]] = ()


def _read(key: str, file: Found) -> Entry | None:
    """Read a file; None if it is gone meanwhile. One that may still be changing is read again next time."""
    settled = file.mtime_ns < time.time_ns() - SETTLED_NS
    try:
        content = json.loads(file.path.read_text(encoding="utf-8"))
        check_content(content)
        result = make_result(file.path, content)
        entry = Entry((key, file.mtime_ns if settled else UNSETTLED, file.size, None))
        return entry._replace(result=_result_row(key, result, content), readouts=_readout_rows(key, result))
    except FileNotFoundError:
        return None
    except OSError as error:  # which may be another one next time
        return Entry((key, UNSETTLED, file.size, error.strerror or str(error)))
    except (ValueError, RecursionError, OverflowError) as error:
        return Entry((key, file.mtime_ns if settled else UNSETTLED, file.size, storable(str(error))))


def _result_row(key: str, result: Result, content: dict[str, Any]) -> tuple[Any, ...]:
    texts = _texts(content)
    told = [result.identity, result.status, result.readouts]
    words = (
        result.identity,
        result.status,
        result.name_of("method"),
        result.name_of("benchmark"),
        str(result.seed),
        result.date,
        str(result.provenance.get("commit") or ""),
        result.command,
        _hash(result.deciding_config("seed")),
        _hash(json.dumps(told, sort_keys=True)),
    )
    kept, wall = _number(result.kept_bytes), _number(result.timing.get("wall_seconds"))
    return (key, *map(storable, words), kept, wall, _checksum(texts), *texts)


def _readout_rows(key: str, result: Result) -> list[tuple[Any, ...]]:
    return [
        (
            key,
            storable(name),
            _number(figures.get("average_incremental_accuracy")),
            _number(figures.get("last_accuracy")),
        )
        for name, figures in result.readouts.items()
    ]


def _texts(content: Mapping[str, Any]) -> list[str]:
    """Return the content as JSON: what everybody looks at, and each of the large parts."""
    small = {key: value for key, value in content.items() if key not in LARGE_PARTS}
    return [json.dumps(part, separators=(",", ":")) for part in (small, *(content[key] for key in LARGE_PARTS))]


def _parsed(checksum: int, texts: Sequence[str]) -> dict[str, Any]:
    """Return the content that was written, its large parts not yet parsed, or raise."""
    if not all(isinstance(text, str) for text in texts) or _checksum(texts) != checksum:
        raise DamagedIndexError("a result of the index has changed")
    small, *large = texts
    return {**json.loads(small), **dict(zip(LARGE_PARTS, map(Unread, large), strict=True))}


def _checksum(texts: Sequence[str]) -> int:
    return zlib.crc32("".join(texts).encode())


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None


def _cannot_be_used(error: Exception) -> bool:
    """Whether the file of an index may be sound, but not now or not for us."""
    reasons = ("locked", "readonly", "unable to open", "full", "disk i/o")
    return isinstance(error, sqlite3.OperationalError) and any(reason in str(error).lower() for reason in reasons)


@contextmanager
def _many_objects() -> Iterator[None]:
    """Let no garbage collector look through objects while very many are made, which takes longer than making them."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
