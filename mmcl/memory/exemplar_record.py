"""What a method tells about its exemplars after a task: how their pixels changed, and where they lie."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class ExemplarRecord:
    """Exemplars of some shown classes, beside features of everything around them.

    Labels are positions in the class order. Images are on the scale 0..255, uint8 or float. Features are those of the
    model after the task under the test transform, normalised or not: only their directions are kept.

    Attributes:
        mode: how pixels are learned, as configured (``off``, ``nme``, ...).
        images_before: exemplars of the shown classes as they were chosen, before anything changed them
            ``(K, 3, H, W)``.
        images_after: the same ones as the memory holds them now ``(K, 3, H, W)``.
        labels: int64 ``(K,)``; the classes that occur are the shown ones.
        chosen_in: task in which each was chosen, int64 ``(K,)``.
        drift: L2 norm of the change in normalised pixels since the choice, of each exemplar of the classes of this task
            or of more classes, float ``(R,)``.
        drift_labels: int64 ``(R,)``.
        features: of all training images of the shown classes ``(N, D)``.
        feature_labels: int64 ``(N,)``.
        exemplar_features: of ``images_after`` ``(K, D)``.
        picks_random: rows of ``features`` that a random choice of as many exemplars would keep, int64 ``(P,)``.
        picks_herding: rows that herding would keep, int64 ``(Q,)``.
        class_means: of the other seen classes, one row each ``(C, D)``; C may be 0.
    """

    mode: str
    images_before: Tensor
    images_after: Tensor
    labels: Tensor
    chosen_in: Tensor
    drift: Tensor
    drift_labels: Tensor
    features: Tensor
    feature_labels: Tensor
    exemplar_features: Tensor
    picks_random: Tensor
    picks_herding: Tensor
    class_means: Tensor
