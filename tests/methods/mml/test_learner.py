"""The learner: another memory is another answer, the same memory the same one; epochs are counted and chosen."""

from __future__ import annotations

import io

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from mmcl.errors import UserError
from mmcl.memory.search import make_index
from mmcl.methods.mml.learner import (
    BestEpoch,
    MmlLearner,
    Queries,
    Tally,
    evaluate,
    near_rows,
    training_free_logits,
)
from mmcl.methods.mml.readout import side_logits
from tests.methods.mml import cases


def test_a_query_enters_each_side_twice() -> None:
    learner, knowledge = cases.learner(), cases.memory(1)
    queries = cases.queries(2, knowledge)
    images, texts = knowledge.images[queries.near_images], knowledge.texts[queries.near_texts]
    features, temperature = queries.features, learner.temperature
    image_side = learner.attn_img.plain(features, images, images) + features
    text_side = learner.attn_txt.plain(features, texts, texts) + features
    by_images = side_logits(image_side, knowledge.image_prototypes, temperature)
    by_texts = side_logits(text_side, knowledge.text_prototypes, temperature)
    expected = by_images + by_texts
    for nothing, other in (("near_texts", by_images), ("near_images", by_texts)):
        alone = queries._replace(**{nothing: torch.empty(len(features), 0, dtype=torch.int64)})
        assert cases.apart(learner(alone, knowledge), other) < 1e-5
    loss, logits = learner.batch_loss(queries, knowledge)
    assert cases.apart(logits, expected) < 1e-5
    assert cases.apart(loss, cross_entropy(expected, queries.labels)) < 1e-5


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), classes=st.integers(1, 6))
def test_replacing_the_memory_and_back_restores_the_logits_bit_by_bit(seed: int, classes: int) -> None:
    learner = cases.learner(seed)

    def answers(memory_seed: int, count: int) -> torch.Tensor:
        knowledge = cases.memory(memory_seed, count)
        return learner(cases.queries(seed, knowledge), knowledge)

    with torch.no_grad():
        before, other, after = answers(seed, 3), answers(seed + 1, classes), answers(seed, 3)
    assert other.shape == (7, classes)
    assert torch.equal(before, after)


def test_without_learning_the_mean_of_the_neighbours_stands_for_the_block() -> None:
    knowledge = cases.memory(1)
    queries = cases.queries(2, knowledge)
    sides = [
        torch.stack([query + items[near].sum(dim=0) / len(near) for query, near in zip(queries[0], rows, strict=True)])
        for items, rows in ((knowledge.images, queries.near_images), (knowledge.texts, queries.near_texts))
    ]
    by_images = side_logits(sides[0], knowledge.image_prototypes, 4.0)
    expected = by_images + side_logits(sides[1], knowledge.text_prototypes, 4.0)
    assert cases.apart(training_free_logits(queries, knowledge, 4.0), expected) < 1e-6


def test_a_memory_stored_in_half_is_read_in_the_type_of_the_weights() -> None:
    learner, knowledge = cases.learner(), cases.memory(1)
    queries = cases.queries(2, knowledge)
    stored = type(knowledge)(*(part.half() for part in knowledge))
    logits = learner(queries, stored)
    assert logits.dtype == torch.float32
    assert cases.apart(logits, learner(queries, knowledge)) < 1e-2


@pytest.mark.parametrize(
    ("k", "count", "message"), [(4, 3, "expected 1 to 3"), (0, 3, "expected 1 to 3"), (4, 0, "the memory has no items")]
)
def test_neighbours_that_the_memory_does_not_have_are_refused(k: int, count: int, message: str) -> None:
    with pytest.raises(UserError, match=f"method.text_neighbours={k}: {message}"):
        near_rows(torch.ones(2, 8), make_index("exact", torch.ones(count, 8)), k, "method.text_neighbours")


def test_neighbours_are_the_nearest_by_cosine_and_of_equal_ones_the_lowest() -> None:
    items = torch.tensor([[0.0, 1.0], [2.0, 2.0], [9.0, 0.0], [1.0, 1.0], [-1.0, 0.0]])
    assert near_rows(torch.tensor([[1.0, 0.9]]), make_index("exact", items), 4, "k").tolist() == [[1, 3, 2, 0]]


def test_an_epoch_counts_batches_alike_and_queries_alike() -> None:
    learner, knowledge = cases.learner(), cases.memory(1)
    queries = cases.queries(2, knowledge, count=7)
    figures = evaluate(learner, queries, knowledge, batch_size=3)
    logits = learner(queries, knowledge).detach()
    losses = [cross_entropy(logits[rows], queries.labels[rows]) for rows in torch.arange(7).split(3)]
    assert figures.loss == pytest.approx(float(sum(losses)) / 3, rel=1e-5)
    assert figures.accuracy == pytest.approx(100 * float((logits.argmax(dim=1) == queries.labels).double().mean()))


def test_a_tally_is_of_all_its_batches() -> None:
    tally = Tally()
    tally.add(torch.tensor(1.0), torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([1, 1]))
    tally.add(torch.tensor(4.0), torch.tensor([[0.0, 1.0]]), torch.tensor([1]))
    assert tally.figures() == (2.5, pytest.approx(200 / 3))


def test_training_learns_a_small_task() -> None:
    learner, knowledge = MmlLearner(8, 16.0, cases.draws(0)), cases.memory(1)
    queries = cases.queries(2, knowledge, count=12)
    optimizer = torch.optim.Adam(learner.parameters(), 1e-2)
    before = evaluate(learner, queries, knowledge, 12)
    for _ in range(40):
        optimizer.zero_grad()
        learner.batch_loss(queries, knowledge)[0].backward()
        optimizer.step()
    after = evaluate(learner, queries, knowledge, 12)
    assert after.loss < 0.2 * before.loss
    assert after.accuracy == 100


def test_the_earliest_of_the_best_epochs_is_kept_and_survives_saving() -> None:
    learners = [cases.learner(seed) for seed in range(4)]
    best = BestEpoch()
    taken = [best.offer(epoch, accuracy, learners[epoch]) for epoch, accuracy in enumerate([0.0, 60.0, 60.0, 50.0])]
    assert taken == [True, True, False, False]
    with torch.no_grad():
        learners[1].attn_txt.ln_q.bias += 1  # the kept weights are a copy
    file = io.BytesIO()
    torch.save(best.state_dict(), file)
    file.seek(0)
    resumed, learner = BestEpoch(), cases.learner(9)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert (resumed.epoch, resumed.accuracy) == (1, 60.0)
    assert not resumed.offer(4, 60.0, learners[3])
    resumed.restore(learner)
    expected = cases.learner(1).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in learner.state_dict().items())


def test_without_an_epoch_nothing_is_restored() -> None:
    learner = cases.learner(9)
    BestEpoch().restore(learner)
    expected = cases.learner(9).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in learner.state_dict().items())


def test_selected_queries_keep_their_neighbours() -> None:
    queries = cases.queries(2, cases.memory(1))
    chosen = queries.select(torch.tensor([5, 0]))
    assert isinstance(chosen, Queries)
    assert all(torch.equal(part, whole[[5, 0]]) for part, whole in zip(chosen, queries, strict=True))
