"""Points of the plane in four classes and two domains, and the orders in which a stream brings them.

The sets, their seeds and their orders are those of the Memory Head paper (Tiezzi et al., CoLLAs 2024, Sec. 4.2):
MODES has one Gaussian for each class and domain, MOONS two interleaved half circles for each pair of classes and
domain.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import make_blobs, make_moons

from mmcl.randomness import key

CLASSES, DOMAINS, POINTS = 4, 2, 2000
_SHUFFLE_SEED = 1234
Integers = NDArray[np.int64]


class Points(NamedTuple):
    """``positions`` float64 ``(N, 2)`` in [-1, 1], ``labels`` and ``domains`` int64 ``(N,)``."""

    positions: NDArray[np.float64]
    labels: Integers
    domains: Integers


class Arrangement(NamedTuple):
    """Rows in the order of a stream: ``rows`` and, for each, ``distributions``, both int64 ``(N,)``."""

    rows: Integers
    distributions: Integers


class _Mode(NamedTuple):
    """A Gaussian: its centre, the standard deviation of each coordinate, the seed of its points."""

    centre: tuple[float, float]
    std: float
    seed: int


class _Moons(NamedTuple):
    """Two half circles: where they lie, the standard deviation of the noise, the seed of their points."""

    offset: tuple[float, float]
    noise: float
    seed: int


_MODE_RATIOS = (0.2, 0.4, 0.1, 0.3)
# by class, then by domain
_MODES = (
    (_Mode((0.25, 0.25), 0.02, 1234), _Mode((0.2, 0.75), 0.04, 1)),
    (_Mode((0.6, 0.65), 0.08, 5678), _Mode((1.0, 0.1), 0.02, 5)),
    (_Mode((0.15, 0.5), 0.015, 9101112), _Mode((1.15, 0.75), 0.06, 9)),
    (_Mode((0.85, 0.3), 0.03, 13141516), _Mode((0.3, 0.5), 0.015, 13)),
)
_MOON_RATIOS = (0.4, 0.1, 0.3, 0.2)
# by pair of classes, then by domain
_MOONS = (
    (_Moons((0.0, 0.0), 0.08, 1234), _Moons((2.0, 1.0), 0.04, 1)),
    (_Moons((-3.0, 1.0), 0.06, 5678), _Moons((3.0, -1.0), 0.03, 5)),
)


def modes(data_seed: int) -> Points:
    """Draw MODES: 2000 points by class, then by domain; data seed 0 gives the published ones."""
    parts, labels, domains = [], [], []
    for label, ratio in enumerate(_MODE_RATIOS):
        for domain, mode in enumerate(_MODES[label]):
            count = _counts(ratio)[domain]
            seed = _seed(mode.seed, data_seed)
            blob, _ = make_blobs(count, centers=[mode.centre], cluster_std=mode.std, shuffle=False, random_state=seed)
            parts.append(blob)
            labels += [label] * count
            domains += [domain] * count
    return Points(_rescaled(np.concatenate(parts)), np.array(labels), np.array(domains))


def moons(data_seed: int) -> Points:
    """Draw MOONS: 2000 points by pair of classes, domain and class; data seed 0 gives the published ones."""
    parts, labels, domains = [], [], []
    for pair, by_domain in enumerate(_MOONS):
        ratios = _MOON_RATIOS[2 * pair : 2 * pair + 2]
        for domain, moon in enumerate(by_domain):
            counts = (_counts(ratios[0])[domain], _counts(ratios[1])[domain])
            seed = _seed(moon.seed, data_seed)
            circles, which = make_moons(counts, shuffle=False, noise=moon.noise, random_state=seed)
            parts.append(circles + np.array(moon.offset))
            labels += (which + 2 * pair).tolist()
            domains += [domain] * len(which)
    return Points(_rescaled(np.concatenate(parts)), np.array(labels), np.array(domains))


SHAPES: dict[str, Callable[[int], Points]] = {"modes": modes, "moons": moons}


def split_rows(count: int, data_seed: int) -> dict[str, Integers]:
    """Return the shuffled rows of ``train``, ``validation`` and ``test``: a half, a quarter and a quarter of all."""
    parts = {
        "train": np.arange(0, count, 2),
        "validation": np.arange(1, count, 4),
        "test": np.arange(3, count, 4),
    }
    return {name: rows[_shuffle(len(rows), data_seed)] for name, rows in parts.items()}


def arranged(points: Points, rows: Integers, order: str, data_seed: int) -> Arrangement:
    """Bring the rows of a split into an order of the stream.

    ``iid``: shuffled once more, one distribution; ``ci``: by class; ``cdi``: by domain, then class; ``cdid``: so, and
    by the first coordinate within each distribution. Sorting is stable. (The published files were sorted by an
    algorithm that is not: in ``ci`` and ``cdi`` they hold the same points of each distribution in another order.)
    """
    if order == "iid":
        rows = rows[_shuffle(len(rows), data_seed)]
        return Arrangement(rows, np.zeros_like(rows))
    distributions = points.labels[rows] + (0 if order == "ci" else CLASSES * points.domains[rows])
    within = points.positions[rows, 0] if order == "cdid" else np.zeros(len(rows))
    places = np.lexsort((within, distributions))
    return Arrangement(rows[places], distributions[places])


def first_half(arrangement: Arrangement) -> Arrangement:
    """Return the samples of the first half of the distributions; of a single one, its first half."""
    rows, distributions = arrangement
    count = int(distributions.max()) + 1
    kept = np.arange(len(rows)) < len(rows) // 2 if count == 1 else distributions < count // 2
    return Arrangement(rows[kept], distributions[kept])


def _counts(ratio: float) -> tuple[int, int]:
    """Return how many points of a class each domain has."""
    count = int(POINTS * ratio)
    return count // 2, count - count // 2


def _rescaled(positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Map each coordinate onto [-1, 1]."""
    moved = positions - positions.min(axis=0)
    scaled: NDArray[np.float64] = moved / moved.max(axis=0) * 2 - 1
    return scaled


def _shuffle(count: int, data_seed: int) -> Integers:
    return np.random.RandomState(_seed(_SHUFFLE_SEED, data_seed)).permutation(count)


def _seed(published: int, data_seed: int) -> int:
    """Return the published seed, or for another data seed one that belongs to both."""
    return published if data_seed == 0 else key("modes2d", data_seed, published) % 2**32
