"""LUCIR's herding of many classes: class by class as the rule is written, against classes side by side.

Run: OMP_NUM_THREADS=1 python experiments/speed/herding_lucir.py
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from herding import least_seconds

from mmcl.memory.herding_lucir import MOST_OF_A_CLASS, STEPS, herd_lucir


def herd_by_ranks(features: np.ndarray, count: int) -> np.ndarray:
    """The straightforward structure: one class ``(N, D)``, its columns the unit rows, ranks counted at every step."""
    columns = features.astype(np.float64).T
    columns = columns / np.linalg.norm(columns, axis=0)
    mean = columns.mean(axis=1)
    rank, ranks, steps, w = np.zeros(columns.shape[1]), 0, 0, mean
    while np.sum(rank != 0) < min(count, MOST_OF_A_CLASS) and steps < STEPS:
        best = np.argmax(np.dot(w, columns))
        if rank[best] == 0:
            ranks += 1
            rank[best] = ranks
        w = w + mean - columns[:, best]
        steps += 1
    ranked = np.flatnonzero(rank)
    return ranked[np.argsort(rank[ranked])]


def reference(features: torch.Tensor, labels: torch.Tensor, count: int) -> list[int]:
    picked: list[int] = []
    for label in range(int(labels.max()) + 1):
        rows = (labels == label).nonzero().flatten().numpy()
        picked += rows[herd_by_ranks(features[rows].numpy(), count)].tolist()
    return picked


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--classes", type=int, nargs="+", default=[10, 20, 50, 100])
    parser.add_argument("--images", type=int, default=500, help="of each class")
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--count", type=int, default=40, help="kept of each class")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=10)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    for classes in options.classes:
        generator = torch.Generator().manual_seed(0)
        centre = torch.randn(classes, options.dim, generator=generator).repeat(options.images, 1)
        features = centre + torch.randn(centre.shape, generator=generator)
        labels = torch.arange(len(features)) % classes
        print(f"{classes} classes of {options.images}x{options.dim}, {options.count} kept of each")
        ours = herd_lucir(features, labels, options.count).tolist()
        print(f"same indices: {reference(features, labels, options.count) == ours}")
        herds: dict[str, Callable[[], object]] = {
            "classes side by side": partial(herd_lucir, features, labels, options.count),
            "class by class": partial(reference, features, labels, options.count),
        }
        seconds = least_seconds(list(herds.values()), options.repeats)
        for name, its_seconds in zip(herds, seconds, strict=True):
            print(f"{classes / its_seconds:8.1f} classes/s  {its_seconds / seconds[0]:5.1f} times the seconds  {name}")


if __name__ == "__main__":
    main()
