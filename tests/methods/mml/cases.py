"""Small memories and queries."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from mmcl.memory.search import make_index
from mmcl.methods.mml.learner import ClassKnowledge, MmlLearner, Queries, class_knowledge, near_rows

DIMENSION, CLASSES, NEAR_IMAGES, NEAR_TEXTS = 8, 3, 4, 5


def draws(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def learner(seed: int = 0) -> MmlLearner:
    """Return a learner whose biases and LayerNorms are no longer at their start."""
    made, generator = MmlLearner(DIMENSION, 16.0, draws(seed)), draws(seed + 1)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return made


def memory(seed: int, classes: int = CLASSES) -> ClassKnowledge:
    generator = draws(seed)
    images, texts = (torch.randn(rows, DIMENSION, generator=generator) + 0.5 for rows in (20, 30))
    prototypes = normalize(torch.randn(2, classes, DIMENSION, generator=generator), dim=2)
    return class_knowledge(images, texts, *prototypes)


def queries(seed: int, knowledge: ClassKnowledge, count: int = 7) -> Queries:
    features = torch.randn(count, DIMENSION, generator=draws(seed))
    return Queries(
        features,
        torch.arange(count) % CLASSES,
        near_rows(features, make_index("exact", knowledge.images), NEAR_IMAGES, "method.image_neighbours"),
        near_rows(features, make_index("exact", knowledge.texts), NEAR_TEXTS, "method.text_neighbours"),
    )


def apart(left: Tensor, right: Tensor) -> float:
    """Return the largest difference beside the largest value."""
    left, right = left.detach(), right.detach()
    return float((left - right).abs().max() / right.abs().max().clamp(min=1))
