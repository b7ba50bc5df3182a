"""What learners of an online stream share: one network, one pass, one optimiser that lives as long as the stream."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot
from torch.optim import SGD, Adam, Optimizer

from mmcl.config.schema import ComponentConfig, Passes, setting
from mmcl.errors import UserError, nearest
from mmcl.memory.accounting import ByteReport, module_bytes
from mmcl.methods.base import Ingredients, Method
from mmcl.methods.memory_head.row_adam import RowAdam
from mmcl.protocol import FeatureBatch, Stage, StreamTask, Task
from mmcl.randomness import key

OPTIMIZERS = ("adam", "sgd", "row_adam")
LOSSES = ("cross_entropy", "hinge")
RANDOMNESS = ("keyed", "published")


@dataclass(frozen=True)
class OnlineIngredients(Ingredients):
    """What a run gives an online learner.

    Attributes:
        dimension: length D of a sample.
        classes: number C of classes, all of which have an output from the start.
    """

    dimension: int
    classes: int


@dataclass
class OnlineConfig(ComponentConfig):
    """Keys that every online learner has."""

    optimizer: str = setting(
        "adam; sgd without momentum; row_adam: adam in less time for a large Memory Head, most of whose units rest."
    )
    lr: float = setting("Learning rate, the same at every step.")
    weight_decay: float = setting("L2 added to the gradient; 0 is none.")
    loss: str = setting("cross_entropy, or hinge (without a margin, summed): max(0, -t o) for t = 1 or -1.")
    randomness: str = setting(
        "keyed: numbers by (seed, step); published: one sequence from the seed, in the order of the authors' code."
    )
    total_bytes: int | None = setting("Bytes that network and kept samples may take together; null sets no limit.")

    def __post_init__(self) -> None:
        """Refuse unknown spellings and rates that no optimiser takes."""
        for name, known in (("optimizer", OPTIMIZERS), ("loss", LOSSES), ("randomness", RANDOMNESS)):
            value = getattr(self, name)
            if value not in known:
                raise UserError(f"method.{name}={value}: expected {' or '.join(known)}.{nearest(value, known)}")
        if not (0 < self.lr < math.inf and 0 <= self.weight_decay < math.inf):
            raise UserError(
                f"method.lr={self.lr}, method.weight_decay={self.weight_decay}: expected more than 0 and at least 0"
            )
        if self.total_bytes is not None and self.total_bytes < 1:
            raise UserError(f"method.total_bytes={self.total_bytes}: expected at least 1, or null for no limit")


# ------------------------------------------------------------------ mathematics


def hinge_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the sum over samples and classes of ``max(0, -t o)``, t being 1 for the label's class and -1 for others.

    Args:
        logits: o, ``(B, C)``.
        labels: int64 ``(B,)``.
    """
    signs = 2 * one_hot(labels, logits.shape[1]) - 1
    return (-signs * logits).clamp(min=0).sum()


def online_optimizer(parameters: list[nn.Parameter], name: str, lr: float, weight_decay: float) -> Optimizer:
    """Build Adam (betas 0.9 and 0.999, eps 1e-8), SGD without momentum, or Adam that leaves resting rows alone."""
    if name == "row_adam":
        return RowAdam(parameters, lr, weight_decay=weight_decay)
    if name == "adam":
        return Adam(parameters, lr, weight_decay=weight_decay, fused=True)
    return SGD(parameters, lr, weight_decay=weight_decay)


# ------------------------------------------------------------------ method


