"""Readouts of a class memory: what a query and the items near it say about classes.

The memory-modular readout and its training-free relatives of Kang et al., "Memory-Modular Classification: Learning to
Generalize with Memory Replacement", TMLR 2025. Queries come as the encoder gives them, prototypes as unit rows; larger
scores are likelier. CLIP's zero-shot readout is :func:`mmcl.methods.clip_zeroshot.cosine_logits` with the text
classifier of the classes' templates.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from mmcl.memory.prototypes import ClassRows, class_directions


class Retrieved(NamedTuple):
    """What queries looked at in a memory; of a modality that the memory does not have, k is 0.

    Attributes:
        image_rows: rows of the image memory, nearest first, int64 ``(B, k_i)``.
        image_weights: how much the query attends to each of them, float32 ``(B, k_i)``; sums to 1.
        text_rows: rows of the text memory, nearest first, int64 ``(B, k_t)``.
        text_weights: as ``image_weights``, float32 ``(B, k_t)``.
    """

    image_rows: Tensor
    image_weights: Tensor
    text_rows: Tensor
    text_weights: Tensor


def side_logits(refined: Tensor, prototypes: Tensor, temperature: float) -> Tensor:
    """Compare queries that one modality refined with the prototypes of the same modality.

    The logits of a memory with both modalities are the sum of both sides.

    Args:
        refined: queries ``(B, D)``.
        prototypes: unit rows ``(C, D)``.
        temperature: factor of the cosine; the paper's code calls it ``multemp``.

    Returns:
        ``temperature cos(refined, prototypes)``, ``(B, C)``.
    """
    return temperature * normalize(refined, dim=1) @ prototypes.T


def shifted_by_mean(queries: Tensor, neighbours: Tensor) -> Tensor:
    """Return queries ``(B, D)`` plus the mean of their neighbours ``(B, k, D)``: the refinement without learning."""
    return neighbours.mean(dim=1) + queries


def prototype_scores(queries: Tensor, prototypes: Tensor) -> Tensor:
    """Return the cosine of queries ``(B, D)`` with unit prototypes ``(C, D)``: ``(B, C)``.

    A class whose prototype is the zero vector has none and scores minus infinity.
    """
    cosines = normalize(queries, dim=1) @ prototypes.T
    return cosines.masked_fill((prototypes == 0).all(dim=1), -torch.inf)


def mean_prototypes(items: Tensor, classes: Tensor, class_count: int) -> Tensor:
    """Average all items of each class, without choosing among them, for the nearest class mean.

    Args:
        items: as the encoder gives them ``(N, D)``.
        classes: class of each item, int64 ``(N,)``.
        class_count: C.

    Returns:
        Unit rows float32 ``(C, D)``; zero for a class without items.
    """
    return class_directions(ClassRows(items, classes), torch.arange(len(items), device=items.device), class_count)


def majority_votes(neighbour_classes: Tensor, class_count: int) -> Tensor:
    """Let the nearest items vote.

    After Nakata et al., "Revisiting a kNN-Based Image Classification System with High-Capacity Storage", ECCV 2022.

    Args:
        neighbour_classes: class of each query's neighbours, int64 ``(B, k)``.
        class_count: C.

    Returns:
        float32 ``(B, C)``: 1 for the class with most votes, of several the lowest; 0 elsewhere.
    """
    votes = neighbour_classes.new_zeros(len(neighbour_classes), class_count)
    votes.scatter_add_(1, neighbour_classes, torch.ones_like(neighbour_classes))
    return one_hot(votes.argmax(dim=1), class_count).float()
