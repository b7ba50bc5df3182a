"""What every test sample was answered after each task: kept by a run, so that its figures can be recomputed.

``predictions/task_000.npz`` holds ``<readout>.truths``, ``.answers`` and ``.ranks`` of all samples in the order of the
data set, ``.classes``, and ``.distributions`` in an online stream, as the smallest integers that hold them. A long
stream keeps the whole answers of some windows, and ``<readout>.tallies`` of the others.
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from mmcl.errors import MissingFileError, UserError
from mmcl.metrics.sequence import top_classes
from mmcl.whole_files import write_whole

FOLDER = "predictions"
STREAM_BYTES = 8 * 2**20  # of whole answers in one run's online stream
_UNREADABLE = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class Predictions:
    """What one readout says about the samples asked after a task, in the order of the data set.

    Attributes:
        truths: class of each sample, counted from the first class of the scores, int64 ``(N,)``.
        answers: class with the largest score, of equal ones the lowest, int64 ``(N,)``.
        ranks: number of classes ranked before the truth, int64 ``(N,)``; the number of classes C where the scores do
            not know the truth.
        classes: number of classes C of the scores, int64 ``()``.
        distributions: of each sample of an online stream, int64 ``(N,)``; None elsewhere.
    """

    truths: Tensor
    answers: Tensor
    ranks: Tensor
    classes: Tensor
    distributions: Tensor | None = None

    def __len__(self) -> int:
        return len(self.truths)

    def parts(self, size: int) -> Iterator[Predictions]:
        """Yield the samples in parts of ``size``."""
        columns = {name: value for name, value in vars(self).items() if value is not None and name != "classes"}
        for start in range(0, len(self), size):
            yield replace(self, **{name: value[start : start + size] for name, value in columns.items()})


# ------------------------------------------------------------------ mathematics


def ranked(scores: Tensor, truths: Tensor) -> tuple[Tensor, Tensor]:
    """Return (answers, ranks), int64 ``(N,)`` each, of scores ``(N, C)`` for truths ``(N,)``; see :class:`Predictions`.

    Equal scores rank by class, as in the metrics.
    """
    order = top_classes(scores, scores.shape[1])
    hits = order == truths[:, None]
    ranks = hits.int().argmax(dim=1).where(hits.any(dim=1), scores.shape[1])
    return order[:, 0], ranks


def scores_like(predictions: Predictions) -> Tensor:
    """Return scores float32 ``(N, C)`` that :func:`ranked` turns into these answers and ranks."""
    truths, answers = predictions.truths[:, None], predictions.answers[:, None]
    columns = torch.arange(int(predictions.classes))
    others = (columns != truths) & (columns != answers)
    ahead = others & (others.cumsum(dim=1) < predictions.ranks[:, None])
    scores = ahead.float() * 2
    scores[columns == truths] = 1
    scores[columns == answers] = 3
    return scores


def tallied(predictions: Predictions) -> Tensor:
    """Return samples and right answers of each distribution, int64 ``(T, 2)``."""
    assert predictions.distributions is not None
    rows = torch.stack([torch.ones_like(predictions.ranks), (predictions.ranks == 0).long()], dim=1)
    count = int(predictions.distributions.max()) + 1
    return torch.zeros(count, 2, dtype=torch.int64).index_add(0, predictions.distributions, rows)


def from_tallies(tallies: Tensor) -> Predictions:
    """Return predictions that count like ``(T, 2)`` tallies: truth 0, answer 0 where right and 1 where wrong."""
    samples, right = tallies.unbind(1)
    wrong = torch.cat([torch.zeros(int(right.sum())), torch.ones(int((samples - right).sum()))]).long()
    distributions = torch.arange(len(tallies))
    where = torch.cat([distributions.repeat_interleave(right), distributions.repeat_interleave(samples - right)])
    return Predictions(torch.zeros_like(wrong), wrong, wrong, torch.tensor(2), where)


# ------------------------------------------------------------------ while a task is evaluated


class Recorder:
    """Collects what a process answers, on the device of the scores, until the evaluation of a task is over.

    A readout's samples may come in any order and lie on several processes; ``rows`` say which ones they are.
    """

    def __init__(self) -> None:
        self._rows: dict[str, list[Tensor]] = {}
        self._values: dict[str, list[Tensor]] = {}
        self._classes: dict[str, int] = {}

    def add(self, name: str, scores: Tensor, truths: Tensor, rows: Tensor, distributions: Tensor | None = None) -> None:
        """Take answers of a batch; nothing waits for the device.

        Args:
            name: of the readout in results.
            scores: ``(B, C)``.
            truths: counted from the first class of the scores, int64 ``(B,)``.
            rows: place of each sample in the data set, int64 ``(B,)`` on the CPU.
            distributions: of the samples of an online stream, int64 ``(B,)``.
        """
        columns = [truths, *ranked(scores, truths), *([] if distributions is None else [distributions])]
        self._rows.setdefault(name, []).append(rows)
        self._values.setdefault(name, []).append(torch.stack(columns).to(torch.int32))
        self._classes[name] = scores.shape[1]

    def next_rows(self, name: str, count: int, part: tuple[int, int]) -> Tensor:
        """Return the rows of a readout's next ``count`` samples where process ``rank`` has every ``world``-th one.

        Args:
            name: of the readout in results.
            count: samples of the batch.
            part: (rank, world).
        """
        rank, world = part
        seen = sum(map(len, self._rows.get(name, ())))
        return torch.arange(seen, seen + count) * world + rank

    def synced(self) -> dict[str, dict[str, Tensor]]:
        """Return all that the processes hold together, sorted by row, as CPU tensors; all must call."""
        own = {
            name: torch.cat([torch.cat(self._rows[name])[None].int(), _on_cpu(values)])
            for name, values in self._values.items()
        }
        parts = _from_all_processes((own, self._classes))
        classes = {name: count for _, known in parts for name, count in known.items()}
        state = {}
        for name, count in classes.items():
            columns = torch.cat([values[name] for values, _ in parts if name in values], dim=1)
            columns = columns[:, columns[0].argsort()]
            state[name] = {"rows": columns[0], "values": columns[1:], "classes": torch.tensor(count)}
        return state

    def load(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Go on from :meth:`synced`; one process takes it."""
        for name, part in state.items():
            self._rows[name], self._values[name] = [part["rows"].long()], [part["values"]]
            self._classes[name] = int(part["classes"])

    def predictions(self) -> dict[str, Predictions]:
        """Return what all processes have collected, by readout; all must call.

        A readout of which some rows are missing is left out: it was half evaluated by a version that kept nothing.
        """
        whole = {}
        for name, part in self.synced().items():
            truths, answers, ranks, *distributions = part["values"].long()
            if torch.equal(part["rows"].long(), torch.arange(len(truths))):
                whole[name] = Predictions(truths, answers, ranks, part["classes"], *distributions)
        return whole


