from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

from mmcl.benchmarks.memory_sets import without_images, without_texts
from mmcl.errors import UserError
from mmcl.memory.prototypes import ClassRows
from mmcl.methods.mml.blocks import standardise
from mmcl.methods.reco import Reco, RecoConfig
from mmcl.methods.reco_fusion import PairMemory, RecoLearner, partners
from mmcl.protocol import FeatureBatch, MemoryTask
from tests.methods.encoded import DIMENSION, ingredients, step_schedule
from tests.methods.memory_cases import HELD_OUT, SEEN, UNSEEN, answers, class_set, memory_task, move_to

LEARNED, VALIDATION = class_set(SEEN, training=8), class_set(HELD_OUT)


def _reco(epochs: int = 6, **changed: Any) -> Reco:
    schedule = step_schedule(epochs=epochs, lr=0.003)
    keys = {"_target_": "", "name": "reco", "prompts": "full", "neighbours": 5, "temperature": 10.0}
    return Reco(RecoConfig(**{**keys, "schedule": schedule, **changed}), ingredients())


def _first() -> MemoryTask:
    return memory_task(LEARNED, learned=LEARNED, validation=VALIDATION)


def _learn(method: Reco) -> list[tuple[dict[str, float], dict[str, float]]]:
    """Learn as the engine does; return losses of the last batch and figures of each epoch."""
    task = _first()
    method.grow(task)
    method.begin_task(task)
    (stage,) = method.stages(task)
    method.begin_stage(stage, task)
    optimizer, _ = method.optimizer_of(stage)
    queries, history = stage.samples, []
    for epoch in range(stage.schedule.epochs):
        for rows in torch.split(torch.arange(len(queries)), 16):
            batch = FeatureBatch(queries.features[rows], queries.labels[rows], queries.sources[rows])
            terms = method.losses(batch)
            optimizer.zero_grad()
            torch.stack(list(terms.values())).sum().backward()
            optimizer.step()
        history.append(({name: float(term.detach()) for name, term in terms.items()}, method.epoch_figures(epoch)))
    method.end_stage(stage, task)
    return history


def _shaken(seed: int = 0) -> RecoLearner:
    """Return a learner that no longer stands at its start."""
    learner = RecoLearner(DIMENSION, 10.0, torch.Generator().manual_seed(seed))
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return learner


