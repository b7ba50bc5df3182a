"""Errors that a user can mend. Entry points print them without a traceback and exit with code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

# Exit codes beside 0 and that of UserError: what a launcher reads.
INTERRUPTED = 130
TOGETHER_SECONDS = 2.0  # a launcher and the system behind it may both pass on what is one request
PREEMPTED = 75  # ended by a signal after a checkpoint: put it back into the queue, the same command goes on


class UserError(Exception):
    """Something the user can mend: says what is wrong, what was expected and what to type next."""

    exit_code = 2


class DivergedError(UserError):
    """A loss or a weight is not finite: other settings are needed."""


class MissingFileError(UserError):
    """A file that the user has to bring is not there."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the nearest of the known words, or an empty string."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.4)
    return f" Did you mean '{close[0]}'?" if close else ""
