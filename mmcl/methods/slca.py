"""SLCA: a slowly trained pre-trained network, one linear head per task, and heads aligned on drawn features.

Zhang, Wang, Kang, Chen, Wei, "SLCA: Slow Learner with Classifier Alignment for Continual Learning on a Pre-trained
Model", ICCV 2023, with the settings of the released code.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, MultiStepLR

from mmcl.backbones.freezing import freeze, trainable_parameters, unfreeze
from mmcl.config.schema import ComponentConfig, Schedule, setting
from mmcl.errors import UserError
from mmcl.methods.class_gaussians import ClassGaussians, draw_gaussian, shrinkage, triangular_factors
from mmcl.methods.pretrained import PretrainedIncremental, PretrainedIngredients
from mmcl.methods.spelling import check_spelling
from mmcl.protocol import Batch, ClassTask, FeatureBatch, ImageFeatures, Stage
from mmcl.randomness import generator

HEAD_DEVIATION = 0.02
NORM_EPSILON = 1e-7


@dataclass
class SlcaConfig(ComponentConfig):
    """Keys of SLCA."""

    representation: Schedule = setting(
        "How network and new head are trained; batch_size is what passes through the network at once."
    )
    virtual_batch: int = setting("Samples per step, a multiple of representation.batch_size; the last may be smaller.")
    backbone_lr_scale: float = setting("Learning rate of the network by that of the head; 0 freezes the network.")
    frozen_features: bool = setting(
        "Encode training images once, without augmentation, and train on that: much faster, other results. Needs "
        "backbone_lr_scale=0."
    )
    alignment: Schedule = setting("How all heads are trained on features drawn from class Gaussians; 0 epochs: not.")
    draws_per_class: int = setting("Features drawn of each class in each epoch of the alignment.")
    logit_norm: float | None = setting("Temperature of the alignment's normalised logits; null is plain cross-entropy.")
    shrinking: str = setting(
        "Task of a class whose mean shrinks with its age: published divides by the size of the current task, which is "
        "another task's where sizes differ; own_task is the class's own."
    )

    def __post_init__(self) -> None:
        """Refuse values that could stop a run only after data is touched."""
        batch = self.representation.batch_size
        if self.virtual_batch < batch or self.virtual_batch % batch:
            raise UserError(
                f"method.virtual_batch={self.virtual_batch}: expected a multiple of "
                f"method.representation.batch_size={batch}"
            )
        if self.backbone_lr_scale < 0:
            raise UserError(f"method.backbone_lr_scale={self.backbone_lr_scale}: expected 0 (frozen) or more")
        if self.frozen_features and self.backbone_lr_scale:
            raise UserError(
                "method.frozen_features=true needs a network that is not trained. Type method.backbone_lr_scale=0"
            )
        if self.draws_per_class < 1:
            raise UserError(f"method.draws_per_class={self.draws_per_class}: expected at least 1")
        if self.logit_norm is not None and self.logit_norm <= 0:
            raise UserError(f"method.logit_norm={self.logit_norm}: expected more than 0, or null for none")
        check_spelling("shrinking", self.shrinking, ("published", "own_task"))


def normalised_logits(logits: Sequence[Tensor], temperature: float | None) -> Tensor:
    """Join the logits of all tasks, divided by the mean over tasks of their norms and by a temperature.

    Args:
        logits: of each task ``(B, C_t)``.
        temperature: of the softmax; None joins them as they are.

    Returns:
        ``(B, sum C_t)``.
    """
    joined = torch.cat(list(logits), dim=1)
    if temperature is None:
        return joined
    norms = torch.stack([part.norm(dim=1) + NORM_EPSILON for part in logits], dim=1)
    return joined / norms.mean(dim=1, keepdim=True) / temperature


def published_tasks(seen: int, current_size: int) -> Tensor:
    """Return the task of each class as the released code has it: its number by the size of the current task."""
    return torch.arange(seen) // current_size


def own_tasks(sizes: Sequence[int]) -> Tensor:
    """Return the task of each class, given the number of classes of each task: int64 ``(sum sizes,)``."""
    return torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))


def two_rate_sgd(
    fast: list[nn.Parameter], slow: list[nn.Parameter], schedule: Schedule, slow_scale: float
) -> tuple[Optimizer, LRScheduler]:
    """Build SGD with momentum over two groups, the second at ``slow_scale`` times the rate, and its schedule."""
    on_gpu = all(parameter.is_cuda for parameter in [*fast, *slow])
    groups: list[dict[str, Any]] = [{"params": fast}]
    if slow:
        groups.append({"params": slow, "lr": schedule.lr * slow_scale})
    optimizer = SGD(
        groups, schedule.lr, momentum=schedule.momentum, weight_decay=schedule.weight_decay, fused=on_gpu or None
    )
    if schedule.scheduler == "cosine":
        return optimizer, CosineAnnealingLR(optimizer, schedule.t_max or schedule.epochs)
    return optimizer, MultiStepLR(optimizer, schedule.milestones, schedule.lr_decay)


class Slca(PretrainedIncremental):
    """Trains network and newest head at different rates, then all heads on features drawn around each class.

    The heads that learn and those that answer are two: alignment and evaluation work on copies, which the next task
    makes anew, so that neither carries over.

    Attributes:
        heads: one for each task, as its own training left it.
        answering: copies of all heads, which an alignment trains together on drawn features.
        gaussians: of every class seen.
    """

    Config: ClassVar[type] = SlcaConfig
    config: SlcaConfig

    def __init__(self, config: SlcaConfig, ingredients: PretrainedIngredients) -> None:
        super().__init__(config, ingredients)
        self.frozen_features = config.frozen_features
        self.heads = nn.ModuleList()
        self.answering = nn.ModuleList()
        self.gaussians = ClassGaussians(self.backbone.dimension)
        self.sizes: list[int] = []
        self._micro_batches = 0

    # ------------------------------------------------------------------ a task

    def make_head(self, classes: int) -> nn.Module:
        """Build the head of a task."""
        head = nn.Linear(self.backbone.dimension, classes)
        nn.init.trunc_normal_(head.weight, std=HEAD_DEVIATION)
        nn.init.zeros_(head.bias)
        return head

    def grow(self, task: ClassTask) -> None:
        """Add a head, and make room for the copies that will answer."""
        super().grow(task)
        self.sizes.append(task.size)
        self.heads.append(self.make_head(task.size))
        freeze(self.heads)
        self.answering = copy.deepcopy(self.heads)

    def _aligns(self, task: ClassTask) -> bool:
        return task.index > 0 and self.config.alignment.epochs > 0

    def stages(self, task: ClassTask) -> list[Stage]:
        """Train network and new head on the new classes, then align all heads on drawn features."""
        stages = [self.training_pass("representation", task, self.config.representation)]
        if self._aligns(task):
            count, schedule = self.config.draws_per_class, self.config.alignment
            room = torch.empty(task.seen * count, schedule.epochs, self.backbone.dimension)
            labels = torch.arange(task.seen).repeat_interleave(count)
            stages.append(Stage("alignment", ImageFeatures(room, labels, torch.arange(len(labels))), schedule))
        return stages

    def begin_stage(self, stage: Stage, task: ClassTask) -> None:
        """Freeze what does not learn; encode or draw the features that the stage is about."""
        super().begin_stage(stage, task)
        self._micro_batches = 0
        for part in (self.backbone, self.heads, self.answering):
            freeze(part)
        if stage.name == "alignment":
            self.begin_alignment()
            unfreeze(self.answering)
            assert isinstance(stage.samples, ImageFeatures)
            self._draw(stage.samples.features, task)
            return
        unfreeze(self.heads[-1])
        if self.config.backbone_lr_scale:
            unfreeze(self.backbone)
        self.fill(stage, task)

    def begin_alignment(self) -> None:
        """Copy the heads, as an alignment that is resumed has changed the copies."""
        self._copy_heads()

    def _copy_heads(self) -> None:
        self.answering.load_state_dict(self.heads.state_dict())

    def _draw(self, room: Tensor, task: ClassTask) -> None:
        """Fill ``(C * K, E, D)`` with K draws of each class for each of E epochs."""
        count, epochs, _ = room.shape
        per_class = count // task.seen
        current = self.config.shrinking == "published"
        tasks = published_tasks(task.seen, task.size) if current else own_tasks(self.sizes)
        means = self.gaussians.means * shrinkage(tasks, task.index)[:, None]
        factors = triangular_factors(self.gaussians.covariances)
        for label in range(task.seen):
            draws = generator(self.ingredients.seed, task.index, "alignment", "class", label)
            drawn = draw_gaussian(means[label], factors[label], epochs * per_class, draws)
            room[label * per_class : (label + 1) * per_class] = drawn.reshape(per_class, epochs, -1)

    def end_stage(self, stage: Stage, task: ClassTask) -> None:
        """Take the statistics of the new classes once the network is trained, and let its heads answer."""
        if stage.name == "representation":
            samples = stage.samples
            features = samples.features[:, 0] if isinstance(samples, ImageFeatures) else self.encode(task, samples)
            self.gaussians.add(features, task.train.labels, task.seen)
            self._copy_heads()
        self.stage = None

    # ------------------------------------------------------------------ training

    @property
    def aligning(self) -> bool:
        """Whether heads are being aligned."""
        return self.stage is not None and self.stage.name == "alignment"

    def losses(self, batch: Batch | FeatureBatch) -> dict[str, Tensor]:
        """Return the cross-entropy over the new classes or, in the alignment, over all."""
        features = self.features(batch)
        if self.aligning:
            logits = normalised_logits([head(features) for head in self.answering], self.config.logit_norm)
            return {"classification": F.cross_entropy(logits, batch.labels)}
        return {"classification": F.cross_entropy(self.new_logits(features), batch.labels - self.known)}

    def new_logits(self, features: Tensor) -> Tensor:
        """Return the logits of the new classes ``(B, size)``."""
        logits: Tensor = self.heads[-1](features)
        return logits

    def train(self, mode: bool = True) -> Slca:
        """Set the mode of everything that is not frozen; running statistics stay as the pre-training left them.

        They follow the batches at a pace of their own, however slow the learner. The paper's networks have none.
        """
        super().train(mode)
        for module in self.backbone.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def optimizer_of(self, stage: Stage) -> tuple[Optimizer, LRScheduler]:
        """Return a fresh optimiser: one rate for the heads, a smaller one for the network."""
        assert isinstance(stage.schedule, Schedule)
        heads = [*trainable_parameters(self.heads), *trainable_parameters(self.answering)]
        slow = list(trainable_parameters(self.backbone))
        return two_rate_sgd(heads, slow, stage.schedule, self.config.backbone_lr_scale)

    def training_step(self, block: Iterable[Any], block_index: int) -> None:
        """Take one optimiser step for each virtual batch; an epoch's last may be smaller, its losses not rescaled."""
        assert self.stage is not None
        optimizer = self.optimizers()
        schedule = self.stage.schedule
        parts = 1 if self.aligning else self.config.virtual_batch // schedule.batch_size
        last = -(-len(self.stage.samples) // schedule.batch_size)
        for batch in block:
            terms = self.losses(batch)
            self.manual_backward(torch.stack(list(terms.values())).sum() * (batch.share / parts))
            self.after_backward(batch)
            self._micro_batches += 1
            if self._micro_batches % parts == 0 or self._micro_batches == last:
                optimizer.step()  # type: ignore[union-attr]
                optimizer.zero_grad()  # type: ignore[union-attr]
                self.after_step()
            self._account(terms, len(batch.labels) if batch.share else 0)

    def on_train_epoch_start(self) -> None:
        """Begin to count micro-batches."""
        super().on_train_epoch_start()
        self._micro_batches = 0

    # ------------------------------------------------------------------ answers

    def scores(self, images: Tensor) -> dict[str, Tensor]:
        """Classify by the largest logit (``cnn``)."""
        features = self.backbone(images)
        return {"cnn": torch.cat([head(features) for head in self.answering], dim=1)}

    def head_modules(self) -> list[nn.Module]:
        """Return the heads that learn and those that answer."""
        return [self.heads, self.answering]

    def kept_bytes(self) -> int:
        """Count the class Gaussians."""
        return self.gaussians.nbytes
