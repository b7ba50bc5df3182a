"""Mnemonics: exemplars whose pixels are learned, so that a model trained on them alone does well on all images.

Liu, Su, Liu, Schiele, Sun, "Mnemonics Training: Multi-Class Incremental Learning without Forgetting", CVPR 2020. Two
levels take turns: the model is trained with the exemplars, then the exemplars through the model's training on them, new
ones judged by new images, old ones half against half.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer
from torch.optim.lr_scheduler import LRScheduler, StepLR

from mmcl.config.schema import ExemplarSchedule
from mmcl.errors import DivergedError, UserError
from mmcl.images import FloatPixels, Images
from mmcl.memory.class_rows import class_rows
from mmcl.memory.nearest_mean import TwoViewNearestMean
from mmcl.memory.row_store import RowStore
from mmcl.methods.aanets import Aanets
from mmcl.methods.class_incremental import ClassIncrementalIngredients
from mmcl.methods.cosine_incremental import BALANCED
from mmcl.methods.mnemonics.adjusting import half_step_loss, halves
from mmcl.methods.mnemonics.bilevel import BilevelLoss, UnrolledClassifier, UnrolledNetwork
from mmcl.methods.mnemonics.prototype_level import PrototypeLevel
from mmcl.methods.mnemonics.settings import UNROLLED, MnemonicsConfig
from mmcl.methods.mnemonics.storage import stored
from mmcl.protocol import Batch, ClassTask, Samples, Stage
from mmcl.randomness import permutation

EXEMPLARS, ADJUSTING = "exemplars", "adjusting"
HALF_PRECISION = "16-mixed"
LARGEST_PIXEL = 1000.0  # normalised; an image has some 2.5


class Mnemonics(Aanets):
    """A base (LUCIR or distillation) on one network or two branches, with an exemplar level.

    Attributes:
        exemplars: normalised pixels ``(R, 3, H, W)`` while a stage learns them, None otherwise.
        candidates: chosen images of new classes until their pixels are learned.
    """

    Config: ClassVar[type] = MnemonicsConfig
    config: MnemonicsConfig

    def __init__(self, config: MnemonicsConfig, ingredients: ClassIncrementalIngredients) -> None:
        super().__init__(config, ingredients)
        if config.exemplars.mode in UNROLLED:
            # A gradient through gradients would need its own scaling at every step.
            self.precisions = tuple(name for name in self.precisions if name != HALF_PRECISION)
        self.exemplar_mode = config.exemplars.mode
        self._check_image_counts()
        self._check_bytes()
        self.candidates = RowStore()
        self.exemplars: nn.Parameter | None
        self.register_parameter("exemplars", None)
        self._labels = torch.empty(0, dtype=torch.int64)
        self._sources = torch.empty(0, dtype=torch.int64)
        self._old_means: Tensor | None = None
        self._step = 0

    @classmethod
    def growth_of(cls, config: Any) -> str:
        """Return ``aanets`` with two branches, ``single`` otherwise."""
        return cls.growth if config.network == "aanets" else "single"

    def changed_network(self) -> nn.Module:
        """Return two branches, or the one network with or without weight transfer."""
        if self.config.network == "aanets":
            return super().changed_network()
        return super(Aanets, self).changed_network()

    # ------------------------------------------------------------------ stages

    def stages(self, task: ClassTask) -> list[Stage]:
        """Put learning and adjusting of exemplars behind the representation."""
        first, rest = _split(super().stages(task), "representation")
        config = self.config.exemplars
        if config.mode == "off":
            return [*first, *rest]
        learning = [Stage(EXEMPLARS, self._queries(task), config.learning)]
        halved = bool((self.memory.counts(task.known) > 1).any())  # one exemplar of a class leaves nothing to judge by
        if task.known and config.adjusting.rounds and config.mode in UNROLLED and halved:
            learning.append(self._adjusting_stage(task))
        return [*first, *learning, *rest]

    def begin_stage(self, stage: Stage, task: ClassTask) -> None:
        """Check exemplars out of the memory, as parameters."""
        super().begin_stage(stage, task)
        if stage.name == EXEMPLARS:
            self.select(task)
            self._check_out(task, self.candidates.samples())
            if self.config.exemplars.mode == "nme" and task.known:
                self._old_means = self._means_of_old(task)
        elif stage.name == ADJUSTING:
            self._check_out(task, self._old_exemplars(task))
            self._split = halves(self._labels, self.ingredients.seed, task.index, "halves")

    def end_stage(self, stage: Stage, task: ClassTask) -> None:
        """Commit learned exemplars to the memory."""
        if stage.name not in (EXEMPLARS, ADJUSTING):
            # With learning, begin_stage selects: queries may be the memory that the representation was trained with.
            if stage.name == BALANCED or self.config.exemplars.mode == "off":
                super().end_stage(stage, task)
            return
        assert self.exemplars is not None
        self._check_visible(stage, task)
        # The memory lies beside the data set, on the CPU.
        pixels = stored(self.exemplars, task.pixel_scale, self.config.exemplars.storage).cpu()
        images: Images = FloatPixels(pixels) if pixels.is_floating_point() else pixels
        learned = Samples(images, self._labels.cpu(), self._sources.cpu())
        labels = range(task.known, task.seen) if stage.name == EXEMPLARS else range(task.known)
        self.memory.remove_classes(labels)
        self.memory.append(learned)
        self.candidates.remove_classes(labels)
        self.exemplars, self._old_means = None, None
        self.thaw_network()

    def select(self, task: ClassTask) -> None:
        """Choose new exemplars as candidates where their pixels will be learned, as exemplars at once otherwise."""
        if self.config.exemplars.mode == "off":
            super().select(task)
        elif not self._has_selected(task) and not len(self.candidates):
            self.memory.keep_first(self.per_class(task.seen))
            self.candidates.append(self.chosen(task))

    def _adjusting_stage(self, task: ClassTask) -> Stage:
        config, old = self.config.exemplars.adjusting, self._old_exemplars(task)
        schedule = ExemplarSchedule(
            epochs=config.rounds,
            batch_size=max(1, len(old)),  # a round looks at all of them
            optimizer="sgd",
            lr=config.lr,
            momentum=0.0,
            weight_decay=0.0,
            lr_decay=config.lr_decay,
            decay_epochs=config.decay_rounds,
        )
        return Stage(ADJUSTING, old, schedule)

    def _old_exemplars(self, task: ClassTask) -> Samples:
        kept = self.kept(task)
        return kept.select(kept.labels < task.known)

    def _queries(self, task: ClassTask) -> Samples:
        config, train = self.config.exemplars, task.train
        if config.queries_per_class is not None:
            train = train.select(self._rows_per_class(train.labels, config.queries_per_class, task.index, "queries"))
        return self.memory.join_after(train) if config.queries == "new_and_memory" else train

    def _check_out(self, task: ClassTask, samples: Samples) -> None:
        """Make exemplars parameters, under the test transform, and let nothing else train."""
        images = [batch.images for batch in task.plain_batches(samples, self.device)]
        self.freeze_network()
        self.exemplars = nn.Parameter(torch.cat(images).contiguous())
        self._labels, self._sources = samples.labels.to(self.device), samples.sources.to(self.device)

    @torch.no_grad()
    def _check_visible(self, stage: Stage, task: ClassTask) -> None:
        """Refuse pixels far beyond what an image can have, on which losses may still be finite."""
        assert self.exemplars is not None
        assert isinstance(stage.schedule, ExemplarSchedule)
        if not bool(self.exemplars.abs().max() < LARGEST_PIXEL):
            key = "learning" if stage.name == EXEMPLARS else "adjusting"
            raise DivergedError(
                f"the learned pixels are too large for an image in task {task.index + 1}, stage {stage.name}. The last "
                "good state is kept. Try a smaller learning rate, such as "
                f"method.exemplars.{key}.lr={stage.schedule.lr / 10:g}"
            )

    def _means_of_old(self, task: ClassTask) -> Tensor:
        """Return the old classes' means under the network as it is now, ``(known, D)``."""
        means = TwoViewNearestMean()
        self._renew(means, task, self._old_exemplars(task))
        return means.means[: task.known].float()

    # ------------------------------------------------------------------ the exemplar level

    def optimizer_of(self, stage: Stage) -> tuple[Optimizer, LRScheduler]:
        """Return the optimiser of the stage: over pixels where these are learned."""
        if isinstance(stage.schedule, ExemplarSchedule):
            assert self.exemplars is not None
            return pixel_optimizer(self.exemplars, stage.schedule)
        return super().optimizer_of(stage)

    def on_train_epoch_start(self) -> None:
        """Count the steps of the epoch, which key what takes part in each."""
        super().on_train_epoch_start()
        self._step = 0

    def training_step(self, block: Iterable[Any], block_index: int) -> None:
        """Step along every batch; in the adjusting stage, a batch stands for a round of two steps."""
        super().training_step(self._turns(block), block_index)

    def _turns(self, block: Iterable[Any]) -> Iterator[Any]:
        """Yield each batch for half A of old exemplars and, when it has moved, for half B."""
        if not self._is_adjusting():
            yield from block
            return
        for batch in block:
            yield batch
            self._split = self._split.swapped()
            yield batch
            self._split = self._split.swapped()

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the loss of the stage: for exemplars, that of queries after training on the exemplars."""
        assert self.stage is not None
        if self.stage.name not in (EXEMPLARS, ADJUSTING):
            return super().losses(batch)
        assert self.exemplars is not None
        if self._is_adjusting():  # every process has all exemplars, and so the same gradient
            return {"outer": half_step_loss(self._level(), self.exemplars, self._labels, self._split)}
        rows = self._rows_of_step()
        exemplars, labels = self.exemplars[rows], self._labels[rows]
        return {"outer": self._level()(exemplars, labels, batch.images, batch.labels)}

    def _is_adjusting(self) -> bool:
        return self.stage is not None and self.stage.name == ADJUSTING

    def _level(self) -> BilevelLoss:
        """Return what judges exemplars, by the mode."""
        mode, inner = self.config.exemplars.mode, self.config.exemplars.inner
        if mode == "unrolled_full":
            return UnrolledNetwork(self.network, inner.lr, inner.steps, inner.unrolling)
        if mode == "unrolled_fc":
            sets = 1 if self._is_adjusting() else inner.sets  # half of a few exemplars are no sets
            return UnrolledClassifier(self.network, inner.lr, inner.steps, sets)
        assert self._task is not None
        return PrototypeLevel(self.network, self._old_means, self._task.seen)

    def _rows_of_step(self) -> Tensor:
        """Return the exemplars that take part in a step: all, or some of each class, keyed by the step."""
        count = self.config.exemplars.per_step
        self._step += 1
        if count is None:
            return torch.arange(len(self._labels), device=self.device)
        assert self._task is not None
        parts = (self._task.index, "step", self.current_epoch, self._step)
        return self._rows_per_class(self._labels, count, *parts).to(self.device)

    def _rows_per_class(self, labels: Tensor, count: int, *parts: int | str) -> Tensor:
        """Draw at most ``count`` rows of each class, keyed by the parts."""
        chosen = []
        for rows in class_rows(labels.cpu()):
            draw = (self.ingredients.seed, *parts, int(labels[rows[0]]))
            chosen.append(rows[permutation(len(rows), *draw)[:count]])
        return torch.cat(chosen)

    def _check_bytes(self) -> None:
        """Refuse a budget of bytes that unrounded pixels would exceed four times."""
        exemplars, budget = self.config.exemplars, self.ingredients.quota
        if exemplars.mode != "off" and exemplars.storage == "float" and budget and budget.config.bytes is not None:
            raise UserError(
                "method.exemplars.storage=float keeps four bytes where memory.bytes counts one. Type "
                "method.exemplars.storage=uint8_round, or memory.bytes=null memory.per_class=20"
            )

    def _check_image_counts(self) -> None:
        """Refuse more exemplars than a class has images, before anything is trained."""
        sizes, fewest = self.ingredients.task_sizes, self.ingredients.fewest_images
        wanted = self.per_class(sizes[0]) if sizes else 0
        if self.config.exemplars.mode != "off" and wanted > fewest:
            raise UserError(
                f"{wanted} exemplars of each class are to be learned, and a class has only {fewest} images. Type "
                f"memory.size=null memory.per_class={min(20, fewest)}, a smaller memory.size, or "
                "method.exemplars.mode=off"
            )


def pixel_optimizer(exemplars: nn.Parameter, schedule: ExemplarSchedule) -> tuple[Optimizer, LRScheduler]:
    """Build the optimiser of exemplars, normalised pixels ``(R, 3, H, W)``, and its rate over epochs."""
    if schedule.optimizer == "adam":
        optimizer: Optimizer = Adam(
            [exemplars], schedule.lr, betas=(schedule.momentum, 0.999), weight_decay=schedule.weight_decay
        )
    else:
        optimizer = SGD([exemplars], schedule.lr, momentum=schedule.momentum, weight_decay=schedule.weight_decay)
    return optimizer, StepLR(optimizer, schedule.decay_epochs, schedule.lr_decay)


def _split(stages: list[Stage], name: str) -> tuple[list[Stage], list[Stage]]:
    """Split stages behind the one of a name, or before all where there is none."""
    return [stage for stage in stages if stage.name == name], [stage for stage in stages if stage.name != name]
