"""Pickle files of data sets, read so that a foreign file cannot run code: NumPy arrays and plain types only."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from mmcl.errors import UserError

UNREADABLE = (OSError, EOFError, pickle.UnpicklingError, ValueError, LookupError, TypeError, AttributeError)


def read_pickle(path: Path, advice: str) -> dict[str, Any]:
    """Read a pickled dictionary, written by Python 2 or 3.

    Args:
        path: the file.
        advice: what the user may do about a bad one, for messages.

    Raises:
        UserError: the file is truncated, asks for more than arrays and plain types, or holds something else.
    """
    try:
        with path.open("rb") as file:
            entry = ArrayUnpickler(file, encoding="latin1").load()
    except UNREADABLE as error:
        raise UserError(f"cannot read {path}: {error}. The file is truncated or of another kind. {advice}") from error
    if not isinstance(entry, dict):
        raise UserError(f"{path} holds a {type(entry).__name__}, expected a dictionary. {advice}")
    return entry


def _latin1_bytes(text: str, encoding: str) -> bytes:
    """Python 3 writes bytes this way in the old pickle protocols."""
    return text.encode(encoding)


# The same functions, wherever the NumPy that wrote the file kept them.
_BUILDERS: dict[str, Any] = {
    "_reconstruct": np.empty(0).__reduce__()[0],
    "scalar": np.float64(0).__reduce__()[0],
    "_frombuffer": np.empty(1).__reduce_ex__(5)[0],
}
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _latin1_bytes,
    **{
        (f"numpy.{core}.{module}", name): builder
        for core in ("core", "_core")
        for module in ("multiarray", "numeric")
        for name, builder in _BUILDERS.items()
    },
}


class ArrayUnpickler(pickle.Unpickler):
    """Builds NumPy arrays and plain types only, so that a foreign file cannot run code."""

    def find_class(self, module: str, name: str) -> Any:
        """Return one of the few classes and functions that arrays are made of."""
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a data file")
        return _ALLOWED[module, name]
