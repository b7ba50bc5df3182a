"""A memory made ready for answers: what does not depend on the query is computed once."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from mmcl.memory.class_memory import ClassMemory
from mmcl.memory.prototypes import ClassRows
from mmcl.memory.search import make_index
from mmcl.methods.mml.learner import MmlLearner, Queries, class_knowledge, near_rows, training_free_logits
from mmcl.methods.mml.readout import majority_votes, mean_prototypes, prototype_scores


class Neighbourhood(NamedTuple):
    """How far a query looks, and at what.

    Attributes:
        images: image rows that a query sees.
        texts: text rows that a query sees.
        search: ``exact`` or ``faiss``.
        length: what queries and rows are scaled to before the learner sees them; None leaves them as they are.
    """

    images: int
    texts: int
    search: str
    length: float | None


def scaled(features: Tensor, length: float | None) -> Tensor:
    """Return features ``(..., D)`` of one length.

    A query is added to what its block makes of it. The block reads standardised items, whose length is the root of D:
    beside them, unit features are next to nothing, and features of length 80 are everything.
    """
    return features if length is None else length * normalize(features, dim=-1)


class Remembered:
    """A memory with its search indexes, prototypes and class means, on one device.

    Where the memory has no images, class means and votes are those of its texts, and the other way round.

    Args:
        memory: not empty.
        neighbourhood: how far queries look.
        device: where queries will be.

    Attributes:
        knowledge: the memory as the learner reads it.
    """

    def __init__(self, memory: ClassMemory, neighbourhood: Neighbourhood, device: torch.device) -> None:
        content, prototypes = memory.content, memory.prototypes
        self.class_count = content.class_count
        self.neighbourhood = neighbourhood
        images, texts = (ClassRows(rows[0].float().to(device), rows[1].to(device)) for rows in content[:2])
        shown = (scaled(rows.features, neighbourhood.length) for rows in (images, texts))
        self.knowledge = class_knowledge(*shown, *(part.to(device) for part in prototypes))
        self._indexes = [
            make_index(neighbourhood.search, rows.features) if len(rows.features) else None for rows in (images, texts)
        ]
        self._main = images if len(images.features) else texts
        self._means = mean_prototypes(*self._main, self.class_count)

    def queries(self, features: Tensor, labels: Tensor) -> Queries:
        """Find the neighbours of queries ``(B, D)`` with labels ``(B,)``; their features are scaled for the learner.

        Raises:
            UserError: the memory has fewer rows of a modality than a query looks at.
        """
        wanted = (
            (self._indexes[0], self.neighbourhood.images, "method.image_neighbours"),
            (self._indexes[1], self.neighbourhood.texts, "method.text_neighbours"),
        )
        nothing = torch.empty(len(features), 0, dtype=torch.int64, device=features.device)
        near = [nothing if index is None else near_rows(features, index, k, key) for index, k, key in wanted]
        return Queries(scaled(features, self.neighbourhood.length), labels, *near)

    def scores(self, learner: MmlLearner, features: Tensor) -> dict[str, Tensor]:
        """Return what the learner and its training-free relatives say about queries ``(B, D)``, each ``(B, C)``."""
        queries = self.queries(features, torch.zeros(len(features), dtype=torch.int64, device=features.device))
        near = queries.near_images if queries.near_images.shape[1] else queries.near_texts
        return {
            "mml": learner(queries, self.knowledge).float(),
            "addknn": training_free_logits(queries, self.knowledge, learner.temperature),
            "prototype": prototype_scores(features, self.knowledge.image_prototypes),
            "ncm": prototype_scores(features, self._means),
            "knn": majority_votes(self._main.classes[near], self.class_count),
        }
