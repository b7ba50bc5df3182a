"""AANets: a stable and a plastic branch, mixed at every level by a weight that a balanced set of images trains.

Liu, Schiele, Sun, "Adaptive Aggregation Networks for Class-Incremental Learning", CVPR 2021, over the losses of LUCIR
or of iCaRL with a cosine head. The weights are the upper level of a bilevel problem, solved by turns: after each epoch
of the branches, one pass of the weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from mmcl.backbones.aggregated import BRANCHES, AggregatedNetwork
from mmcl.config.schema import Schedule, setting
from mmcl.errors import DivergedError, UserError, nearest
from mmcl.methods.base import schedule_of
from mmcl.methods.class_incremental import ClassIncrementalIngredients
from mmcl.methods.cosine_incremental import TERMS, CosineConfig, CosineIncremental
from mmcl.methods.cosine_losses import LessForgetConfig, SoftTargetsConfig
from mmcl.protocol import ClassTask, Samples, Stage
from mmcl.randomness import generator

REPRESENTATION = "representation"


@dataclass
class AggregationConfig:
    """How two branches are made and mixed."""

    stable: str = setting("Branch that holds what was learned: scale_shift, free or fixed. Paper: scale_shift.")
    plastic: str = setting("Branch that learns: free, scale_shift or fixed. Paper: free.")
    lr: float = setting("Learning rate of the levels' weights; 0 keeps them. Released code: 1e-8.")
    momentum: float = setting("0 is plain SGD.")
    weight_decay: float = setting("L2 on the levels' weights; 0 is none.")
    batch_size: int = setting("Images of a step of the levels' weights.")
    per_class: int = setting("New images of the balanced set for each new class, drawn with replacement. Code: 20.")

    def __post_init__(self) -> None:
        """Refuse before the first task what would stop the second."""
        for key, word in (("stable", self.stable), ("plastic", self.plastic)):
            if word not in BRANCHES:
                expected = f"expected one of {', '.join(BRANCHES)}.{nearest(word, BRANCHES)}"
                raise UserError(f"method.aggregation.{key}={word}: {expected}")
        if min(self.lr, self.momentum, self.weight_decay, self.per_class) < 0 or self.batch_size < 1:
            raise UserError(
                f"method.aggregation: lr={self.lr}, momentum={self.momentum}, weight_decay={self.weight_decay}, "
                f"per_class={self.per_class}, batch_size={self.batch_size}: expected at least 0, and at least 1 image "
                "of a step"
            )


@dataclass
class AanetsConfig(CosineConfig):
    """Keys of AANets."""

    base: str = setting("Loss that holds the old classes: lucir or distillation.")
    less_forget: LessForgetConfig = setting("Terms of base=lucir.")
    soft_targets: SoftTargetsConfig = setting("Terms of base=distillation.")
    aggregation: AggregationConfig = setting("Branches, and how their weights are trained.")

    def __post_init__(self) -> None:
        """Refuse an unknown base."""
        super().__post_init__()
        if self.base not in TERMS:
            known = ", ".join(TERMS)
            raise UserError(f"method.base={self.base}: expected one of {known}.{nearest(self.base, TERMS)}")


class Aanets(CosineIncremental):
    """One network in the first task, two branches beside each other from the second on."""

    Config: ClassVar[type] = AanetsConfig
    growth: ClassVar[str] = "aanets"

    def __init__(self, config: AanetsConfig, ingredients: ClassIncrementalIngredients) -> None:
        self.base = config.base
        super().__init__(config, ingredients)
        self._task: ClassTask | None = None

    def changed_network(self) -> nn.Module:
        """Return two branches that begin as the network of the first task."""
        aggregation = self.config.aggregation
        network = AggregatedNetwork.of(self.network, stable=aggregation.stable, plastic=aggregation.plastic)
        network.shares.requires_grad_(False)  # they have passes of their own
        return network

    def begin_stage(self, stage: Stage, task: ClassTask) -> None:
        """Keep the task, whose balanced set trains the levels' weights."""
        super().begin_stage(stage, task)
        self._task = task

    def configure_optimizers(self) -> Any:
        """Return the branches' optimiser and, where there are two branches, that of the levels' weights."""
        optimizers, schedulers = super().configure_optimizers()
        if self._trains_shares():
            assert self.stage is not None
            assert isinstance(self.stage.schedule, Schedule)
            config = self.config.aggregation
            shares = SGD([self.network.shares], config.lr, momentum=config.momentum, weight_decay=config.weight_decay)
            return [*optimizers, shares], [*schedulers, schedule_of(shares, self.stage.schedule)]
        return optimizers, schedulers

    def on_train_epoch_end(self) -> None:
        """Train the levels' weights for one pass over the balanced set, then advance the learning rates."""
        if self._trains_shares():
            # Not Lightning's wrapper: it would divide by a loss scale that these gradients never had.
            of_shares: Any = self.optimizers(use_pl_optimizer=False)
            self._train_shares(of_shares[1])
        super().on_train_epoch_end()

    def _trains_shares(self) -> bool:
        is_representation = self.stage is not None and self.stage.name == REPRESENTATION
        return is_representation and isinstance(self.network, AggregatedNetwork)

    def _train_shares(self, optimizer: Optimizer) -> None:
        """Step along the cross-entropy of the mixed logits; every process takes the same steps."""
        assert self._task is not None
        task, draw = self._task, (self.ingredients.seed, self._task.index, "aggregation", self.current_epoch)
        batches = task.augmented_batches(self.balanced_set(task), self.config.aggregation.batch_size, draw, self.device)
        self.eval()
        shares = self.network.shares.requires_grad_(True)
        with self.trainer.precision_plugin.forward_context():
            for batch in batches:
                gradient = share_gradient(self.network, batch.images, batch.labels)
                # The statistics of batch norms differ between processes until the stage ends.
                shares.grad = self.trainer.strategy.reduce(gradient, reduce_op="mean")  # type: ignore[assignment]
                optimizer.step()
        shares.requires_grad_(False)
        shares.grad = None
        self.train()
        if not bool(shares.isfinite().all()):
            raise DivergedError(
                f"the weights of the branches are not finite in task {task.index + 1}. The last good state is kept. "
                f"Try method.aggregation.lr={self.config.aggregation.lr / 10:g}"
            )

    def balanced_set(self, task: ClassTask) -> Samples:
        """Return new images drawn with replacement, not class by class, followed by the memory of the old classes."""
        count = self.config.aggregation.per_class * task.size
        rows = torch.randint(
            len(task.train), (count,), generator=generator(self.ingredients.seed, task.index, "balanced set")
        )
        return self.memory.join_after(task.train.select(rows))


def share_gradient(network: AggregatedNetwork, images: Tensor, labels: Tensor) -> Tensor:
    """Return the gradient of the cross-entropy of mixed logits to the levels' weights, ``(L,)``.

    Args:
        network: in evaluation mode; its weights ask for a gradient.
        images: float32 ``(B, 3, H, W)`` normalised.
        labels: int64 ``(B,)``.
    """
    (gradient,) = torch.autograd.grad(F.cross_entropy(network(images).logits, labels), [network.shares])
    return gradient
