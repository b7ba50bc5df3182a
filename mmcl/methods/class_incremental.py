"""What the class-incremental methods share: one network with a growing head, one stage per task, a memory to replay.

The baselines' settings are those of PyCIL, which the tables of MEMO's paper and of the survey "Class-Incremental
Learning" (Zhou et al., TPAMI 2024) come from.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mmcl.backbones.freezing import freeze
from mmcl.backbones.plain import PlainNetwork
from mmcl.backbones.split import SplitBackbone
from mmcl.config.schema import ComponentConfig, Schedule, setting
from mmcl.errors import UserError
from mmcl.memory.accounting import ByteReport
from mmcl.memory.herding import Selector
from mmcl.memory.nearest_mean import NearestMean
from mmcl.memory.quota import Quota
from mmcl.memory.row_store import RowStore
from mmcl.methods.base import Ingredients, Method
from mmcl.protocol import ClassTask, Samples, Stage, Task


@dataclass(frozen=True)
class ClassIncrementalIngredients(Ingredients):
    """What a run gives a class-incremental method.

    Attributes:
        make_backbone: builds a freshly initialised backbone.
        quota: how many samples of a class may be kept.
        select: which ones.
        image_bytes: bytes of one image in the papers' accounting.
        task_sizes: number of new classes of each task.
        fewest_images: training images of the class that has fewest.
    """

    make_backbone: Callable[[], SplitBackbone]
    quota: Quota
    select: Selector
    image_bytes: int
    task_sizes: tuple[int, ...]
    fewest_images: int


@dataclass
class ClassIncrementalConfig(ComponentConfig):
    """Keys that every class-incremental method has."""

    first_task: Schedule = setting("How the first task is trained.")
    later_tasks: Schedule = setting("How every later task is trained.")
    first_task_weights: str | None = setting(
        "File first_task.pt of a run of a plain network, loaded instead of training the first task: methods then share "
        "its accuracy, as in the papers' tables. null trains."
    )


class ClassIncremental(Method[ClassTask]):
    """A network whose head grows with the classes, trained in one stage per task on the new classes alone.

    Attributes:
        keeps_memory: whether a budget of samples concerns it.
        growth: how the papers' accounting counts its backbone (see ``mmcl.memory.accounting.counted_parameters``).
    """

    Config: ClassVar[type] = ClassIncrementalConfig
    task_type: ClassVar[type[Task]] = ClassTask
    readouts: tuple[str, ...] = ("cnn",)
    growth: ClassVar[str] = "single"
    keeps_memory: ClassVar[bool] = False
    ingredients: ClassIncrementalIngredients
    network: Any

    def __init__(self, config: ClassIncrementalConfig, ingredients: ClassIncrementalIngredients) -> None:
        super().__init__(config, ingredients)
        self.known = 0
        self.network = self.make_network()

    @classmethod
    def growth_of(cls, config: Any) -> str:
        """Return how the papers' accounting counts the backbone under a configuration of the method."""
        return cls.growth

    def make_network(self) -> nn.Module:
        """Build the network before the first task."""
        return PlainNetwork(self.ingredients.make_backbone())

    def grow(self, task: ClassTask) -> None:
        """Widen the head to all seen classes."""
        self.known = task.known
        self.network.expand(task.seen)

    def begin_task(self, task: ClassTask) -> None:
        """Load the first task's weights, if another run is to share them."""
        if self._is_shared(task):
            path = self.config.first_task_weights
            try:
                self.load_first_task(read_weights(path))
            except RuntimeError as error:
                raise UserError(
                    f"method.first_task_weights={path}: of another network or another first task. {error}"
                ) from error

    def load_first_task(self, weights: dict[str, Tensor]) -> None:
        """Take the weights of a plain network for the first task's classes."""
        self.network.load_state_dict(weights)

    def first_task_weights(self) -> dict[str, Tensor] | None:
        """Return the plain network."""
        state: dict[str, Tensor] = self.network.state_dict()
        return state

    def _is_shared(self, task: ClassTask) -> bool:
        return task.index == 0 and self.config.first_task_weights is not None

    def stages(self, task: ClassTask) -> list[Stage]:
        """Train once, on :meth:`training_samples`; not at all where the first task's weights are shared."""
        if self._is_shared(task):
            return []
        schedule = self.config.first_task if task.index == 0 else self.config.later_tasks
        return [Stage("representation", self.training_samples(task), schedule)]

    def training_samples(self, task: ClassTask) -> Samples:
        """Return what the representation is trained on."""
        return task.train

    def scores(self, images: Tensor) -> dict[str, Tensor]:
        """Classify by the largest logit (``cnn``)."""
        return {"cnn": self.network(images).logits}

    def byte_report(self) -> ByteReport:
        """Count the network's bytes."""
        return ByteReport.measure(self.network, image_bytes=self.ingredients.image_bytes)


