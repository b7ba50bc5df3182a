"""What LUCIR, iCaRL with a cosine head, AANets and Mnemonics share: a cosine head, a reference, four readouts.

Liu, Su, Liu, Schiele, Sun, "Mnemonics Training: Multi-Class Incremental Learning without Forgetting", CVPR 2020, whose
code builds on that of Hou et al., "Learning a Unified Classifier Incrementally via Rebalancing", CVPR 2019 (LUCIR).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcl.backbones.cosine_head import imprinted_rows
from mmcl.backbones.cosine_network import CosineNetwork, CosineOutput
from mmcl.backbones.freezing import freeze
from mmcl.backbones.projection_shortcuts import projection_shortcuts
from mmcl.backbones.signed_features import signed_features
from mmcl.config.schema import Passes, Schedule, setting
from mmcl.errors import UserError, nearest
from mmcl.memory.accounting import ByteReport
from mmcl.memory.exemplar_record import ExemplarRecord
from mmcl.memory.fast_means import FastMeans, keyed_orders
from mmcl.memory.nearest_mean import TwoViewNearestMean
from mmcl.memory.row_store import RowStore
from mmcl.methods.class_incremental import ClassIncrementalConfig, ClassIncrementalIngredients, ReplayMethod, encode
from mmcl.methods.cosine_losses import lucir_terms, soft_target_terms
from mmcl.methods.exemplar_pictures import exemplar_record, shown_classes
from mmcl.protocol import Batch, ClassTask, Samples, Stage

BALANCED = "balanced"
TERMS: dict[str, tuple[str, Callable[..., dict[str, Tensor]]]] = {
    "lucir": ("less_forget", lucir_terms),
    "distillation": ("soft_targets", soft_target_terms),
}
SECOND_VIEWS: dict[str, Callable[[Tensor], Tensor] | None] = {
    "none": None,
    "channel_reverse": lambda pixels: pixels.flip(1),
    "hflip": lambda pixels: pixels.flip(3),
}


@dataclass
class FastClassifierConfig(Passes):
    """How the class means are tuned on the exemplars' features."""

    lr: float = setting("Learning rate of plain SGD. Official code: 0.1.")


@dataclass
class CosineConfig(ClassIncrementalConfig):
    """Keys of methods with a cosine head."""

    projection_shortcuts: bool = setting(
        "Shortcuts of a CIFAR ResNet that change the shape are 1x1 convolutions, as in LUCIR's code; false keeps those "
        "of the backbone, without parameters."
    )
    weight_transfer: bool = setting(
        "From the second task on, train a scale for each pair of channels instead of the convolutions' weights."
    )
    round_up: bool = setting(
        "Keep ceil(memory.size / classes) of a class instead of floor, as the official code; up to one more of each."
    )
    second_view: str = setting("View that a class mean averages beside the plain one: none, channel_reverse or hflip.")
    oracle_means: bool = setting(
        "Add the readout nme_all_oracle: means of all training images of all classes, which no budget allows."
    )
    fast_classifier: FastClassifierConfig = setting("Readout nme_ft: class means tuned on exemplars; epochs=0 none.")
    balanced: Schedule = setting("Fine-tuning of the head on exemplars alone, after a later task; epochs=0 is none.")

    def __post_init__(self) -> None:
        """Refuse an unknown view."""
        if self.second_view not in SECOND_VIEWS:
            known = ", ".join(SECOND_VIEWS)
            hint = nearest(self.second_view, SECOND_VIEWS)
            raise UserError(f"method.second_view={self.second_view}: expected one of {known}.{hint}")


