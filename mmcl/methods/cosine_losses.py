"""Losses of networks with a cosine head: LUCIR's three terms, and distillation of old logits, as pure functions.

Hou, Pan, Loy, Wang, Lin, "Learning a Unified Classifier Incrementally via Rebalancing", CVPR 2019 (LUCIR); Li, Hoiem,
"Learning without Forgetting", ECCV 2016, in the form that Mnemonics' released code trains.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mmcl.backbones.cosine_network import CosineOutput
from mmcl.config.schema import setting
from mmcl.errors import UserError


@dataclass
class LessForgetConfig:
    """Keys of LUCIR's terms."""

    lambda_base: float = setting("Weight of the less-forget term at as many old as new classes; 0 is none. CIFAR: 5.")
    hard_negatives: int = setting("New classes nearest to an old sample that the margin is about. Paper: 2.")
    margin: float = setting("Distance of cosines beyond which an old sample costs nothing. Paper: 0.5.")
    margin_weight: float = setting("Weight of the margin ranking term; 0 is none. Paper: 1.")

    def __post_init__(self) -> None:
        """Refuse a margin about no class."""
        if self.hard_negatives < 1:
            raise UserError(
                f"method.less_forget.hard_negatives={self.hard_negatives}: expected at least 1. Leave the term out "
                "with method.less_forget.margin_weight=0"
            )


@dataclass
class SoftTargetsConfig:
    """Keys of the distillation of old logits."""

    temperature: float = setting("Softening of old and new logits; 1 compares plain probabilities. Paper: 2.")
    beta: float = setting("Weight beside temperature squared; 0 is no distillation. Released code: 0.25.")

    def __post_init__(self) -> None:
        """Refuse a temperature that nothing can be divided by."""
        if self.temperature <= 0:
            raise UserError(f"method.soft_targets.temperature={self.temperature}: expected more than 0, such as 2")


def less_forget_weight(lambda_base: float, known: int, new: int) -> float:
    """Return ``lambda_base * sqrt(known / new)`` (LUCIR, section 3.2): more old classes per new one, more constraint.

    Args:
        lambda_base: 5 on CIFAR-100, 10 on ImageNet.
        known: number of old classes.
        new: number of new classes, at least 1.
    """
    return lambda_base * math.sqrt(known / new)


def less_forget_loss(features: Tensor, features_old: Tensor) -> Tensor:
    """Return the mean of ``1 - cos`` between features ``(B, D)`` and the reference's ``(B, D)`` (LUCIR, eq. 6)."""
    target = torch.ones((), device=features.device)
    return F.cosine_embedding_loss(features, features_old, target.expand(len(features)))


def margin_ranking_loss(scores: Tensor, labels: Tensor, known: int, hard_negatives: int, margin: float) -> Tensor:
    """Keep samples of old classes apart from the new classes (LUCIR, eq. 8).

    For every sample of an old class: the mean over its ``hard_negatives`` largest scores among new classes of
    ``max(0, margin - score of its class + that score)``. Samples of new classes contribute nothing; without any of an
    old class the loss is 0.

    Args:
        scores: cosines ``(B, seen)``, before the scale of the head.
        labels: int64 ``(B,)``.
        known: number of old classes, which come first.
        hard_negatives: K, at most the number of new classes.
        margin: smallest distance that costs nothing.
    """
    old = labels < known
    hardest = scores[:, known:].topk(hard_negatives, dim=1).values
    own = scores.gather(1, labels[:, None])
    hinge = (margin - own + hardest).clamp(min=0.0).mean(dim=1)
    # A masked mean, not a selection: its shape would make the host wait for the GPU in every step.
    return torch.where(old, hinge, 0.0).sum() / old.sum().clamp(min=1)


def soft_target_loss(logits: Tensor, logits_old: Tensor, temperature: float, beta: float) -> Tensor:
    """Distil the reference's logits of the old classes: ``T^2 beta`` times the mean divergence of a sample.

    Args:
        logits: ``(B, seen)``.
        logits_old: of the reference ``(B, known)``, its own scale included.
        temperature: T; larger is softer. Released code: 2.
        beta: weight. Released code: 0.25, which makes ``T^2 beta`` 1.
    """
    known = logits_old.shape[1]
    divergence = F.kl_div(
        F.log_softmax(logits[:, :known] / temperature, dim=1),
        F.log_softmax(logits_old / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )
    return temperature**2 * beta * divergence


def lucir_terms(
    output: CosineOutput, output_old: CosineOutput, labels: Tensor, known: int, config: LessForgetConfig
) -> dict[str, Tensor]:
    """Return what LUCIR adds to the cross-entropy after the first task: less-forget and margin ranking, weighted.

    Args:
        output: of the network, for a batch of B images.
        output_old: of the frozen network of the task before.
        labels: int64 ``(B,)``.
        known: number of old classes.
        config: weights and margin.
    """
    weight = less_forget_weight(config.lambda_base, known, output.scores.shape[1] - known)
    margin = margin_ranking_loss(output.scores, labels, known, config.hard_negatives, config.margin)
    return {
        "less_forget": weight * less_forget_loss(output.features, output_old.features),
        "margin_ranking": config.margin_weight * margin,
    }


def soft_target_terms(
    output: CosineOutput, output_old: CosineOutput, labels: Tensor, known: int, config: SoftTargetsConfig
) -> dict[str, Tensor]:
    """Return what distillation adds to the cross-entropy after the first task; arguments as :func:`lucir_terms`."""
    return {"distillation": soft_target_loss(output.logits, output_old.logits, config.temperature, config.beta)}