class ReplayMethod(ClassIncremental):
    """Keeps exemplars of old classes, trains on them beside the new data, and classifies by nearest mean, too."""

    readouts: tuple[str, ...] = ("cnn", "nme")
    keeps_memory: ClassVar[bool] = True

    def __init__(self, config: ClassIncrementalConfig, ingredients: ClassIncrementalIngredients) -> None:
        super().__init__(config, ingredients)
        self.memory = RowStore()
        self.nearest_mean = NearestMean()

    def training_samples(self, task: ClassTask) -> Samples:
        """Return the new classes' data, followed by the memory (by class, in rank order)."""
        return self.memory.join_after(task.train)

    def end_task(self, task: ClassTask) -> None:
        """Shrink every old class to its share of the memory, select rows of the new ones, renew the class means."""
        per_class = self.ingredients.quota.per_class(task.seen)
        self.memory.keep_first(per_class)
        features = encode(self.network, task, task.train, self.device)
        self.memory.append(task.train.select(self.ingredients.select(features, task.train.labels, per_class)))
        kept = self.memory.join_after(task.train.select(torch.arange(0)))
        self.nearest_mean.renew(encode(self.network, task, kept, self.device), kept.labels, task.seen)

    def scores(self, images: Tensor) -> dict[str, Tensor]:
        """Classify by the largest logit (``cnn``) and by the nearest class mean of the memory (``nme``)."""
        output = self.network(images)
        return {"cnn": output.logits, "nme": self.nearest_mean(output.features)}

    def byte_report(self) -> ByteReport:
        """Count the bytes of network and memory."""
        return ByteReport.measure(self.network, image_bytes=self.ingredients.image_bytes, memory=self.memory)


@dataclass
class DistillationConfig(ClassIncrementalConfig):
    """Keys of methods that learn from the network of the task before."""

    temperature: float = setting("Softening of old and new logits; 1 compares plain probabilities. PyCIL: 2.")


class DistillationMethod(ReplayMethod):
    """A replay method that holds a frozen copy of the network of the task before."""

    Config: ClassVar[type] = DistillationConfig

    def __init__(self, config: ClassIncrementalConfig, ingredients: ClassIncrementalIngredients) -> None:
        super().__init__(config, ingredients)
        self.teacher: PlainNetwork | None = None

    def grow(self, task: ClassTask) -> None:
        """Copy the network before its head grows."""
        if task.index:
            self.teacher = copy.deepcopy(self.network)
            freeze(self.teacher)
        super().grow(task)

    def byte_report(self) -> ByteReport:
        """Count the bytes of network, memory and teacher."""
        return ByteReport.measure(
            self.network, image_bytes=self.ingredients.image_bytes, memory=self.memory, teacher=self.teacher
        )

    @torch.no_grad()
    def logits_old(self, images: Tensor) -> Tensor:
        """Return the teacher's logits of the old classes, ``(B, known)``."""
        assert self.teacher is not None
        logits: Tensor = self.teacher(images).logits
        return logits


def read_weights(path: str) -> dict[str, Tensor]:
    """Read ``first_task.pt``.

    Raises:
        UserError: no such file, or not one of ours.
    """
    try:
        weights: dict[str, Tensor] = torch.load(Path(path).expanduser(), map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise UserError(
            f"method.first_task_weights={path}: cannot be read ({error}). Name the first_task.pt in the directory of a "
            "finished run of finetune or replay on the same benchmark and seed"
        ) from error
    return weights


@torch.no_grad()
def encode(
    network: nn.Module,
    task: ClassTask,
    samples: Samples,
    device: torch.device,
    alter: Callable[[Tensor], Tensor] = lambda images: images,
) -> Tensor:
    """Return the network's features ``(N, D)`` of samples in evaluation mode, under the test transform.

    ``alter`` may turn normalised images ``(B, 3, H, W)`` into another view of them.
    """
    training = network.training
    network.eval()
    parts = [network(alter(batch.images)).features.float() for batch in task.plain_batches(samples, device)]
    network.train(training)
    return torch.cat(parts) if parts else torch.zeros(0, 0, device=device)
