"""Readouts of a class memory by their definitions."""

from __future__ import annotations

import torch
from torch.nn.functional import cosine_similarity, normalize

from mmcl.methods.mml.readout import majority_votes, mean_prototypes, prototype_scores, side_logits
from tests.methods.mml import cases


def test_a_side_meets_the_prototypes_of_its_modality() -> None:
    refined = torch.randn(4, 8, generator=cases.draws(0))
    prototypes = normalize(torch.randn(3, 8, generator=cases.draws(1)), dim=1)
    cosines = cosine_similarity(refined[:, None], prototypes[None], dim=2)
    assert cases.apart(side_logits(refined, prototypes, 2.0), 2 * cosines) < 1e-6


def test_votes_go_to_the_most_frequent_class_and_of_several_to_the_lowest() -> None:
    neighbours = torch.tensor([[3, 1, 3, 0], [3, 1, 1, 3], [2, 2, 2, 2], [3, 2, 1, 0]])
    assert majority_votes(neighbours, 4).argmax(dim=1).tolist() == [3, 1, 2, 0]
    assert majority_votes(neighbours, 4).sum(dim=1).tolist() == [1, 1, 1, 1]


def test_means_take_all_items_and_a_class_without_any_is_never_the_answer() -> None:
    items = torch.tensor([[-3.0, 0.0], [-1.0, 2.0], [-5.0, -5.0]])
    means = mean_prototypes(items, torch.tensor([2, 2, 0]), 3)
    assert cases.apart(means, normalize(torch.tensor([[-1.0, -1.0], [0.0, 0.0], [-4.0, 2.0]]), dim=1)) < 1e-6
    scores = prototype_scores(torch.tensor([[1.0, 0.5]]), means)
    assert scores[0, 1] == -torch.inf
    assert scores.argmax() == 2
