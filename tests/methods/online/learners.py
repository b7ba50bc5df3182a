"""Online learners without a trainer: built from their shipped files, and taken through steps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor

from mmcl.config.components import build
from mmcl.methods.online import OnlineIngredients
from mmcl.protocol import FeatureBatch, ImageFeatures, StreamTask
from tests.methods.kinds import method_node

DIMENSION, CLASSES, SEED = 2, 4, 7


def learner(name: str, *typed: str, dimension: int = DIMENSION, classes: int = CLASSES, seed: int = SEED) -> Any:
    """Build a method with ``key=value`` below ``method``, drawn from torch's generator at a fixed seed."""
    node = OmegaConf.merge(method_node(name), OmegaConf.from_dotlist(list(typed)))
    torch.manual_seed(seed)
    return build(node, OnlineIngredients(seed, 4, dimension, classes)).train()  # type: ignore[arg-type]


def stream(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Draw samples around a centre for each class, class after class: ``(N, 2)`` and ``(N,)``."""
    numbers = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) * CLASSES // count
    angles = labels * (2 * torch.pi / CLASSES)
    centres = torch.stack([angles.cos(), angles.sin()], dim=1)
    return centres + 0.2 * torch.randn(count, DIMENSION, generator=numbers), labels


def batches(samples: Tensor, labels: Tensor, size: int = 1) -> Iterator[FeatureBatch]:
    """Serve a stream in steps."""
    for rows in torch.arange(len(labels)).split(size):
        yield FeatureBatch(samples[rows][:, None], labels[rows], rows)


def without_trainer(method: Any) -> Any:
    """Let a method step by itself, as a trainer would let it."""
    method.optimizers = lambda: method.optimizer
    method.manual_backward = lambda loss: loss.backward()
    return method


def learn(method: Any, samples: Tensor, labels: Tensor, size: int = 1) -> None:
    """Take the steps of a stream as the engine does."""
    without_trainer(method).training_step(batches(samples, labels, size), 0)


def weights(method: Any) -> Tensor:
    """Return a copy of all parameters, one after the other."""
    return torch.cat([parameter.detach().flatten() for parameter in method.network.parameters()]).clone()


def window(index: int = 0, count: int = 4) -> StreamTask:
    """Return a task of some samples."""
    samples, labels = stream(count)
    return StreamTask(index, 0, CLASSES, f"part {index}", ImageFeatures(samples[:, None], labels, labels), 1)
