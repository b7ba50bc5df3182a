from __future__ import annotations

import io

import torch

from mmcl.memory.herding import unit_rows
from mmcl.memory.nearest_mean import (
    NearestMean,
    TwoViewNearestMean,
    class_means,
    nearest_mean_scores,
    two_view_means,
    unit_products,
)


def test_means_are_unit_means_of_unit_rows() -> None:
    features, labels = torch.randn(30, 6), torch.arange(30) % 3
    means = class_means(features, labels, 3)
    assert means.dtype == torch.float64
    for label in range(3):
        mean = unit_rows(features[labels == label]).double().mean(0)
        assert torch.allclose(means[label], mean / mean.norm())


def test_scores_are_negative_squared_distances() -> None:
    features = torch.randn(7, 6)
    means = class_means(torch.randn(30, 6), torch.arange(30) % 3, 3)
    distances = torch.cdist(unit_rows(features).double(), means).square()
    assert torch.allclose(nearest_mean_scores(features, means), -distances)


def test_class_without_rows_is_never_chosen() -> None:
    means = class_means(torch.randn(4, 5), torch.tensor([0, 0, 2, 2]), 4)
    scores = nearest_mean_scores(torch.randn(6, 5), means)
    assert torch.isfinite(scores[:, [0, 2]]).all()
    assert (scores[:, [1, 3]] == -torch.inf).all()


def test_a_zero_query_ties_with_all_classes_and_takes_the_lowest() -> None:
    means = class_means(torch.randn(40, 9), torch.arange(40) % 8, 8)
    scores = nearest_mean_scores(torch.zeros(1, 9), means)
    ranked = scores.sort(dim=1, descending=True, stable=True).indices[:, :5]
    assert ranked.tolist() == [[0, 1, 2, 3, 4]]


def test_saved_means_answer_as_before() -> None:
    view, queries = NearestMean(), torch.randn(5, 4)
    view.renew(torch.randn(12, 4), torch.arange(12) % 3, 3)
    file = io.BytesIO()
    torch.save(view.state_dict(), file)
    file.seek(0)
    restored = NearestMean()
    restored.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(restored(queries), view(queries))


def test_means_of_two_views_are_unit_means_of_both() -> None:
    features, second, labels = torch.randn(30, 6), torch.randn(30, 6), torch.arange(30) % 3
    means = two_view_means(features, second, labels, 4)
    assert means.dtype == torch.float64
    for label in range(3):
        own, other = (view[labels == label].double() for view in (features, second))
        mean = (own / own.norm(dim=1, keepdim=True)).mean(0) + (other / other.norm(dim=1, keepdim=True)).mean(0)
        torch.testing.assert_close(means[label], mean / mean.norm())
    assert not means[3].any()


def test_one_view_twice_gives_the_means_of_one() -> None:
    features, labels = torch.randn(30, 6), torch.arange(30) % 3
    torch.testing.assert_close(two_view_means(features, features, labels, 3), class_means(features, labels, 3))


def test_products_choose_the_nearest_mean_of_a_raw_feature() -> None:
    features, queries = torch.randn(40, 5), 7 * torch.randn(100, 5)
    means = two_view_means(features, features.flip(1), torch.arange(40) % 8, 8)
    nearest = torch.cdist(queries.double(), means).argmin(1)
    assert torch.equal(unit_products(queries, means).argmax(1), nearest)


def test_saved_means_of_two_views_answer_as_before_and_miss_no_class() -> None:
    view, restored, queries = TwoViewNearestMean(), TwoViewNearestMean(), torch.randn(5, 4)
    features = torch.randn(12, 4)
    view.renew(features, features.flip(1), torch.arange(12) % 3, 4)
    file = io.BytesIO()
    torch.save(view.state_dict(), file)
    file.seek(0)
    restored.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(restored(queries), view(queries))
    assert (view(queries)[:, 3] == -torch.inf).all()
    assert torch.isfinite(view(queries)[:, :3]).all()