@given(st.integers(0, 2**31), st.integers(0, 12), st.integers(0, 12))
@settings(max_examples=30, deadline=None)
def test_partners_are_the_nearest_of_the_same_class(seed: int, count: int, other_count: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows, others = (
        ClassRows(torch.randn(size, 3, generator=generator), torch.randint(3, (size,), generator=generator))
        for size in (count, other_count)
    )
    for row, partner in enumerate(partners(rows, others).tolist()):
        same = (others.classes == rows.classes[row]).nonzero().flatten().tolist()
        cosines = [float(torch.cosine_similarity(rows.features[row], others.features[place], dim=0)) for place in same]
        if same:
            assert partner in same
            assert cosines[same.index(partner)] == pytest.approx(max(cosines), abs=1e-6)
        else:
            assert partner == -1


def test_rows_without_a_partner_are_never_read() -> None:
    content = class_set(SEEN).content(False)
    kept = content.images.classes != 2
    content = content._replace(images=ClassRows(content.images.features[kept], content.images.classes[kept]))
    memory = PairMemory(content, 12, torch.device("cpu"))
    queries = class_set(SEEN).queries.features[:, 0]
    for side, pairs in ((memory.images, 24), (memory.texts, 12)):
        read = side.read(queries)
        assert (len(read.values), read.near.shape) == (pairs, (40, 12))


def test_refining_is_a_transformer_layer_over_the_embedding_and_the_other_modality() -> None:
    layer = _shaken().image_fusion
    content = class_set(SEEN).content(False)
    queries = class_set(SEEN).queries.features[:3, 0]
    found = layer(PairMemory(content, 4, torch.device("cpu")).images.read(queries))
    units = normalize(queries, dim=1)
    near = (units @ normalize(content.images.features, dim=1).T).topk(4).indices
    texts = content.texts.features[partners(content.images, content.texts)[near]]
    tokens = DIMENSION**0.5 * units
    items = torch.cat([tokens[:, None], texts], dim=1)
    torch.testing.assert_close(found, normalize(layer.block.plain(tokens, items, items), dim=1))


def test_it_begins_by_adding_what_is_read() -> None:
    method = _reco(epochs=0)
    content, queries = LEARNED.content(False), LEARNED.queries.features[:, 0]
    layer = method.learner.image_fusion
    read = PairMemory(content, 5, torch.device("cpu")).images.read(queries)
    tokens = DIMENSION**0.5 * normalize(queries, dim=1)
    items = torch.cat([standardise(tokens)[:, None], read.values[read.near]], dim=1)
    shift = (layer.block.attention(tokens, items)[..., None] * items).sum(dim=1)
    torch.testing.assert_close(layer(read), normalize(tokens + shift, dim=1))


def test_learning_lowers_every_loss_and_the_best_epoch_is_kept() -> None:
    method = _reco(epochs=12)
    history = _learn(method)
    (first, _), (last, _) = history[0], history[-1]
    assert first.keys() == {"refined", "refined_images", "refined_texts"}
    assert all(last[name] < first[name] for name in first)
    accuracies = [figures["validation_accuracy"] for _, figures in history]
    assert method.best.epoch == accuracies.index(max(accuracies))
    found = move_to(method, memory_task(VALIDATION, index=1))["reco"].argmax(1)
    labels = VALIDATION.queries.labels
    assert 100 * float((found == labels).double().mean()) == pytest.approx(max(accuracies))


def test_another_memory_changes_the_answers_without_learning_and_the_first_brings_them_back() -> None:
    method = _reco()
    _learn(method)
    first = answers(method, _first())["reco"]
    weights = [parameter.clone() for parameter in method.learner.parameters()]
    unseen = memory_task(class_set(UNSEEN), index=1)
    assert move_to(method, unseen)["reco"].shape == (30, 3)
    fewer = move_to(method, memory_task(class_set(UNSEEN, images=2), index=2))
    assert not fewer["reco"].allclose(move_to(method, unseen)["reco"], atol=1e-3)
    assert move_to(method, memory_task(LEARNED, index=3))["reco"].equal(first)
    assert all(ours.equal(theirs) for ours, theirs in zip(method.learner.parameters(), weights, strict=True))


@pytest.mark.parametrize("without", [without_images, without_texts])
def test_without_pairs_the_texts_answer(without: Any) -> None:
    method = _reco()
    _learn(method)
    found = move_to(method, memory_task(without(class_set(UNSEEN)), index=1))
    torch.testing.assert_close(found["reco"] / 10.0, found["text"] / 100.0)


def test_the_order_of_a_memory_does_not_matter() -> None:
    learner, content = _shaken(), class_set(SEEN).content(False)
    queries, texts = class_set(SEEN).queries.features[:, 0], class_set(SEEN).prompts("full").features
    order = torch.randperm(len(content.images.classes), generator=torch.Generator().manual_seed(3))
    mixed = content._replace(images=ClassRows(*(part[order] for part in content.images)))

    def logits(memory: PairMemory) -> Tensor:
        found: Tensor = learner(memory.images.read(queries), memory.texts.read(texts))
        return found

    device = torch.device("cpu")
    torch.testing.assert_close(logits(PairMemory(mixed, 5, device)), logits(PairMemory(content, 5, device)))


def test_the_state_is_enough_to_answer() -> None:
    method, resumed = _reco(), _reco()
    _learn(method)
    tasks = [_first(), memory_task(class_set(UNSEEN), index=1)]
    expected = move_to(method, tasks[1])
    for task in tasks:
        resumed.grow(task)
    resumed.load_state_dict(method.state_dict())
    found = answers(resumed, tasks[1])
    assert all(found[name].equal(expected[name]) for name in expected)
    assert resumed.best.epoch == method.best.epoch
    assert resumed.byte_report() == method.byte_report()


@pytest.mark.parametrize(
    ("changed", "message"),
    [({"neighbours": 0}, "method.neighbours=0"), ({"temperature": 0.0}, "method.temperature=0.0")],
)
def test_values_that_make_no_sense_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        _reco(**changed)


def test_a_memory_with_too_few_pairs_is_refused() -> None:
    method = _reco(neighbours=25)
    with pytest.raises(UserError, match=r"method.neighbours=25: expected 1 to 24"):
        move_to(method, memory_task(class_set(UNSEEN)))
