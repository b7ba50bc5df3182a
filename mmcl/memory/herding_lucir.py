"""Herding as LUCIR's released code does it, which Mnemonics and AANets took over.

Hou, Pan, Loy, Wang, Lin, "Learning a Unified Classifier Incrementally via Rebalancing", CVPR 2019; the rule is iCaRL's
in the form of Welling's herding (ICML 2009), where a weight moves on at every step and may point to a row once more.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmcl.memory.class_rows import class_rows, runs_of_classes

STEPS = 1000
MOST_OF_A_CLASS = 500
STEPS_AT_ONCE = 16
TIE_STEP = 1e-13  # what one place costs: of rows that are equal but for rounding, the first wins
SMALLEST = 2.0**-1022  # of float64: stands for the square of rows of zeros, so that their scale is a number
SAFE_SCALE = 1e15  # float32 scores stand for rows that need less than this, or its inverse, to have norm 1
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
    vectors = features.to("cpu", torch.promote_types(features.dtype, torch.float32)).numpy()
    groups = class_rows(labels.cpu())
    runs = runs_of_classes(groups, lambda longest: 4 * vectors.shape[1], RUN_BYTES)
    limit = min(count, MOST_OF_A_CLASS)
    picked = [part for run in runs for part in _herd_run(vectors, [group.numpy() for group in run], limit)]
    return torch.from_numpy(np.concatenate(picked)).to(labels.device) if picked else labels.new_empty(0)


def _herd_run(vectors: Floats, groups: list[Integers], limit: int) -> list[Integers]:
    """Herd classes side by side; return the chosen rows of ``(N, D)`` of each class, best first."""
    herd = _Herd(vectors, groups)
    wanted = [min(limit, len(group)) for group in groups]
    ranked: list[dict[int, None]] = [{} for _ in groups]
    left = STEPS
    # No class can be done before as many steps as it lacks ranks; those that are done go on, and are cut afterwards.
    while (lacking := max(most - len(places) for most, places in zip(wanted, ranked, strict=True))) > 0 < left:
        led_to = herd.steps(min(lacking, left, STEPS_AT_ONCE))
        left -= len(led_to)
        for places, line in zip(ranked, led_to.T.tolist(), strict=True):
            places.update(dict.fromkeys(line))
    return [group[list(places)[:most]] for group, most, places in zip(groups, wanted, ranked, strict=True)]


class _Herd:
    """Classes padded to the longest of them, with their weights w.

    Scores are formed in the type of the features, float32 as a rule. Some steps are taken with them at once. Then the
    two best scores of every step and class are compared: where they are closer than that type can tell, the rule in
    float64 decides, and the steps behind one that it decides otherwise are taken by it, too.
    """

    def __init__(self, vectors: Floats, groups: list[Integers]) -> None:
        longest, dim = max(len(group) for group in groups), vectors.shape[1]
        shape = len(groups), longest
        self.groups = groups
        room = torch.zeros(*shape, dim, dtype=torch.float32 if vectors.dtype == np.float32 else torch.float64)
        self.rows = room.numpy()  # torch's memory is aligned to what the processor loads
        self.scale = np.ones(shape)  # rows times scale have norm 1
        self.padding = np.zeros(shape, self.rows.dtype)
        self.w = np.empty((len(groups), dim))
        with np.errstate(invalid="ignore", over="ignore"):
            for label, group in enumerate(groups):  # class by class, so that float64 stays in the processor's cache
                own = slice(0, len(group))
                exact = vectors.take(group, axis=0, out=self.rows[label, own], mode="clip").astype(np.float64)
                squares = np.matmul(exact[:, None], exact[:, :, None])[:, 0, 0]
                scale = np.reciprocal(np.sqrt(np.maximum(squares, SMALLEST)), out=self.scale[label, own])
                np.matmul(scale, exact, out=self.w[label])
                self.padding[label, len(group) :] = -np.inf
        self.w /= np.array([[len(group)] for group in groups])
        if not (np.isfinite(self.w).all() and self.scale.all()):
            raise ValueError("herding needs finite features; some are NaN or infinite")
        self.scale[self.scale == SMALLEST**-0.5] = 1.0  # rows of zeros
        self.mu = self.w
        self.rounding = np.full(len(groups), (dim + 4) * float(np.finfo(self.rows.dtype).eps))
        is_safe = (self.scale.max(1) < SAFE_SCALE) & (self.scale.min(1) > 1 / SAFE_SCALE)
        self.rounding[~is_safe] = np.inf

    def steps(self, count: int) -> Integers:
        """Take steps in all classes; return the places that they lead to, ``(count, C)``."""
        classes, longest, dim = self.rows.shape
        rows, row_scale = self.rows.reshape(-1, dim), self.scale.reshape(-1, 1)
        w_column = np.empty((classes, dim, 1), rows.dtype)
        first = np.arange(0, classes * longest, longest)
        scores = np.empty((count, classes, longest, 1), rows.dtype)
        places = np.empty((count, classes), np.int64)
        ws = np.empty((count + 1, classes, dim))
        ws[0] = self.w
        is_padded = bool(self.padding.any())
        with np.errstate(invalid="ignore", over="ignore"):  # vector units may raise flags for lanes without a number
            scale = self.scale.astype(rows.dtype)
            for rough, place, w, moved in zip(scores, places, ws, ws[1:], strict=False):
                w_column[:, :, 0] = w
                np.matmul(self.rows, w_column, out=rough)
                lines = rough[:, :, 0]
                np.multiply(lines, scale, out=lines)
                if is_padded:
                    np.add(lines, self.padding, out=lines)
                chosen = first + lines.argmax(1, out=place)
                np.add(w, self.mu, out=moved)
                np.subtract(moved, rows.take(chosen, axis=0) * row_scale.take(chosen, axis=0), out=moved)
            self._settle(scores.reshape(count, classes, longest), places, ws)
        self.w = ws[-1]
        return places

    def _settle(self, scores: Floats, places: Integers, ws: Floats) -> None:
        """Let float64 decide where the two best of ``(T, C, N)`` are too close; correct places and weights."""
        flat, best = scores.reshape(-1), places + np.arange(0, scores.size, scores.shape[2]).reshape(places.shape)
        lead = flat.take(best)
        flat[best] = -np.inf
        lead -= scores.max(2)
        lengths = np.sqrt(np.square(ws[:-1]).sum(2))
        is_doubtful = ~(lead > self.rounding * lengths + TIE_STEP * scores.shape[2])  # so, too, where there is NaN
        if not is_doubtful.any():
            return
        for label in is_doubtful.any(0).nonzero()[0].tolist():
            self._settle_class(label, is_doubtful[:, label].nonzero()[0].tolist(), places[:, label], ws[:, label])

    def _settle_class(self, label: int, doubtful: list[int], places: Integers, ws: Floats) -> None:
        size = len(self.groups[label])
        rows, scale = self.rows[label, :size].astype(np.float64), self.scale[label, :size]
        ties = TIE_STEP * np.arange(size)
        is_wrong = False
        for step in range(doubtful[0], len(places)):
            if is_wrong or step in doubtful:
                place = int((rows @ ws[step] * scale - ties).argmax())
                is_wrong = is_wrong or place != places[step]
            if is_wrong:
                places[step] = place
                ws[step + 1] = ws[step] + self.mu[label] - rows[place] * scale[place]
