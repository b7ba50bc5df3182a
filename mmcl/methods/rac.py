"""RAC: a linear classifier of an image and of what retrieved class names say about it.

After Long, Yin, Ajanthan, Nguyen, Purkait, Garg, Blair, Shen, van den Hengel, "Retrieval Augmented Classification for
Long-Tail Visual Recognition", CVPR 2022, in the form that Kang et al., TMLR 2025, have in their code: frozen encoders,
the names of the nearest images of the memory as one text, and one linear layer that image and text share. The layer has
a row for each class of training, so it knows no other class, however much a memory says about it; that is what the
comparison shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear, pad

from mmcl.backbones.dual_encoder import DualEncoder
from mmcl.config.schema import StepSchedule, setting
from mmcl.errors import UserError
from mmcl.memory.prototypes import ClassRows
from mmcl.memory.search import RowIndex, make_index
from mmcl.methods.clip_zeroshot import cosine_logits
from mmcl.methods.mml.learner import near_rows
from mmcl.methods.on_features import FeatureIngredients, OnFeatures, OnFeaturesConfig
from mmcl.protocol import FeatureBatch, MemoryTask, Stage, Task

TEXTS_AT_ONCE = 256


@dataclass
class RacConfig(OnFeaturesConfig):
    """Keys of RAC."""

    neighbours: int = setting("Images of the memory whose class names make the text of a query. Published: 16.")
    schedule: StepSchedule = setting("How the linear layer is learned; 0 epochs leave it as drawn.")

    def __post_init__(self) -> None:
        """Refuse to retrieve nothing."""
        if self.neighbours < 1:
            raise UserError(f"method.neighbours={self.neighbours}: expected at least 1")


# ------------------------------------------------------------------ mathematics


def joined_names(classes: Tensor, class_names: Sequence[str]) -> list[str]:
    """Write the class names of neighbours ``(B, k)`` behind each other, nearest first: B texts.

    Underscores are read as blanks; a name that comes several times is written several times.
    """
    spoken = [name.replace("_", " ") for name in class_names]
    return [" ".join(spoken[number] for number in row) for row in classes.tolist()]


def shared_logits(images: Tensor, texts: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return ``W x + b + W r + b`` for images x and texts r, both ``(B, D)``: ``(B, C)``."""
    return linear(images + texts, weight, 2 * bias)


def known_classes_alone(logits: Tensor, class_names: Sequence[str], known: Sequence[str]) -> Tensor:
    """Place logits of known classes ``(B, L)`` among those of a task ``(B, C)``.

    A task that asks the known classes asks them first. All others score minus infinity.
    """
    if tuple(class_names[: len(known)]) != tuple(known):
        return logits.new_full((len(logits), len(class_names)), -torch.inf)
    return pad(logits, (0, len(class_names) - len(known)), value=-torch.inf)