class OnlineMethod(Method[StreamTask]):
    """A network that learns from each sample of a stream once, in order.

    Everything is in the state, the optimiser and the random numbers included: the stream goes on after a window as if
    there had been none.

    Attributes:
        network: from samples ``(B, D)`` to logits ``(B, C)``.
        optimizer: of all parameters of the network.
        steps: steps taken so far.
        bytes_left: bytes that the budget leaves beside the network; None where there is no budget.
    """

    Config: ClassVar[type] = OnlineConfig
    task_type: ClassVar[type[Task]] = StreamTask
    readouts: tuple[str, ...] = ("head",)
    ingredients: OnlineIngredients
    network: nn.Module

    def __init__(self, config: OnlineConfig, ingredients: OnlineIngredients) -> None:
        super().__init__(config, ingredients)
        self.steps = 0
        self._generator = torch.Generator()
        self._drawing: tuple[str, int] | None = None
        if config.randomness == "published":
            self._build_as_published(ingredients)
        else:
            self.network = self.make_network()
        self.optimizer = self.fresh_optimizer()
        self.bytes_left = self._bytes_left()

    @abstractmethod
    def make_network(self) -> nn.Module:
        """Build the network, drawing from torch's generator."""

    def numbers(self, purpose: str = "stream") -> torch.Generator:
        """Return the generator for all that is drawn for a purpose at this step."""
        if self.config.randomness == "keyed" and self._drawing != (purpose, self.steps):
            self._generator.manual_seed(key(self.ingredients.seed, purpose, self.steps))
            self._drawing = purpose, self.steps
        return self._generator

    @contextmanager
    def drawing(self, purpose: str = "stream") -> Iterator[None]:
        """Let what draws from torch's own generator draw :meth:`numbers`."""
        numbers = self.numbers(purpose)
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(numbers.get_state())
            yield
            numbers.set_state(torch.get_rng_state())

    def stages(self, task: StreamTask) -> list[Stage]:
        """Go through the window once."""
        return [Stage("stream", task.train, Passes(epochs=1, batch_size=task.batch_size))]

    def configure_optimizers(self) -> Any:
        """Return the optimiser of the whole stream."""
        return [self.optimizer]

    def on_train_epoch_end(self) -> None:
        """Do nothing: the rate stays."""

    def losses(self, batch: FeatureBatch) -> dict[str, Tensor]:
        """Return the loss of the step."""
        return {self.config.loss: self.loss(self.network(batch.features[:, 0]), batch.labels)}

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the configured loss of logits ``(B, C)``."""
        return hinge_loss(logits, labels) if self.config.loss == "hinge" else cross_entropy(logits, labels)

    def after_step(self) -> None:
        """Count the step."""
        self.steps += 1

    def scores(self, images: Tensor) -> dict[str, Tensor]:
        """Return the logits of samples ``(B, D)``."""
        return {"head": self.network(images)}

    def memory_rows(self) -> dict[str, Tensor]:
        """Return the tensors of kept samples, each with one row a sample; only rows in use."""
        return {}

    def trace(self) -> dict[str, Tensor]:
        """Return what a picture of the learner shows, such as keys and their usage, by name."""
        return {}

    def byte_report(self) -> ByteReport:
        """Count the network (as heads: there is no model below it), its buffers, and the kept samples."""
        network = module_bytes(self.network)
        rows = self.memory_rows()
        memory = sum(values.nbytes for values in rows.values())
        return ByteReport(
            model_bytes=0,
            head_bytes=network.parameters,
            buffer_bytes=network.buffers,
            memory_bytes=memory,
            teacher_bytes=0,
            paper_model_bytes=network.parameters,
            paper_memory_bytes=memory,
            exemplars=max((len(values) for values in rows.values()), default=0),
            equals_exemplars=0,
        )

    # ------------------------------------------------------------------ state

    def get_extra_state(self) -> dict[str, Any]:
        """Return optimiser, step and random numbers, as tensors and plain types."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "steps": self.steps,
            "generator": self._generator.get_state(),
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`get_extra_state`."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.steps = state["steps"]
        self._generator.set_state(state["generator"].cpu())
        self._drawing = None

    # ------------------------------------------------------------------ parts

    def fresh_optimizer(self) -> Optimizer:
        """Return the configured optimiser of all parameters, before its first step."""
        config = self.config
        return online_optimizer(list(self.network.parameters()), config.optimizer, config.lr, config.weight_decay)

    def _build_as_published(self, ingredients: OnlineIngredients) -> None:
        """Build the network from torch's generator as the authors' runner leaves it: a look at the net comes first."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(ingredients.seed)
            self.network = self.make_network()
            with torch.no_grad():
                self.network(torch.rand(1, ingredients.dimension))
            self._generator.set_state(torch.get_rng_state())

    def _bytes_left(self) -> int | None:
        budget: int | None = self.config.total_bytes
        if budget is None:
            return None
        taken: int = module_bytes(self.network).total
        if taken > budget:
            raise UserError(
                f"method.total_bytes={budget}: the network of method={self.config.name} alone takes {taken} "
                f"bytes. Type method.total_bytes={taken} or more, or a smaller network"
            )
        return budget - taken
