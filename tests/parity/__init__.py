"""Parity checks: one function per ``kind`` of golden vector; ``tests/test_golden.py`` finds the files."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

Golden = Mapping[str, np.ndarray]
CHECKS: dict[tuple[str, str], Callable[[Golden], None]] = {}


def parity(kind: str) -> Callable[[Callable[[Golden], None]], Callable[[Golden], None]]:
    """Register a check for every golden file of a method whose ``kind`` this is.

    The method is the module's name without its last word: ``tests/parity/memo_data.py`` checks ``memo/*.npz``.
    """

    def register(check: Callable[[Golden], None]) -> Callable[[Golden], None]:
        method = check.__module__.rpartition(".")[2].rpartition("_")[0]
        assert (method, kind) not in CHECKS, f"two checks for {method}, kind {kind!r}"
        CHECKS[method, kind] = check
        return check

    return register


def close(actual: object, expected: object, tolerance: float = 1e-5) -> None:
    """Assert ``|actual - expected| <= tolerance * max(1, |expected|)`` elementwise, with equal shapes."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, f"shape {actual.shape}, expected {expected.shape}"
    error = np.abs(actual.astype(np.float64) - expected.astype(np.float64))
    worst = (error / np.maximum(1.0, np.abs(expected))).max(initial=0.0)
    assert worst <= tolerance, f"largest relative error {worst:.3g}, allowed {tolerance:.3g}"
