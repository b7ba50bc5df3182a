"""Nearest class mean: the mean feature of each class under a frozen pre-trained network, and nothing else.

With the cosine it is SimpleCIL of Zhou, Cai, Ye, Zhan, Liu, "Revisiting Class-Incremental Learning with Pre-Trained
Models: Generalizability and Adaptivity are All You Need", IJCV 2024.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from mmcl.config.schema import ComponentConfig, setting
from mmcl.methods.pretrained import PretrainedIncremental, PretrainedIngredients
from mmcl.methods.spelling import check_spelling
from mmcl.protocol import ClassTask

DISTANCES = ("cosine", "euclidean")


@dataclass
class NcmConfig(ComponentConfig):
    """Keys of nearest class mean."""

    distance: str = setting("cosine between feature and mean, or euclidean distance.")

    def __post_init__(self) -> None:
        """Refuse other distances."""
        check_spelling("distance", self.distance, DISTANCES)


def mean_features(features: Tensor, labels: Tensor, known: int, seen: int) -> Tensor:
    """Average the features ``(N, D)`` of each of the classes ``known .. seen - 1`` in float64: float32 ``(C, D)``."""
    labels = labels.to(features.device)
    return torch.stack([features[labels == label].double().mean(dim=0) for label in range(known, seen)]).float()


def cosine_scores(features: Tensor, means: Tensor) -> Tensor:
    """Return the cosine of features ``(B, D)`` and means ``(C, D)``: ``(B, C)``."""
    return normalize(features, dim=1) @ normalize(means, dim=1).T


def euclidean_scores(features: Tensor, means: Tensor) -> Tensor:
    """Return the negative Euclidean distance between features ``(B, D)`` and means ``(C, D)``: ``(B, C)``."""
    return -torch.cdist(features, means, compute_mode="donot_use_mm_for_euclid_dist")


class Ncm(PretrainedIncremental):
    """Answers with the class whose mean is nearest (``ncm``); trains nothing.

    Attributes:
        means: mean feature of each class seen, float32 ``(C, D)``.
    """

    Config: ClassVar[type] = NcmConfig
    readouts: tuple[str, ...] = ("ncm",)
    config: NcmConfig
    means: Tensor

    def __init__(self, config: NcmConfig, ingredients: PretrainedIngredients) -> None:
        super().__init__(config, ingredients)
        self.register_buffer("means", torch.zeros(0, self.backbone.dimension))

    def grow(self, task: ClassTask) -> None:
        """Make room for the means of new classes."""
        super().grow(task)
        self.means = torch.cat([self.means, self.means.new_zeros(task.size, self.backbone.dimension)])

    def end_task(self, task: ClassTask) -> None:
        """Average the features of the new classes."""
        self.means[task.known :] = mean_features(
            self.encode(task, task.train), task.train.labels, task.known, task.seen
        )

    def scores(self, images: Tensor) -> dict[str, Tensor]:
        """Score by cosine or by negative distance (``ncm``)."""
        score = cosine_scores if self.config.distance == "cosine" else euclidean_scores
        return {"ncm": score(self.backbone(images).float(), self.means)}

    def kept_bytes(self) -> int:
        """Count the means."""
        return self.means.nbytes
