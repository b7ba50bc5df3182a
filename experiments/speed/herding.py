"""Herding of many classes: greedy search over whole distances against one Gram matrix per class.

Run: OMP_NUM_THREADS=1 python experiments/speed/herding.py
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch

from mmcl.memory.herding import herd_classes, unit_rows


def herd_by_distances(vectors: np.ndarray, images: np.ndarray, count: int) -> list[int]:
    """The straightforward structure: all distances at every step, arrays copied without the row.

    ``images`` go with the vectors, as where the store keeps images; any array of as many rows will do.
    """
    mean = vectors.mean(axis=0)
    numbers = np.arange(len(vectors))
    total, picked = np.zeros(vectors.shape[1]), []
    for step in range(1, min(count, len(vectors)) + 1):
        distances = np.sqrt(((mean - (vectors + total) / step) ** 2).sum(axis=1))
        nearest = int(np.argmin(distances))
        total = total + vectors[nearest]
        picked.append(int(numbers[nearest]))
        vectors, images, numbers = (np.delete(array, nearest, axis=0) for array in (vectors, images, numbers))
    return picked


def reference(features: torch.Tensor, labels: torch.Tensor, count: int, image_shape: tuple[int, ...]) -> list[int]:
    picked: list[int] = []
    for label in range(int(labels.max()) + 1):
        rows = (labels == label).nonzero().flatten().numpy()
        vectors = unit_rows(features[rows]).double().numpy()
        images = np.zeros((len(rows), *image_shape), np.uint8)
        picked += rows[herd_by_distances(vectors, images, count)].tolist()
    return picked


def least_seconds(herds: list[Callable[[], object]], repeats: int) -> list[float]:
    """Time each in turn, again and again, so that a busy machine is fair to all; return the least of each."""
    seconds: list[list[float]] = [[] for _ in herds]
    for _ in range(repeats):
        for herd, its_seconds in zip(herds, seconds, strict=True):
            start = time.perf_counter()
            herd()
            its_seconds.append(time.perf_counter() - start)
    return [min(its_seconds) for its_seconds in seconds]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--images", type=int, default=500, help="of each class")
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--count", type=int, default=331, help="kept of each class")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=10)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    generator = torch.Generator().manual_seed(0)
    features = torch.randn(options.classes * options.images, options.dim, generator=generator).relu()
    labels = torch.arange(len(features)) % options.classes
    herds: dict[str, Callable[[], list[int]]] = {
        "one Gram matrix per class": lambda: herd_classes(features, labels, options.count).tolist(),
        "all distances, images copied too": lambda: reference(features, labels, options.count, (32, 32, 3)),
        "all distances, vectors alone": lambda: reference(features, labels, options.count, ()),
    }
    herded, *expected = (herd() for herd in herds.values())
    print(f"{options.classes} classes of {options.images}x{options.dim}, {options.count} kept of each")
    print(f"same indices: {all(indices == herded for indices in expected)}")
    seconds = least_seconds(list(herds.values()), options.repeats)
    for name, its_seconds in zip(herds, seconds, strict=True):
        speed = options.classes / its_seconds
        print(f"{speed:8.1f} classes/s  {its_seconds / seconds[0]:5.1f} times the seconds  {name}")


if __name__ == "__main__":
    main()
