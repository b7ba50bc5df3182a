"""Answers that a run kept of its test samples, read without the libraries that learn."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

FOLDER = "predictions"
UNREADABLE = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error)


class Answers(NamedTuple):
    """True class and answer of each sample ``(N,)``, in the order of the data set."""

    truths: NDArray[Any]
    answers: NDArray[Any]


def read_answers(run: Path, readout: str) -> Answers | None:
    """Return what a readout answered after the last task, as class numbers; None where that was not kept whole."""
    files = sorted((run / FOLDER).glob("task_*.npz"), key=lambda path: (len(path.name), path.name))  # from 1000 on, too
    if not files:
        return None
    try:
        with np.load(files[-1], allow_pickle=False) as content:
            answers = Answers(content[f"{readout}.truths"], content[f"{readout}.answers"])
    except UNREADABLE:
        return None
    alike = answers.truths.shape == answers.answers.shape and answers.truths.ndim == 1
    whole = all(np.issubdtype(column.dtype, np.integer) and (column >= 0).all() for column in answers)
    return answers if alike and whole else None
