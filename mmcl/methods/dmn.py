"""DMN: CLIP's text classifier beside a static memory of few shots and a dynamic memory of the test images seen so far.

Zhang, Zhu, Tang, Ma, Zhou, Zhang, "Dual Memory Networks: A Versatile Adaptation Approach for Vision-Language Models",
CVPR 2024. Without shots it adapts at test time (DMN-ZS), with shots and ``learn: false`` it needs no training (DMN-TF),
with ``learn: true`` a few biases are learned from the shots (DMN).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor, nn
from torch.nn.functional import normalize
from torchmetrics import Metric

from mmcl.config.schema import StepSchedule, setting
from mmcl.errors import UserError, nearest
from mmcl.methods.channel_selection import channel_mask
from mmcl.methods.dmn_fusion import FusionGrid, fuse
from mmcl.methods.dmn_projections import KINDS, POSITIONS, DmnProjections
from mmcl.methods.dmn_readout import (
    Slots,
    fixed_slots,
    group_shots,
    make_slots,
    readout,
    slot_gram,
    static_slots,
    text_logits,
)
from mmcl.methods.dmn_stream import DynamicMemory
from mmcl.methods.entropy import confident_count, confident_mean, view_entropy
from mmcl.methods.on_features import FeatureIngredients, OnFeatures, OnFeaturesConfig
from mmcl.protocol import DatasetTask, FeatureBatch, ImageFeatures, Stage
from mmcl.randomness import permutation

FUSIONS = ("fixed", "val")
MEMORY_EPSILON = 1e-8
VALIDATION_SHOTS = 4


@dataclass
class FusionWeights:
    """Weights of the probabilities that are added up."""

    text: float = setting("Weight of the text classifier; 0 leaves it out.")
    dynamic: float = setting("Weight of the dynamic memory; 0 leaves it out.")
    static: float | None = setting("Weight of the static memory, if there are shots. null: 0.3 with learn, else 1.")


@dataclass
class DmnConfig(OnFeaturesConfig):
    """Keys of DMN."""

    shots: int = setting("Labelled training images of each class; 0 is the zero-shot setting. Paper: 0 to 16.")
    learn: bool = setting("Learn the projections from the shots; false is training-free.")
    views: int = setting("Views of each test image, the plain one included. Paper: 32.")
    selection_share: float = setting(
        "Share of views, those of lowest entropy, that choose the stored class. Paper: 0.1."
    )
    slots_per_class: int = setting("Test images that the dynamic memory keeps of each class, at least 1. Paper: 50.")
    sharpness: float = setting("Of the attention over slots, 0 (all alike) to 20. Paper: 5.5.")
    position: str = setting("Which projections act: none, query, key, value, qkv, output (and text), or all.")
    shared_parameters: bool = setting("One projection for query, key and value, and one for output and text.")
    projection: str = setting("Of query, key and value: bias of each class, or affine (one matrix for all classes).")
    augmented_shots: int = setting("Views of each shot in the static memory; 1 is the plain one alone. Paper: 1.")
    channels: int = setting("Channels that the static memory classifies by; 0 is all. Without shots of no effect.")
    channel_similarity_weight: float = setting("Of the choice: 0 looks at variance alone, 1 at similarity.")
    fusion: str = setting("fixed: weights as given; val: chosen on validation images, which needs shots.")
    weights: FusionWeights = setting("What fusion=fixed adds up with.")
    passes: int | None = setting("Encoded augmentation passes; epoch e sees pass e modulo passes. null: one an epoch.")
    schedule: StepSchedule = setting("How the projections are learned.")
    schedule_of: dict[str, Any] = setting("Other schedule values for single data sets, such as {dtd: {epochs: 100}}.")

    def __post_init__(self) -> None:
        """Refuse values that could stop a run only after data is touched, or that say nothing."""
        _expect("position", self.position, tuple(POSITIONS))
        _expect("projection", self.projection, KINDS)
        _expect("fusion", self.fusion, FUSIONS)
        lowest = {"shots": 0, "views": 1, "slots_per_class": 1, "augmented_shots": 1, "channels": 0, "passes": 1}
        for name, least in lowest.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserError(f"method.{name}={value}: expected at least {least}")
        if not 0 <= self.sharpness <= 20:
            raise UserError(f"method.sharpness={self.sharpness}: expected 0 to 20, where float32 can weigh all slots")
        if not 0 <= self.channel_similarity_weight <= 1:
            raise UserError(f"method.channel_similarity_weight={self.channel_similarity_weight}: expected 0 to 1")
        if self.learn and not self.shots:
            raise UserError("method.learn=true needs labelled images. Type for example method.shots=16")
        if self.fusion == "val" and not self.shots:
            raise UserError(
                "method.fusion=val: the zero-shot setting has no validation labels. Type method.fusion=fixed, "
                "or give method.shots"
            )
        confident_count(self.views, self.selection_share)
        for dataset in self.schedule_of:
            self.schedule_for(dataset)

    def schedule_for(self, dataset: str) -> StepSchedule:
        """Return the schedule of a data set.

        Raises:
            UserError: an unknown key among its own values.
        """
        own = self.schedule_of.get(dataset, {})
        known = tuple(StepSchedule.__dataclass_fields__)
        for key in own:
            if key not in known:
                raise UserError(f"unknown key 'method.schedule_of.{dataset}.{key}'.{nearest(key, known)}")
        try:
            merged: StepSchedule = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(self.schedule), own))  # type: ignore[assignment]
        except OmegaConfBaseException as error:
            raise UserError(f"method.schedule_of.{dataset}: {str(error).splitlines()[0]}") from error
        return merged

    @property
    def static_weight(self) -> float:
        """Weight of the static memory."""
        return self.weights.static if self.weights.static is not None else (0.3 if self.learn else 1.0)


def _expect(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UserError(f"method.{name}={value}: expected one of {', '.join(known)}.{nearest(value, known)}")


class Dmn(OnFeatures):
    """Answers by text, by each memory and by their weighted sum; the test images that it answers fill the dynamic one.

    Attributes:
        shots: unit features of the few shots ``(C, K, A, D)``.
        memory: the dynamic memory.
        projections: what may be learned.
        channel_mask: 1 for channels that the static memory classifies by ``(D,)``.
        fusion_weights: of text, dynamic and static ``(3,)``.
    """

    Config: ClassVar[type] = DmnConfig
    readouts: tuple[str, ...] = ("text", "dynamic", "static", "fused")
    ordered: ClassVar[bool] = True
    config: DmnConfig
    shots: Tensor
    memory: DynamicMemory
    projections: DmnProjections
    channel_mask: Tensor
    fusion_weights: Tensor

    def __init__(self, config: DmnConfig, ingredients: FeatureIngredients) -> None:
        super().__init__(config, ingredients)
        if config.channels > ingredients.dimension:
            raise UserError(f"method.channels={config.channels}: features have {ingredients.dimension} channels")
        if not config.shots:
            self.readouts = ("text", "dynamic", "fused")
        self.test_views = config.views
        self.confident = confident_count(config.views, config.selection_share)
        self._gram: Tensor | None = None
        self._static: Slots | None = None

    # ------------------------------------------------------------------ a data set

    def grow(self, task: DatasetTask) -> None:
        """Make room for the memories and the projections of a data set's classes."""
        super().grow(task)
        config, dimension = self.config, self.ingredients.dimension
        views = config.augmented_shots
        self.register_buffer("shots", torch.zeros(task.size, config.shots, views, dimension))
        self.register_buffer("channel_mask", torch.ones(dimension))
        self.register_buffer("fusion_weights", torch.ones(3))
        self.memory = DynamicMemory(task.size, 1 + config.shots, config.slots_per_class, dimension)
        self.projections = DmnProjections(
            task.size, dimension, config.position, config.projection, config.shared_parameters, config.learn
        )

    def begin_task(self, task: DatasetTask) -> None:
        """Build text classifier and static memory, and choose the channels."""
        super().begin_task(task)
        config = self.config
        if config.shots:
            images = self._few_shots(task)
            features, labels = images.features, images.labels
            chosen = torch.cat([features[:, :1], features[:, features.shape[1] - config.augmented_shots + 1 :]], dim=1)
            self.shots.copy_(group_shots(chosen, labels, task.size))
        if config.channels:
            self.channel_mask.copy_(channel_mask(self.text_features, config.channels, config.channel_similarity_weight))
        if config.fusion == "val":
            self._validation(task)  # what is missing shall be missed before anything is learned
        weights = (config.weights.text, config.weights.dynamic, config.static_weight)
        self.fusion_weights.copy_(torch.tensor(weights))
        self._forget_derived()

    def _few_shots(self, task: DatasetTask) -> ImageFeatures:
        """Return the shots: plain, under the passes of learning, then under the further views of the memory."""
        return task.encoded.train(self.config.shots, self._passes(task) + self.config.augmented_shots - 1)

    def _passes(self, task: DatasetTask) -> int:
        if not self._learns:
            return 0
        epochs = max(1, self.config.schedule_for(task.name).epochs)
        return epochs if self.config.passes is None else min(self.config.passes, epochs)

    @property
    def _learns(self) -> bool:
        return self.config.learn and self.config.position != "none"

    def _forget_derived(self) -> None:
        """Drop what is computed from the state; it is computed again when it is asked for."""
        self._gram = self._static = None

    # ------------------------------------------------------------------ learning from few shots

    def stages(self, task: DatasetTask) -> list[Stage]:
        """Return the one pass of learning; none where nothing is to be learned."""
        if not self._learns:
            return []
        samples = self._few_shots(task).with_views(slice(1, 1 + self._passes(task)))
        return [Stage("few_shot", samples, self.config.schedule_for(task.name))]

    def begin_stage(self, stage: Stage, task: DatasetTask) -> None:
        """Drop what an earlier state has left."""
        super().begin_stage(stage, task)
        self._forget_derived()

    def losses(self, batch: FeatureBatch) -> dict[str, Tensor]:
        """Return the cross-entropy of the static memory and, where the text classifier moves, of the text."""
        features = normalize(batch.features[:, 0], dim=1)
        losses = {"static": F.cross_entropy(self._static_logits(features, self._slots_to_learn()), batch.labels)}
        bias = self.projections.text_bias
        if bias is not None:
            logits = text_logits(features, self.text_features, bias, self.logit_scale)
            losses["text"] = F.cross_entropy(logits, batch.labels)
        return losses

    def _slots_to_learn(self) -> Slots:
        """Return the static slots under the projections of this step; biases leave the Gram matrix alone."""
        slots, projection = static_slots(self.text_features, self.shots), self.projections.current()
        if self.config.projection == "bias" and self._gram is None:
            self._gram = slot_gram(slots, projection).detach()
        return make_slots(slots, projection, self._gram)

    def _static_logits(self, features: Tensor, slots: Slots) -> Tensor:
        channels = self.channel_mask if self.config.channels else None
        current = self.projections.current()
        return readout(features, slots, None, current, self.config.sharpness, self.logit_scale, channels)

    # ------------------------------------------------------------------ the stream

    def end_task(self, task: DatasetTask) -> None:
        """Choose the weights on a validation stream with a dynamic memory of its own, where that is asked for."""
        if self.config.fusion == "val":
            self.fusion_weights.copy_(self._best_weights(self._validation(task), task))

    def _validation(self, task: DatasetTask) -> ImageFeatures:
        return task.encoded.validation(min(self.config.shots, VALIDATION_SHOTS), self.config.views)

    def _best_weights(self, images: ImageFeatures, task: DatasetTask) -> Tensor:
        self.begin_evaluation(task)
        grid = FusionGrid(static=True).to(self.device)
        order = permutation(len(images), self.ingredients.seed, task.index, "validation-stream")
        for rows in torch.split(order, 256):
            features = images.features[rows].to(self.device, torch.float32)
            grid.update(self.scores(features), images.labels[rows].to(self.device))
        return grid.best_weights()

    def begin_evaluation(self, task: DatasetTask) -> None:
        """Begin a stream with an empty dynamic memory."""
        self._forget_derived()
        self.memory.restart(fixed_slots(self.text_features, self.shots), self.projections.current())

    def oracles(self, task: DatasetTask) -> dict[str, Metric]:
        """Return the published choice of weights by test labels."""
        return {"fused": FusionGrid(static=bool(self.config.shots))}

    @torch.no_grad()
    def scores(self, images: Tensor) -> dict[str, Tensor]:
        """Return probabilities ``(B, C)`` of every readout for the next images of the stream.

        Args:
            images: features under views as the encoder gives them ``(B, V, D)``, view 0 plain. Each image is written
                into the dynamic memory before that is read for it.
        """
        views = normalize(images, dim=2)
        by_view = self.view_predictions(views)
        plain = views[:, 0]
        answers = {"text": by_view[:, 0], "dynamic": self._dynamic(plain, confident_mean(by_view, self.confident))}
        if self.config.shots:
            if self._static is None:
                self._static = self._slots_to_learn()
            answers["static"] = self._static_logits(plain, self._static).softmax(dim=1)
        answers["fused"] = fuse(answers, self.fusion_weights)
        return answers

    def view_predictions(self, views: Tensor) -> Tensor:
        """Return what the text classifier says of unit views ``(B, V, D)``: probabilities ``(B, V, C)``."""
        logits = text_logits(views, self.text_features, self.projections.text_bias, self.logit_scale)
        return logits.softmax(dim=2)

    def _dynamic(self, plain: Tensor, pseudo: Tensor) -> Tensor:
        """Write images under the class of their confident views ``pseudo (B, C)``; return what the memory says."""
        logits = self.memory.write_and_read(
            plain,
            pseudo.argmax(dim=1),
            view_entropy(pseudo, MEMORY_EPSILON),
            self.projections.current(),
            self.config.sharpness,
            self.logit_scale,
        )
        return logits.softmax(dim=1)

    def stage_parameters(self) -> list[nn.Parameter]:
        """Return the projections that act."""
        return [parameter for parameter in self.projections.parameters() if parameter.requires_grad]

    def memory_rows(self) -> list[Tensor]:
        """Return the dynamic memory's slots and the shots."""
        return [self.memory.written_features, self.shots]
