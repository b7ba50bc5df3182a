"""Losses of the class-incremental methods, as pure functions of logits."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def auxiliary_targets(targets: Tensor, known: int) -> Tensor:
    """Map labels ``(B,)`` to the auxiliary head's: 0 is any old class, 1.. are the new ones (MEMO, section 4)."""
    return (targets - known + 1).clamp(min=0)


def expansion_losses(
    logits: Tensor, auxiliary_logits: Tensor, targets: Tensor, known: int, alpha_aux: float
) -> dict[str, Tensor]:
    """Return the losses of MEMO and DER, to be summed.

    Args:
        logits: ``(B, seen)``.
        auxiliary_logits: ``(B, new + 1)`` of the newest block; not looked at in the first task.
        targets: int64 ``(B,)``.
        known: number of classes before this task; 0 in the first.
        alpha_aux: weight of the auxiliary loss.
    """
    losses = {"classification": F.cross_entropy(logits, targets)}
    if known:
        losses["auxiliary"] = alpha_aux * F.cross_entropy(auxiliary_logits, auxiliary_targets(targets, known))
    return losses


def new_class_loss(logits: Tensor, targets: Tensor, known: int) -> Tensor:
    """Cross-entropy over the new classes' logits alone; ``targets`` are all new (finetuning)."""
    return F.cross_entropy(logits[:, known:], targets - known)


def distillation_loss(logits: Tensor, logits_old: Tensor, temperature: float) -> Tensor:
    """Cross-entropy between softened old and new predictions over the old classes, mean over the batch.

    No factor of ``temperature`` squared, as in the experiments of iCaRL, WA and BiC that the tables come from.

    Args:
        logits: ``(B, seen)``.
        logits_old: teacher's logits ``(B, known)``.
        temperature: larger is softer.
    """
    old = logits_old.shape[1]
    log_probabilities = F.log_softmax(logits[:, :old] / temperature, dim=1)
    return -(F.softmax(logits_old / temperature, dim=1) * log_probabilities).sum(dim=1).mean()


def old_share(known: int, seen: int) -> float:
    """Return the weight of distillation in WA and BiC: the share of old classes among all seen."""
    return known / seen


def weighted_distillation_losses(
    logits: Tensor, logits_old: Tensor, targets: Tensor, temperature: float
) -> dict[str, Tensor]:
    """Return the losses of WA and BiC after the first task, to be summed; :func:`old_share` weighs distillation.

    Args:
        logits: ``(B, seen)``.
        logits_old: teacher's logits ``(B, known)``.
        targets: int64 ``(B,)``.
        temperature: of the distillation.
    """
    share = old_share(logits_old.shape[1], logits.shape[1])
    return {
        "classification": (1 - share) * F.cross_entropy(logits, targets),
        "distillation": share * distillation_loss(logits, logits_old, temperature),
    }


def corrected_logits(logits: Tensor, scales: Tensor, shifts: Tensor, boundaries: list[int]) -> Tensor:
    """Scale and shift the logits of each task's classes (BiC, eq. 5).

    Args:
        logits: ``(B, seen)``.
        scales: one factor for each task ``(T,)``.
        shifts: one offset for each task ``(T,)``.
        boundaries: class index at which each task begins, and the number of classes at the end; T + 1 numbers.
    """
    sizes = torch.tensor([after - before for before, after in zip(boundaries, boundaries[1:], strict=False)])
    sizes = sizes.to(logits.device)
    return logits * scales.repeat_interleave(sizes) + shifts.repeat_interleave(sizes)