class NameReader:
    """Encodes the class names of a query's nearest images.

    Args:
        index: of the images of a memory, N of them; None where it has none, and every text is then the zero vector.
        classes: of these images, int64 ``(N,)``.
        class_names: of the memory.
        neighbours: images that a query looks at.
        encoder: encodes texts; longer ones than it takes are cut.
    """

    def __init__(
        self,
        index: RowIndex | None,
        classes: Tensor,
        class_names: Sequence[str],
        neighbours: int,
        encoder: DualEncoder,
    ) -> None:
        self.index, self.classes, self.class_names = index, classes, class_names
        self.neighbours, self.encoder = neighbours, encoder

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Return what the texts of images ``(B, D)`` are encoded to: ``(B, D)``, not normalised.

        Raises:
            UserError: the memory has some images, but fewer than a query looks at.
        """
        if self.index is None:
            return torch.zeros_like(images)
        rows = near_rows(images, self.index, self.neighbours, "method.neighbours")
        texts = joined_names(self.classes[rows.cpu()], self.class_names)
        parts = [texts[first : first + TEXTS_AT_ONCE] for first in range(0, len(texts), TEXTS_AT_ONCE)]
        encoded = [self.encoder.encode_tokens(self.encoder.tokenize_beginnings(part)) for part in parts]
        return torch.cat(encoded).to(images)


# ------------------------------------------------------------------ method


class Rac(OnFeatures):
    """Learns the classes of training from their queries, with the names of what the memory retrieves.

    Classes that were not learned score minus infinity: where a task asks no others, its first class is always the
    answer, which is chance. The epoch is the last one, since other classes than those of training cannot choose it.

    Attributes:
        head: the shared layer, a row for each class of training.
    """

    Config: ClassVar[type] = RacConfig
    task_type: ClassVar[type[Task]] = MemoryTask
    readouts: tuple[str, ...] = ("rac", "text")
    config: RacConfig
    head: nn.Linear

    def __init__(self, config: RacConfig, ingredients: FeatureIngredients) -> None:
        super().__init__(config, ingredients)
        if ingredients.encoder is None:
            raise UserError(
                f"method={config.name} encodes the names of classes, and features from a file come without a text "
                "encoder. Choose a benchmark with a backbone, such as benchmark=shapes_memory"
            )
        self._learned_names: tuple[str, ...] = ()
        self._names: tuple[str, ...] = ()
        self._images: ClassRows | None = None
        self._reader: NameReader | None = None
        self._inputs: tuple[Tensor, Tensor] | None = None

    def grow(self, task: MemoryTask) -> None:  # type: ignore[override]
        """Make room for the text classifier and, in the first task, for the classes of training.

        Raises:
            UserError: the first task brings nothing to learn from.
        """
        super().grow(task)
        if task.index == 0:
            if task.training is None:
                raise UserError(
                    f"method={self.config.name} learns classes from labelled queries, and task {task.name} brings none"
                )
            self._learned_names = task.training.class_names
            self.head = nn.Linear(self.ingredients.dimension, len(self._learned_names))

    def stages(self, task: MemoryTask) -> list[Stage]:  # type: ignore[override]
        """Return the one pass of learning, in the task that brings training queries."""
        return [] if task.training is None else [Stage("rac", task.training.queries, self.config.schedule)]

    def begin_stage(self, stage: Stage, task: MemoryTask) -> None:  # type: ignore[override]
        """Read the texts of all training queries, once for all epochs."""
        super().begin_stage(stage, task)
        assert task.training is not None
        asked = task.training
        images = asked.queries.features[:, 0].float().to(self.device)
        reader = self._reader_of(*asked.content.images, asked.class_names)
        self._inputs = images, reader(images)

    def losses(self, batch: FeatureBatch) -> dict[str, Tensor]:
        """Return the cross-entropy of a batch of training queries."""
        assert self._inputs is not None
        images, texts = (part[batch.sources] for part in self._inputs)
        logits = shared_logits(images, texts, self.head.weight, self.head.bias)
        return {"classification": cross_entropy(logits, batch.labels)}

    def end_stage(self, stage: Stage, task: MemoryTask) -> None:  # type: ignore[override]
        """Let go of what only learning needs."""
        self._inputs = None

    def begin_evaluation(self, task: MemoryTask) -> None:  # type: ignore[override]
        """Look at the task's memory; all that was there before is gone."""
        self._images, self._names = task.memory.images, task.class_names
        self._reader = self._reader_of(*self._images, task.class_names)

    def scores(self, images: Tensor) -> dict[str, Tensor]:
        """Return the logits of the layer and of the zero-shot text classifier for plain queries ``(B, 1, D)``."""
        assert self._reader is not None
        features = images[:, 0]
        logits = shared_logits(features, self._reader(features), self.head.weight, self.head.bias)
        return {
            "rac": known_classes_alone(logits, self._names, self._learned_names),
            "text": cosine_logits(features, self.text_features, self.logit_scale),
        }

    def memory_rows(self) -> list[Tensor]:
        """Return the images of the memory."""
        return [] if self._images is None else [self._images.features]

    def _reader_of(self, features: Tensor, classes: Tensor, class_names: Sequence[str]) -> NameReader:
        assert self.ingredients.encoder is not None
        index = make_index("exact", features.float().to(self.device)) if len(features) else None
        return NameReader(index, classes.cpu(), class_names, self.config.neighbours, self.ingredients.encoder)