class CosineIncremental(ReplayMethod):
    """Learns with a cosine head beside a frozen reference, the network of the task before.

    A subclass says which loss holds the old classes (``base``: a key of ``TERMS``) and what becomes of the network
    after the first task.

    Attributes:
        as_chosen: exemplars of a few classes as they were chosen, for pictures alone.
        exemplar_mode: how pixels of exemplars are learned, for pictures.
    """

    Config: ClassVar[type] = CosineConfig
    readouts: tuple[str, ...] = ("cnn", "nme", "nme_ft", "nme_all_oracle")
    base: str
    exemplar_mode: str = "off"

    def __init__(self, config: CosineConfig, ingredients: ClassIncrementalIngredients) -> None:
        super().__init__(config, ingredients)
        self._check_hard_negatives()
        self.teacher: nn.Module | None = None
        self.nearest_mean: TwoViewNearestMean = TwoViewNearestMean()  # type: ignore[assignment]
        self.fast_means = FastMeans()
        self.oracle_mean = TwoViewNearestMean()
        self.readouts = (
            "cnn",
            "nme",
            *(["nme_ft"] if config.fast_classifier.epochs else []),
            *(["nme_all_oracle"] if config.oracle_means else []),
        )
        self.as_chosen = RowStore()
        self._trained: list[nn.Parameter] = []

    def make_network(self) -> nn.Module:
        """Build the network before the first task: no ReLU at its end, so that features have both signs."""
        backbone = self.ingredients.make_backbone()
        if self.config.projection_shortcuts:
            projection_shortcuts(backbone)
        return CosineNetwork(signed_features(backbone))

    # ------------------------------------------------------------------ the words of a sequence

    def grow(self, task: ClassTask) -> None:
        """Copy the reference, change the network after the first task, widen the head."""
        if task.index:
            self.teacher = self.network.frozen_copy()
        if task.index == 1:
            self.network = self.changed_network()
        super().grow(task)

    def changed_network(self) -> nn.Module:
        """Return what the later tasks train, from the network of the first task."""
        if self.config.weight_transfer:
            self.network.transfer_weights()
        network: nn.Module = self.network
        return network

    def begin_task(self, task: ClassTask) -> None:
        """Imprint the rows of new classes: their mean direction, at the mean norm of the old rows."""
        super().begin_task(task)
        if task.known:
            features = encode(self.network, task, task.train, self.device)
            labels = task.train.labels.to(self.device)
            head = self.network.head
            with torch.no_grad():
                head.weight_new.copy_(imprinted_rows(head.weight_old, features, labels, range(task.known, task.seen)))

    def stages(self, task: ClassTask) -> list[Stage]:
        """Train the representation; then, in later tasks, the head on exemplars alone."""
        stages = super().stages(task)
        if task.known and self.config.balanced.epochs:
            stages.append(Stage(BALANCED, self.kept(task), self.config.balanced))
        return stages

    def begin_stage(self, stage: Stage, task: ClassTask) -> None:
        """Freeze all but the rows of the head for the balanced stage."""
        super().begin_stage(stage, task)
        if stage.name == BALANCED:
            self.freeze_network()
            for rows in (self.network.head.weight_old, self.network.head.weight_new):
                rows.requires_grad_(True)

    def end_stage(self, stage: Stage, task: ClassTask) -> None:
        """Select exemplars of the new classes once the representation is trained."""
        if stage.name == BALANCED:
            self.thaw_network()
        else:
            self.select(task)

    def end_task(self, task: ClassTask) -> None:
        """Renew the class means, and what is tuned from them."""
        self.select(task)
        kept = self.kept(task)
        self._renew(self.nearest_mean, task, kept)
        if self.config.oracle_means:
            self._renew(self.oracle_mean, task, Samples.concatenate([task.past(), task.train]))
        tuning = self.config.fast_classifier
        if tuning.epochs:
            features = encode(self.network, task, kept, self.device)
            orders = keyed_orders(len(kept), tuning.epochs, self.ingredients.seed, task.index)
            means = self.nearest_mean.means
            self.fast_means.train_on(features, kept.labels, means, orders, tuning.lr, tuning.batch_size)

    # ------------------------------------------------------------------ memory

    def select(self, task: ClassTask) -> None:
        """Cut the old classes to their share and keep exemplars of the new ones, unless that was done."""
        if not self._has_selected(task):
            self.memory.keep_first(self.per_class(task.seen))
            self.memory.append(self.chosen(task))

    def chosen(self, task: ClassTask) -> Samples:
        """Return the new classes' images that the memory's selector picks, by class and best first."""
        features = encode(self.network, task, task.train, self.device)
        rows = self.ingredients.select(features, task.train.labels, self.per_class(task.seen))
        chosen = task.train.select(rows)
        if task.index == 0:
            self.as_chosen.append(chosen.select(chosen.labels < shown_classes(task)))
        return chosen

    def exemplar_record(self, task: ClassTask) -> ExemplarRecord | None:
        """Describe the exemplars after the first and the last task."""
        wanted = task.index in (0, self.ingredients.task_count - 1) and len(self.as_chosen)
        return exemplar_record(self, task, self.as_chosen.samples()) if wanted else None

    def per_class(self, seen: int) -> int:
        """Return how many images of each class may be kept."""
        return self.ingredients.quota.per_class(seen, round_up=self.config.round_up)

    def kept(self, task: ClassTask) -> Samples:
        """Return the memory as samples of the task's data set; none while it is empty."""
        return self.memory.join_after(task.train.select(torch.arange(0)))

    def _has_selected(self, task: ClassTask) -> bool:
        return bool(self.memory.counts(task.seen)[task.known :].all())

    def _renew(self, means: TwoViewNearestMean, task: ClassTask, samples: Samples) -> None:
        view = SECOND_VIEWS[self.config.second_view]
        features = encode(self.network, task, samples, self.device)
        second = features
        if view is not None:
            scale = task.pixel_scale
            second = encode(
                self.network,
                task,
                samples,
                self.device,
                alter=lambda images: scale.normalise(view(scale.denormalise(images))),
            )
        means.renew(features, second, samples.labels, task.seen)

    # ------------------------------------------------------------------ losses and answers

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the cross-entropy and, from the second task on, the terms of the base."""
        output = self.network(batch.images)
        terms = {"classification": F.cross_entropy(output.logits, batch.labels)}
        if self.known:
            key, terms_of = TERMS[self.base]
            output_old = self.output_old(batch.images)
            terms |= terms_of(output, output_old, batch.labels, self.known, getattr(self.config, key))
        return terms

    @torch.no_grad()
    def output_old(self, images: Tensor) -> CosineOutput:
        """Return what the reference says."""
        assert self.teacher is not None
        output: CosineOutput = self.teacher(images)
        return output

    def scores(self, images: Tensor) -> dict[str, Tensor]:
        """Classify by the largest logit and by class means: of exemplars, tuned on them, of all images."""
        output = self.network(images)
        features = output.features.float()
        answers: dict[str, Callable[[], Tensor]] = {
            "cnn": lambda: output.logits,
            "nme": lambda: self.nearest_mean(features),
            "nme_ft": lambda: self.fast_means(features),
            "nme_all_oracle": lambda: self.oracle_mean(features),
        }
        return {name: answers[name]() for name in self.readouts}

    def byte_report(self) -> ByteReport:
        """Count the bytes of network, memory and reference."""
        return ByteReport.measure(
            self.network, image_bytes=self.ingredients.image_bytes, memory=self.memory, teacher=self.teacher
        )

    # ------------------------------------------------------------------ freezing for a stage

    def freeze_network(self) -> None:
        """Take the whole network out of training until :meth:`thaw_network`."""
        self._trained = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        freeze(self.network)

    def thaw_network(self) -> None:
        """Train again what trained before :meth:`freeze_network`."""
        freeze(self.network)
        for parameter in self._trained:
            parameter.requires_grad_(True)

    def _check_hard_negatives(self) -> None:
        smallest = min(self.ingredients.task_sizes[1:], default=None)
        if self.base != "lucir" or smallest is None or not self.config.less_forget.margin_weight:
            return
        wanted = self.config.less_forget.hard_negatives
        if wanted > smallest:
            raise UserError(
                f"method.less_forget.hard_negatives={wanted}: a task brings only {smallest} new classes. Type "
                f"method.less_forget.hard_negatives={smallest}, or give tasks more classes by benchmark.increment"
            )
