"""Golden checks of MML's learner: block, readouts, replaced memories, training in three arithmetics, whole runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mmcl.memory.prototypes import prototypes
from mmcl.memory.search import make_index
from mmcl.methods.clip_zeroshot import cosine_logits
from mmcl.methods.mml.blocks import CrossAttentionBlock, standardise
from mmcl.methods.mml.learner import (
    BestEpoch,
    ClassKnowledge,
    MmlLearner,
    Queries,
    Tally,
    class_knowledge,
    evaluate,
    near_rows,
    training_free_logits,
)
from mmcl.methods.mml.optimizers import mml_optimizer
from mmcl.methods.mml.readout import majority_votes, prototype_scores
from mmcl.methods.text_classifier import text_classifier
from tests.parity import Golden, close, parity

TOP = 16


def tensor(golden: Golden, name: str) -> Tensor:
    return torch.from_numpy(np.array(golden[name]))


def load(module: nn.Module, golden: Golden, prefix: str) -> None:
    """Give a module the recorded parameters, all of them and under their recorded names."""
    module.load_state_dict({name: tensor(golden, prefix + name) for name in module.state_dict()})


def learner_of(golden: Golden, prefix: str = "p.") -> MmlLearner:
    dimension = golden[f"{prefix}attn_txt.ln_q.weight"].shape[0]
    learner = MmlLearner(dimension, float(golden["multemp"]), torch.Generator())
    assert {prefix + name for name in learner.state_dict()} == {name for name in golden if name.startswith(prefix)}
    learner.to(torch.from_numpy(golden[f"{prefix}attn_txt.ln_q.weight"]).dtype)
    load(learner, golden, prefix)
    return learner


def rows_of(golden: Golden, prefix: str = "") -> list[Tensor]:
    return [tensor(golden, f"{prefix}{name}") for name in ("img_embed", "img_label", "txt_embed", "txt_label")]


def knowledge_of(
    images: Tensor, image_classes: Tensor, texts: Tensor, text_classes: Tensor, shots: tuple[Tensor, Tensor] | None
) -> ClassKnowledge:
    """Build what the learner reads of a memory, prototypes included."""
    count = int(text_classes.max()) + 1
    return class_knowledge(images, texts, *prototypes(images, image_classes, texts, text_classes, count, TOP, shots))


def queries_of(golden: Golden, features: Tensor, labels: Tensor, knowledge: ClassKnowledge) -> Queries:
    images, texts = (
        near_rows(features.float(), make_index("exact", items.float()), int(golden[k]), k)
        for items, k in ((knowledge.images, "ik"), (knowledge.texts, "tk"))
    )
    return Queries(features, labels, images, texts)


def without_shift_invariant(name: str, values: Tensor | np.ndarray) -> np.ndarray:
    """Leave out what softmax ignores: the bias of the keys, whose recorded gradient is noise."""
    values = np.array(values)
    if name.endswith("ln_k.bias"):
        return values[:0]
    if name.endswith("in_proj_bias"):
        third = len(values) // 3
        return np.delete(values, slice(third, 2 * third))
    return values


def same_tensors(
    actual: Mapping[str, Tensor], golden: Golden, prefix: str, tolerance: float = 1e-5, of_maximum: bool = False
) -> None:
    for name, value in actual.items():
        ours = without_shift_invariant(name, value.detach())
        theirs = without_shift_invariant(name, golden[prefix + name])
        scale = max(1.0, float(np.abs(theirs).max(initial=0.0)))
        if of_maximum:
            scale = float(np.abs(theirs).max(initial=1e-30))
        close(ours / scale, theirs / scale, tolerance)


def gradients(module: nn.Module) -> dict[str, Tensor]:
    found = {name: parameter.grad for name, parameter in module.named_parameters()}
    assert all(gradient is not None for gradient in found.values())
    return found  # type: ignore[return-value]


@parity("block")
def check_block(golden: Golden) -> None:
    assert int(golden["n_head"]) == 1
    for form in ("forward", "plain"):
        block = CrossAttentionBlock(golden["q"].shape[2], torch.Generator())
        load(block, golden, "p.")
        queries, keys, values = (tensor(golden, name).requires_grad_() for name in "qkv")
        if form == "forward":
            out = block(queries[:, 0], standardise(keys), standardise(values))
        else:
            out = block.plain(queries[:, 0], keys, values)
        close(out[:, None].detach(), golden["out"])
        (out[:, None] * tensor(golden, "upstream")).sum().backward()
        for name, leaf in zip("qkv", (queries, keys, values), strict=True):
            assert leaf.grad is not None
            close(leaf.grad, golden[f"grad_{name}"])
        same_tensors(gradients(block), golden, "g.")


@parity("forward")
def check_forward(golden: Golden) -> None:
    count, temperature = int(golden["num_classes"]), float(golden["multemp"])
    images, image_classes, texts, text_classes = rows_of(golden)
    knowledge = knowledge_of(images, image_classes, texts, text_classes, None)
    close(knowledge.image_prototypes, golden["img_proto"])
    close(knowledge.text_prototypes, golden["txt_proto"])
    queries = queries_of(golden, tensor(golden, "x"), tensor(golden, "y"), knowledge)
    close(queries.near_images, golden["img_idx"], 0)
    close(queries.near_texts, golden["txt_idx"], 0)
    learner = learner_of(golden)
    loss, logits = learner.batch_loss(queries, knowledge)
    close(logits.detach(), golden["logits"])
    close(logits.argmax(dim=1), golden["pred"], 0)
    close(loss.detach(), golden["loss"])
    loss.backward()
    same_tensors(gradients(learner), golden, "g.", of_maximum=True)
    close(training_free_logits(queries, knowledge, temperature), golden["logits_addknn"])
    close(prototype_scores(queries.features, knowledge.image_prototypes), golden["logits_naiveproto"])
    prompts = tensor(golden, "prompt_embed")
    classes = torch.arange(count).repeat_interleave(prompts.shape[1])
    classifier = text_classifier(prompts.flatten(0, 1), classes, count)
    close(classifier, golden["cls_prompt"])
    close(cosine_logits(queries.features, classifier, 1.0), golden["logits_zsclip"])
    nearest = near_rows(queries.features, make_index("exact", images), int(golden["knnvote_k"]), "k")
    close(majority_votes(image_classes[nearest], count), golden["logits_knnvote"], 0)


@parity("replace")
def check_replace(golden: Golden) -> None:
    learner, features = learner_of(golden), tensor(golden, "x")
    first, second = rows_of(golden, "A."), rows_of(golden, "B.")
    offset = int(first[3].max()) + 1
    moved = [second[0], second[1] + offset, second[2], second[3] + offset]
    union = [torch.cat(parts) for parts in zip(first, moved, strict=True)]
    shots = tensor(golden, "few_embed"), tensor(golden, "few_label")
    for name, rows, few in (
        ("A", first, None),
        ("B", second, None),
        ("union", union, None),
        ("B_fewshot", second, shots),
        ("A_again", first, None),
    ):
        images, image_classes, texts, text_classes = rows
        knowledge = knowledge_of(images, image_classes, texts, text_classes, few)
        close(knowledge.image_prototypes, golden[f"img_proto_{name}"])
        close(knowledge.text_prototypes, golden[f"txt_proto_{name}"])
        queries = queries_of(golden, features, torch.zeros(len(features), dtype=torch.int64), knowledge)
        close(learner(queries, knowledge).detach(), golden[f"logits_{name}"])


class Training(NamedTuple):
    """What is left of recorded steps: losses, parameters after the first and the last, and the optimiser."""

    losses: list[float]
    first: dict[str, Tensor]
    last: dict[str, Tensor]
    moments: dict[str, dict[str, Tensor]]


def train(golden: Golden, optimizer_name: str, dtype: torch.dtype) -> Training:
    """Take the recorded steps with an optimiser, the learner and what it reads being of a type."""
    learner = learner_of(golden, "p0.").to(dtype)
    images, image_classes, texts, text_classes = rows_of(golden)
    knowledge = knowledge_of(images.float(), image_classes, texts.float(), text_classes, None)
    recorded_in_half = golden["img_proto"].dtype == np.float16
    close(knowledge.image_prototypes, golden["img_proto"], 1e-3 if recorded_in_half else 1e-5)
    close(knowledge.text_prototypes, golden["txt_proto"], 1e-3 if recorded_in_half else 1e-5)
    lr, eps, decay = (float(golden[name]) for name in ("lr", "eps", "weight_decay"))
    optimizer = mml_optimizer(optimizer_name, learner.parameters(), lr, eps, decay)
    losses, first = [], {}
    for step in range(int(golden["steps"])):
        queries = queries_of(golden, tensor(golden, f"x_{step}").float(), tensor(golden, f"y_{step}"), knowledge)
        loss, _ = learner.batch_loss(queries, knowledge)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if step == 0:
            first = {name: value.clone() for name, value in learner.state_dict().items()}
    moments = {name: optimizer.state[parameter] for name, parameter in learner.named_parameters()}
    return Training(losses, first, learner.state_dict(), moments)


@parity("train_adam")
def check_train_adam(golden: Golden) -> None:
    found = train(golden, "adam", torch.float32)
    parameters = 3e-7 if float(golden["lr"]) < 1e-5 else 1e-4
    close(found.losses, golden["loss"], 1e-4)
    same_tensors(found.first, golden, "p1.", parameters)
    same_tensors(found.last, golden, f"p{int(golden['steps'])}.", parameters)
    for prefix, moment in (("m.", "exp_avg"), ("v.", "exp_avg_sq")):
        same_tensors({name: of[moment] for name, of in found.moments.items()}, golden, prefix, 1e-3, of_maximum=True)


def movement_apart(actual: Mapping[str, Tensor], golden: Golden, prefix: str) -> float:
    """Return how far parameters are from the recorded ones, beside how far those moved; no movement gives 1."""
    apart, moved = [], []
    for name, value in actual.items():
        start, ours, theirs = (
            without_shift_invariant(name, part).astype(np.float64).ravel()
            for part in (golden[f"p0.{name}"], value.numpy(), golden[prefix + name])
        )
        apart.append(ours - theirs)
        moved.append(theirs - start)
    return float(np.linalg.norm(np.concatenate(apart)) / np.linalg.norm(np.concatenate(moved)))


@parity("train_half")
def check_train_half(golden: Golden) -> None:
    """Retrieval and prototypes are float32 here, recorded ones were half: the wider tolerances are for that."""
    found, last = train(golden, "half_official", torch.float16), f"p{int(golden['steps'])}."
    underflows = float(golden["v_zero_fraction"])
    squares = torch.cat([of["exp_avg_sq"].flatten() for of in found.moments.values()])
    assert abs(float((squares == 0).double().mean()) - underflows) <= 2e-3
    assert np.abs(np.array(found.losses) - golden["loss"]).max() <= 1e-2
    if "m.attn_txt.ln_q.weight" in golden:
        assert movement_apart(found.first, golden, "p1.") <= 0.4
        assert movement_apart(found.last, golden, last) <= 0.4
        for prefix, moment, tolerance in (("m.", "exp_avg", 0.15), ("v.", "exp_avg_sq", 0.3)):
            moments = {name: of[moment].float() for name, of in found.moments.items()}
            same_tensors(moments, golden, prefix, tolerance, of_maximum=True)
    else:
        assert movement_apart(found.last, golden, last) <= 0.05
        plain = train(golden, "ema_sgd", torch.float32)
        assert np.abs(np.array(plain.losses) - golden["loss"]).max() <= 1e-2
        assert movement_apart(plain.last, golden, last) <= 0.15


@parity("eval")
def check_eval(golden: Golden) -> None:
    learner = learner_of(golden)
    knowledge = knowledge_of(*rows_of(golden), None)
    queries = queries_of(golden, tensor(golden, "x"), tensor(golden, "y"), knowledge)
    sizes = golden["batch_sizes"].tolist()
    losses, predictions = [], []
    for rows in torch.arange(len(queries.labels)).split(sizes):
        loss, logits = learner.batch_loss(queries.select(rows), knowledge)
        losses.append(loss.item())
        predictions += logits.argmax(dim=1).tolist()
    close(losses, golden["batch_loss"])
    close(predictions, golden["pred"], 0)
    figures = evaluate(learner, queries, knowledge, sizes[0])
    close(figures.loss, golden["epoch_loss"])
    close(figures.accuracy, golden["epoch_acc"])


@parity("minirun")
def check_minirun(golden: Golden) -> None:
    knowledge, queries = {}, {}
    for split in ("trn", "val", "tst"):
        shots = tensor(golden, f"{split}.shot_embed"), tensor(golden, f"{split}.shot_label")
        knowledge[split] = knowledge_of(*rows_of(golden, f"{split}."), shots if int(golden["use_fewshot"]) else None)
        features, labels = tensor(golden, f"{split}.x"), tensor(golden, f"{split}.y")
        queries[split] = queries_of(golden, features, labels, knowledge[split])
    learner, best, size = learner_of(golden, "p0."), BestEpoch(), int(golden["batch_size"])
    lr, eps, decay = (float(golden[name]) for name in ("lr", "eps", "weight_decay"))
    optimizer = mml_optimizer("adam", learner.parameters(), lr, eps, decay)
    for epoch, order in enumerate(tensor(golden, "order")):
        tally = Tally()
        for rows in order.split(size):
            batch = queries["trn"].select(rows)
            loss, logits = learner.batch_loss(batch, knowledge["trn"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            tally.add(loss, logits, batch.labels)
        validation = evaluate(learner, queries["val"], knowledge["val"], size)
        best.offer(epoch, validation.accuracy, learner)
        for name, figures in (("trn", tally.figures()), ("val", validation)):
            close(figures.loss, golden[f"{name}_loss"][epoch], 1e-4)
            assert abs(figures.accuracy - golden[f"{name}_acc"][epoch]) <= 1e-4
    same_tensors(learner.state_dict(), golden, "pE.", 1e-4)
    assert best.epoch == int(golden["best_epoch"])
    best.restore(learner)
    same_tensors(learner.state_dict(), golden, "pbest.", 1e-4)
    test = evaluate(learner, queries["tst"], knowledge["tst"], size)
    close(test.loss, golden["test_loss"], 1e-4)
    assert abs(test.accuracy - float(golden["test_acc"])) <= 1e-4
