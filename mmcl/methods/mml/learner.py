"""What the Memory-Modular Learner trains and how an epoch of it is counted, without any engine around it.

Kang et al., "Memory-Modular Classification: Learning to Generalize with Memory Replacement", TMLR 2025. Two blocks,
one for images and one for texts, refine a query with its nearest items of a memory; classes are prototypes computed
from that memory, never learned. So the learner holds nothing about any class: another memory is another
:class:`ClassKnowledge`, given to the same :class:`MmlLearner`.
"""

from __future__ import annotations

from functools import reduce
from operator import add
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, embedding

from mmcl.errors import UserError
from mmcl.memory.search import RowIndex
from mmcl.methods.mml.blocks import CrossAttentionBlock, standardise
from mmcl.methods.mml.readout import shifted_by_mean, side_logits


class ClassKnowledge(NamedTuple):
    """A memory as the learner reads it.

    Attributes:
        images: items of the image memory as the encoder gives them ``(N_i, D)``.
        texts: items of the text memory ``(N_t, D)``.
        standard_images: :func:`~mmcl.methods.mml.blocks.standardise` of ``images``.
        standard_texts: the same of ``texts``.
        image_prototypes: unit rows ``(C, D)``.
        text_prototypes: unit rows ``(C, D)``.
    """

    images: Tensor
    texts: Tensor
    standard_images: Tensor
    standard_texts: Tensor
    image_prototypes: Tensor
    text_prototypes: Tensor


class Queries(NamedTuple):
    """Queries with their labels and their places in a memory.

    Attributes:
        features: as the encoder gives them ``(B, D)``.
        labels: int64 ``(B,)``.
        near_images: rows of the image memory, nearest first, int64 ``(B, k_i)``; ``k_i`` is 0 without images.
        near_texts: rows of the text memory, int64 ``(B, k_t)``; ``k_t`` is 0 without texts.
    """

    features: Tensor
    labels: Tensor
    near_images: Tensor
    near_texts: Tensor

    def select(self, rows: Tensor) -> Queries:
        """Return the queries named by an int64 index ``(M,)``."""
        return Queries(*(part[rows] for part in self))


class EpochFigures(NamedTuple):
    """``loss``: mean over batches, which all weigh alike; ``accuracy``: percent of the queries."""

    loss: float
    accuracy: float


def class_knowledge(images: Tensor, texts: Tensor, image_prototypes: Tensor, text_prototypes: Tensor) -> ClassKnowledge:
    """Compute once for a memory what does not depend on the learner's weights; shapes as in the result."""
    return ClassKnowledge(images, texts, standardise(images), standardise(texts), image_prototypes, text_prototypes)


def near_rows(queries: Tensor, items: RowIndex, k: int, setting: str) -> Tensor:
    """Find the nearest items of each query, once for as long as query features and memory stay.

    Args:
        queries: ``(B, D)``.
        items: index of the whole memory of a modality, all classes together, N items.
        k: how many.
        setting: name of the key that sets k, for the message.

    Returns:
        int64 ``(B, k)``, nearest first, of equal ones the lowest row first.

    Raises:
        UserError: k below 1, or fewer items than k.
    """
    if not len(items):
        raise UserError(f"{setting}={k}: the memory has no items of this modality; give it at least {k}")
    if not 1 <= k <= len(items):
        raise UserError(f"{setting}={k}: expected 1 to {len(items)}, as many as the memory has items of this modality")
    return items.search(queries, k).rows