def _on_cpu(values: list[Tensor]) -> Tensor:
    """Join columns, of which what :meth:`Recorder.load` took lies on the CPU and what came since on another device."""
    device = values[-1].device
    return torch.cat([part.to(device) for part in values], dim=1).cpu()


def _from_all_processes(own: tuple[dict[str, Tensor], dict[str, int]]) -> list[Any]:
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return [own]
    parts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, own)
    return parts


# ------------------------------------------------------------------ files


def file_of(run: Path, task: int) -> Path:
    """Return where a run keeps its predictions after a task, from 0."""
    return run / FOLDER / f"task_{task:03d}.npz"


def write_predictions(path: Path, predictions: Mapping[str, Predictions], windows_left: int, windows: int) -> str:
    """Write the predictions of a task, whole or not at all, and return the digest of the file.

    Of an online stream whose whole answers would take more than :data:`STREAM_BYTES`, every n-th window is kept whole,
    counted back from the last one; of the others the tallies by distribution are.

    Args:
        path: the file.
        predictions: by readout.
        windows_left: tasks after this one.
        windows: tasks of the sequence.
    """
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    whole = windows_left % _stride(predictions, windows) == 0
    for name, kept in predictions.items():
        values = {part.name: getattr(kept, part.name) for part in fields(kept)} if whole else {"tallies": tallied(kept)}
        arrays |= {f"{name}.{part}": _smallest(value) for part, value in values.items() if value is not None}

    def write(partial: Path) -> None:
        with partial.open("wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]

    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, write)
    return digest_of(path)


def read_predictions(path: Path) -> dict[str, Predictions]:
    """Read the predictions of a task, by readout.

    Raises:
        UserError: the file is missing or damaged.
    """
    if not path.is_file():
        raise MissingFileError(f"{path} is missing: the run kept no predictions of this task, or they were deleted")
    parts: dict[str, dict[str, Tensor]] = {}
    try:
        with np.load(path, allow_pickle=False) as content:
            for key in content.files:
                name, _, part = key.rpartition(".")
                parts.setdefault(name, {})[part] = torch.from_numpy(content[key].astype(np.int64))
        read = {
            name: from_tallies(own["tallies"]) if "tallies" in own else Predictions(**own)
            for name, own in parts.items()
        }
        for name, predictions in read.items():
            _check(name, predictions)
    except (*_UNREADABLE, TypeError, RuntimeError) as error:
        raise UserError(f"{path} is damaged: {error}. Bring a good copy, or run again with force=true") from error
    return read


def digest_of(path: Path) -> str:
    """Return the digest of a file's bytes, 16 hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _check(name: str, read: Predictions) -> None:
    columns = [value for part, value in vars(read).items() if value is not None and part != "classes"]
    if len({value.shape for value in columns}) != 1 or read.truths.ndim != 1 or not len(read):
        raise ValueError(f"{name} has columns of the shapes {[tuple(value.shape) for value in columns]}")
    if min(int(value.min()) for value in columns) < 0 or not torch.equal(read.ranks == 0, read.answers == read.truths):
        raise ValueError(f"answers and ranks of {name} contradict each other")
    if int(read.answers.max()) >= int(read.classes):
        raise ValueError(f"an answer of {name} is none of its classes")


def _stride(predictions: Mapping[str, Predictions], windows: int) -> int:
    """Return how many windows of a stream share one whole record; 1 elsewhere."""
    streams = [kept for kept in predictions.values() if kept.distributions is not None]
    size = sum(_smallest(values).nbytes for kept in streams for values in (kept.answers, kept.ranks))
    return max(1, -(-size * windows // STREAM_BYTES))


def _smallest(values: Tensor) -> np.ndarray[Any, Any]:
    """Return values as the smallest unsigned integers that hold them."""
    array = values.numpy()
    return array.astype(np.min_scalar_type(int(array.max()) if array.size else 0))
