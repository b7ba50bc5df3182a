"""Herding as LUCIR's released code does it, which Mnemonics and AANets took over.

Hou, Pan, Loy, Wang, Lin, "Learning a Unified Classifier Incrementally via Rebalancing", CVPR 2019; the rule is iCaRL's
in the form of Welling's herding (ICML 2009), where a weight moves on at every step and may point to a row once more.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmcl.memory.class_rows import class_rows, runs_of_classes

STEPS = 1000
MOST_OF_A_CLASS = 500
TIE_STEP = 1e-13  # what one place costs: of rows that are equal but for rounding, the first wins
RUN_BYTES = 4 * 2**20  # float32 rows that the processor's cache keeps from step to step

Floats = NDArray[np.floating]
Integers = NDArray[np.int64]


def herd_lucir(features: Tensor, labels: Tensor, count: int) -> Tensor:
    """Order the rows of every class by LUCIR's herding: a :class:`mmcl.memory.herding.Selector`.

    With v the unit rows of a class in float64, mu their mean and w = mu: the row with the largest ``w.v`` gets the
    next rank unless it has one, and ``w`` becomes ``w + mu - v``. A class ends with ``min(count, 500)`` ranks or after
    1000 steps. Steps to a row that has a rank move ``w`` alone, so a class may give fewer rows than ``count``, as
    one with equal rows does. The first of equal maxima wins.

    Computed on the CPU: the rows go there once, while every step would wait for another device.

    Raises:
        ValueError: features that are not finite.
    """
    vectors = features.cpu().numpy()
    groups = class_rows(labels.cpu())
    runs = runs_of_classes(groups, lambda longest: 4 * vectors.shape[1], RUN_BYTES)
    limit = min(count, MOST_OF_A_CLASS)
    picked = [part for run in runs for part in _herd_run(vectors, [group.numpy() for group in run], limit)]
    return torch.from_numpy(np.concatenate(picked)).to(labels.device) if picked else labels.new_empty(0)


def _herd_run(vectors: Floats, groups: list[Integers], limit: int) -> list[Integers]:
    """Herd classes side by side; return the chosen rows of ``(N, D)`` of each class, best first."""
    herd = _Herd(vectors, groups)
    wanted = np.array([min(limit, len(group)) for group in groups])
    places = np.empty((0, len(groups)), dtype=np.int64)
    # No class can be done before as many steps as it lacks ranks; those that are done go on, and are cut afterwards.
    while (steps := min(int((wanted - herd.ranked()).max()), STEPS - len(places))) > 0:
        places = np.concatenate([places, herd.steps(steps)])
    lines = zip(groups, places.T.tolist(), wanted.tolist(), strict=True)
    return [group[list(dict.fromkeys(line))[:most]] for group, line, most in lines]


class _Herd:
    """Classes padded to the longest of them, with their weights w.

    Scores are float32. Where the two best of a class are closer than float32 can tell, float64 decides.
    """

    def __init__(self, vectors: Floats, groups: list[Integers]) -> None:
        shape = len(groups), max(len(group) for group in groups)
        self.vectors, self.groups = vectors, groups
        self.rows = np.zeros(shape, np.int64)
        self.scale = np.ones(shape)  # rows times scale have norm 1
        self.rough_v = np.zeros((*shape, vectors.shape[1]), np.float32)
        self.padding = np.full(shape, -np.inf, np.float32)
        self.mu = np.zeros((len(groups), vectors.shape[1]))
        for label, group in enumerate(groups):  # class by class, so that float64 stays in the processor's cache
            own = slice(0, len(group))
            values = vectors.take(group, axis=0)
            exact = values.astype(np.float64)
            scale = _inverse_norms(exact)
            self.rows[label, own], self.scale[label, own], self.padding[label, own] = group, scale, 0.0
            rough_scale = scale.astype(np.float32)[:, None]
            np.multiply(values, rough_scale, out=self.rough_v[label, own], casting="same_kind")
            self.mu[label] = scale @ exact / len(group)
        self.w = self.mu.copy()
        self.met = np.zeros(shape, bool)

    def steps(self, count: int) -> Integers:
        """Take steps in all classes; return the places that they lead to, ``(count, C)``."""
        classes, longest, dim = self.rough_v.shape
        rows, scale = self.rows.reshape(-1), self.scale.reshape(-1, 1)
        first = np.arange(0, classes * longest, longest)
        scores = np.empty((classes, longest, 1), np.float32)
        lines, flat = scores[:, :, 0], scores.reshape(-1)
        is_padded = bool(self.padding.any())
        rounding = float(np.finfo(np.float32).eps) * dim
        places = np.empty((count, classes), np.int64)
        for place in places:
            self._rough_scores(scores)
            if is_padded:
                lines += self.padding
            lines.argmax(1, out=place)
            chosen = first + place
            lead = flat.take(chosen)
            flat[chosen] = -np.inf
            lead -= lines.max(1)
            doubt = rounding * math.sqrt(np.vdot(self.w, self.w))
            if lead.min() <= doubt:
                for label in (lead <= doubt).nonzero()[0].tolist():
                    place[label] = self._exact_place(label)
                    chosen[label] = first[label] + place[label]
            self.w += self.mu
            self.w -= self.vectors.take(rows.take(chosen), axis=0) * scale.take(chosen, axis=0)
        self.met[np.arange(classes), places] = True
        return places

    def ranked(self) -> Integers:
        """Return how many rows of each class were met, ``(C,)``."""
        counts: Integers = self.met.sum(1)
        return counts

    def _rough_scores(self, scores: Floats) -> None:
        with np.errstate(invalid="ignore"):  # vector units may raise the flag for lanes that hold no number
            np.matmul(self.rough_v, self.w.astype(np.float32)[:, :, None], out=scores)

    def _exact_place(self, label: int) -> int:
        group = self.groups[label]
        scores = self.vectors[group].astype(np.float64) @ self.w[label] * self.scale[label, : len(group)]
        return int((scores - TIE_STEP * np.arange(len(group))).argmax())


def _inverse_norms(vectors: Floats) -> Floats:
    norms = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
    if not np.isfinite(norms).all():
        raise ValueError("herding needs finite features; some are NaN or infinite")
    return 1 / np.where(norms > 0, norms, 1.0)