class MmlLearner(nn.Module):
    """The two blocks that reason over a memory, and the loss that trains them.

    Args:
        dimension: D, length of a feature.
        temperature: factor of the cosines; the paper's code calls it ``multemp``.
        generator: draws the start weights.
    """

    def __init__(self, dimension: int, temperature: float, generator: torch.Generator) -> None:
        super().__init__()
        self.temperature = temperature
        self.attn_txt = CrossAttentionBlock(dimension, generator)
        self.attn_img = CrossAttentionBlock(dimension, generator)

    def forward(self, queries: Queries, knowledge: ClassKnowledge) -> Tensor:
        """Return the logits of queries ``(B, C)`` for the classes of the memory that their neighbours are rows of.

        A query enters each side twice: through its block, and beside it. A modality of which the memory has nothing is
        left out. All is computed in the type of the weights.
        """
        dtype = self.attn_txt.attn.in_proj_weight.dtype
        features = queries.features.to(dtype)
        sides = (
            (self.attn_txt, queries.near_texts, knowledge.standard_texts, knowledge.text_prototypes),
            (self.attn_img, queries.near_images, knowledge.standard_images, knowledge.image_prototypes),
        )
        logits = []
        for block, near, items, prototypes in sides:
            if near.shape[1]:
                neighbours = embedding(near, items).to(dtype)  # indexing would gather at several times the cost
                refined = block(features, neighbours, neighbours) + features
                logits.append(side_logits(refined, prototypes.to(dtype), self.temperature))
        return reduce(add, logits)

    def batch_loss(self, queries: Queries, knowledge: ClassKnowledge) -> tuple[Tensor, Tensor]:
        """Return the mean cross-entropy of a batch, a scalar, and its logits ``(B, C)``."""
        logits = self(queries, knowledge)
        return cross_entropy(logits, queries.labels), logits


def training_free_logits(queries: Queries, knowledge: ClassKnowledge, temperature: float) -> Tensor:
    """Return the logits of queries ``(B, C)`` with the mean of the neighbours in place of the learned blocks."""
    sides = (
        (queries.near_texts, knowledge.texts, knowledge.text_prototypes),
        (queries.near_images, knowledge.images, knowledge.image_prototypes),
    )
    return reduce(
        add,
        (
            side_logits(shifted_by_mean(queries.features, embedding(near, items)), prototypes, temperature)
            for near, items, prototypes in sides
            if near.shape[1]
        ),
    )


class Tally:
    """Counts an epoch, batch by batch."""

    def __init__(self) -> None:
        self._losses: list[Tensor] = []
        self._hits: list[Tensor] = []

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Count a batch: its loss, a scalar, its logits ``(B, C)`` and labels ``(B,)``. Nothing waits for a device."""
        self._losses.append(loss.detach().float())
        self._hits.append(logits.detach().argmax(dim=1) == labels)

    def figures(self) -> EpochFigures:
        """Return the figures of all batches so far; there must be one."""
        hits = torch.cat(self._hits)
        return EpochFigures(float(torch.stack(self._losses).mean()), 100 * int(hits.sum()) / len(hits))


@torch.no_grad()
def evaluate(learner: MmlLearner, queries: Queries, knowledge: ClassKnowledge, batch_size: int) -> EpochFigures:
    """Count all queries in order, in batches whose last is what remains."""
    tally = Tally()
    for rows in torch.split(torch.arange(len(queries.labels), device=queries.labels.device), batch_size):
        batch = queries.select(rows)
        tally.add(*learner.batch_loss(batch, knowledge), batch.labels)
    return tally.figures()


class BestEpoch(nn.Module):
    """Keeps the weights of the epoch with the highest validation accuracy; of equal ones the earliest.

    It is part of the state of a run, so that a resumed one chooses as an undisturbed one.

    Attributes:
        epoch: the chosen epoch, from 0; -1 before any.
        accuracy: its validation accuracy in percent.
    """

    def __init__(self) -> None:
        super().__init__()
        self.epoch, self.accuracy = -1, -1.0
        self._weights: dict[str, Tensor] = {}

    def offer(self, epoch: int, accuracy: float, learner: nn.Module) -> bool:
        """Keep the weights if the accuracy is above the best so far; say whether it is."""
        better = accuracy > self.accuracy
        if better:
            self.epoch, self.accuracy = epoch, accuracy
            self._weights = {name: value.detach().cpu().clone() for name, value in learner.state_dict().items()}
        return better

    def restore(self, learner: nn.Module) -> None:
        """Give the learner the kept weights; without any epoch it stays as it is."""
        if self._weights:
            learner.load_state_dict(self._weights)

    def get_extra_state(self) -> dict[str, Any]:
        """Return what was kept."""
        return {"epoch": self.epoch, "accuracy": self.accuracy, "weights": self._weights}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take what was kept."""
        self.epoch, self.accuracy, self._weights = state["epoch"], state["accuracy"], state["weights"]
