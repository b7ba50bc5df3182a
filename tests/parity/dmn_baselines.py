"""Parity of the baselines beside DMN: Tip-Adapter, Tip-Adapter-F and one step of TPT."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize, one_hot

from mmcl.config.schema import StepSchedule
from mmcl.methods.clip_zeroshot import cosine_logits
from mmcl.methods.step_schedule import optimizer_of
from mmcl.methods.tip_adapter import affinities, cache_keys, first_best, grid_hits, search_values, tip_logits
from mmcl.methods.tpt import classifier_gradients, confident_rows, context_gradients, first_adamw_step
from tests.parity import Golden, close, parity


@parity("baseline_tip_adapter")
def check_tip_adapter(golden: Golden) -> None:
    passes = torch.from_numpy(golden["train_raw_feat_per_epoch"])
    labels = torch.from_numpy(golden["train_labels"])
    text = torch.from_numpy(golden["text_weights"]).T.contiguous()
    keys = cache_keys(passes.transpose(0, 1), len(text))
    close(keys.flatten(0, 1).T, golden["cache_keys"])
    close(one_hot(torch.arange(len(text)).repeat_interleave(keys.shape[1])), golden["cache_values"].astype(np.int64))

    def parts(split: str) -> tuple[Tensor, Tensor, Tensor]:
        features = torch.from_numpy(golden[f"{split}_feat"])
        return (
            cosine_logits(features, text, 100.0),
            affinities(features, keys),
            torch.from_numpy(golden[f"{split}_labels"]),
        )

    alpha, beta = float(golden["init_alpha"]), float(golden["init_beta"])
    test_text, test_closeness, test_labels = parts("test")
    close(tip_logits(test_text, test_closeness, alpha, beta), golden["tip_logits_init"])
    betas, alphas = (
        search_values(float(limit), int(steps))
        for limit, steps in zip(golden["search_scale"], golden["search_step"], strict=True)
    )
    val_text, val_closeness, val_labels = parts("val")
    hits = grid_hits(val_text, val_closeness, val_labels, betas, alphas)
    row, column = first_best(hits)
    close([betas[row], alphas[column]], [golden["search_beta"], golden["search_alpha"]], 1e-9)
    close(100 * hits[row, column].double() / len(val_labels), golden["tip_acc_val"], 1e-9)
    chosen = tip_logits(test_text, test_closeness, alphas[column], betas[row])
    close(_percent(chosen, test_labels), golden["tip_acc_test"], 1e-9)
    close(_percent(test_text, test_labels), golden["zs_acc_test"], 1e-9)
    _check_learning(golden, passes, labels, text, keys)


def _check_learning(golden: Golden, passes: Tensor, labels: Tensor, text: Tensor, keys: Tensor) -> None:
    """The steps of Tip-Adapter-F."""
    learned = nn.Parameter(keys.clone())
    steps, epochs = len(golden["f_batch_idx"]), int(golden["f_epochs"])
    schedule = StepSchedule(
        epochs=epochs,
        batch_size=1,
        lr=float(golden["f_lr"]),
        lr_final=0.0,
        optimizer="adamw",
        momentum=0.0,
        weight_decay=0.01,
        eps=1e-4,
        interval="step",
        warmup_epochs=0,
        warmup_lr=0.0,
    )
    optimizer, rate = optimizer_of([learned], schedule, steps // epochs)
    for step, (padded, epoch) in enumerate(zip(golden["f_batch_idx"], golden["f_batch_epoch"], strict=True)):
        rows = torch.from_numpy(padded[padded >= 0])
        features = passes[int(epoch) % len(passes)][rows]
        closeness = affinities(normalize(features, dim=1), learned)
        logits = cosine_logits(features, text, 100.0)
        loss = cross_entropy(
            tip_logits(logits, closeness, float(golden["init_alpha"]), float(golden["init_beta"])), labels[rows]
        )
        close(optimizer.param_groups[0]["lr"], golden["f_step_lr"][step], 1e-9)
        optimizer.zero_grad()
        loss.backward()
        close(loss.item(), golden["f_step_loss"][step])
        assert learned.grad is not None
        close(learned.grad.flatten(0, 1), golden["f_step_grad"][step])
        optimizer.step()
        rate.step()
        close(learned.detach().flatten(0, 1), golden["f_step_weight"][step])


@parity("baseline_tpt_step")
def check_tpt_step(golden: Golden) -> None:
    views, context, class_embeddings, projection = (
        torch.from_numpy(golden[name]) for name in ("img_feat", "ctx0", "class_emb", "proj")
    )
    scale, count = float(golden["logit_scale_exp"]), int(len(views) * float(golden["top"]))

    def classify(context: Tensor) -> Tensor:
        return normalize(torch.tanh(3 * context.sum(0) + class_embeddings) @ projection, dim=1)

    classifier = classify(context)
    logits = scale * views @ classifier.T
    close(logits, golden["logits_before"])
    close(confident_rows(logits, count), golden["selected_idx"])
    losses, gradients = classifier_gradients(views[None], classifier, scale, count)
    close(losses[0], golden["loss"])
    pulled = context_gradients(classify, context, gradients)
    close(pulled[0], golden["ctx_grad"])
    tuned = first_adamw_step(context, pulled, float(golden["lr"]), 0.01)
    close(tuned[0], golden["ctx_after"])
    close(scale * views[:1] @ classify(tuned[0]).T, golden["logits_after_view0"])


def _percent(logits: Tensor, labels: Tensor) -> Tensor:
    return 100 * (logits.argmax(1) == labels).double().mean()
