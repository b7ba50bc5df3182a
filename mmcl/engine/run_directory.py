"""The directory of one run: whose it is, who works in it, and the files that it holds."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from mmcl.errors import MissingFileError, UserError
from mmcl.whole_files import disk_space, write_whole

# What a fresh start leaves alone: the lock, what was set aside, and memories that a user built for the run.
KEPT = ("run.lock", "before", "memories", "memory.safetensors")
COLUMNS = ("task", "stage", "epoch", "metric", "value")


class RunDirectory:
    """One run's files.

    ``identity.json`` says whose directory it is, ``state/`` holds what a resumed run needs, ``metrics.csv`` grows line
    by line, ``predictions/`` holds the answers after each task, ``result.json`` is what reports read.

    Args:
        path: the directory; made when it is claimed.
        identity: of the run that wants it.
    """

    def __init__(self, path: Path, identity: str) -> None:
        self.path, self.identity = path.absolute(), identity
        self.state = self.path / "state"
        self.result = self.path / "result.json"

    def is_finished(self) -> bool:
        """Whether the run of this identity has been completed here.

        Raises:
            UserError: the directory belongs to a run of another configuration.
        """
        owner = _read_json(self.path / "identity.json").get("identity")
        if owner not in (None, self.identity):
            raise UserError(
                f"{self.path} holds a run of another configuration (identity {owner}, this one is {self.identity}). "
                "Leave paths.run unset or name an empty directory; nothing was changed"
            )
        return _read_json(self.result).get("status") == "finished"

    @contextmanager
    def claimed(self, config: dict[str, Any], afresh: bool) -> Iterator[None]:
        """Work in the directory alone; ``afresh`` begins without what an earlier run left, which an error brings back.

        Raises:
            UserError: another process works in it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path / "run.lock", timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise UserError(f"another process is working on this run ({self.path}); wait for it or stop it") from error
        try:
            with self._set_aside() if afresh else nullcontext():
                owner = json.dumps({"identity": self.identity, "config": config}, indent=1)
                write_whole(self.path / "identity.json", lambda part: part.write_text(owner))
                yield
        finally:
            lock.release()

    @contextmanager
    def _set_aside(self) -> Iterator[None]:
        """Keep what an earlier run left until the new one has ended well; bring it back otherwise."""
        aside = self.path / "before"
        shutil.rmtree(aside, ignore_errors=True)
        self._move_content(self.path, aside)
        try:
            yield
        except Exception:
            if self.result.name in {path.name for path in aside.iterdir()}:
                self._move_content(self.path, self.path / "failed")
                shutil.rmtree(self.path / "failed")
                self._move_content(aside, self.path)
            raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    @staticmethod
    def _move_content(source: Path, target: Path) -> None:
        target.mkdir(exist_ok=True)
        for path in source.iterdir():
            if path != target and path.name not in KEPT:
                path.rename(target / path.name)

    def write_result(self, result: dict[str, Any]) -> None:
        """Replace ``result.json``."""
        text = json.dumps(result, indent=1, allow_nan=False)
        write_whole(self.result, lambda part: part.write_text(text))

    def write_confusion(self, readout: str, counts: list[list[int]]) -> None:
        """Replace ``confusion_<readout>.csv``: a row per true class, a column per answer."""
        text = io.StringIO()
        csv.writer(text).writerows(counts)
        write_whole(self.path / f"confusion_{readout}.csv", lambda part: part.write_text(text.getvalue()))


class MetricsFile:
    """``metrics.csv``, which only ever grows: one line per figure, and none twice when a run goes on after a kill.

    Attributes:
        follower: called with the file whenever it has grown.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.follower: Callable[[MetricsFile], None] | None = None
        self.rows: dict[tuple[str, ...], float] = {}
        if path.exists() and self._drop_torn_line():
            with path.open(newline="") as file:
                for row in csv.DictReader(file):
                    self.rows[tuple(row[column] for column in COLUMNS[:-1])] = float(row["value"])
        else:
            path.write_text(",".join(COLUMNS) + "\n")

    def append(self, task: int, stage: str, epoch: int | None, figures: dict[str, float]) -> None:
        """Add figures of an epoch, or of a task's evaluation (``epoch`` None); known ones are left as they are."""
        with disk_space(self.path.parent), self.path.open("a", newline="") as file:
            for name, value in figures.items():
                position = (str(task), stage, "" if epoch is None else str(epoch), name)
                if position not in self.rows:
                    self.rows[position] = value
                    csv.writer(file).writerow([*position, repr(value)])
        if self.follower is not None:
            self.follower(self)

    def total(self, task: int, stage: str, metric: str) -> tuple[float, int]:
        """Return the sum of a metric over the epochs of a stage, and how many there are."""
        values = [v for (t, s, _, m), v in self.rows.items() if (t, s, m) == (str(task), stage, metric)]
        return sum(values), len(values)

    def _drop_torn_line(self) -> bool:
        """Cut off the half line that a kill in the middle of a write leaves; say whether whole lines are left."""
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            self.path.write_bytes(whole)
        return bool(whole)


def read_of_run(path: Path, of: str = "") -> dict[str, Any]:
    """Read a JSON file of a run's directory, for a command that needs it.

    Args:
        path: the file.
        of: of which runs, for the message, such as ``of method=mml``.

    Raises:
        UserError: it is not there, cannot be read, or holds something else.
    """
    again = "Bring a good copy, or run again with force=true"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MissingFileError(
            f"{path.parent} is no directory of a run: it has no {path.name}. Name the folder that holds the "
            f"result.json which a run{of and f' {of}'} prints"
        ) from error
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}. {again}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} has another form. {again}")
    return content


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return content if isinstance(content, dict) else {}
