"""A data set as methods on features see it, drawn instead of encoded, with a tiny random text encoder."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import open_clip
import torch
from torch import Tensor
from torch.nn.functional import normalize

from mmcl.backbones.dual_encoder import DualEncoder
from mmcl.config.schema import StepSchedule
from mmcl.errors import UserError
from mmcl.methods.base import Method
from mmcl.methods.on_features import FeatureIngredients
from mmcl.protocol import DatasetTask, FeatureBatch, ImageFeatures, Sentences, TextFeatures

DIMENSION = 16
NAMES = ("red_circle", "blue square", "green star", "white ring")
VOCABULARY = 200


class WordTokenizer:
    """One token a word (a hash of it), between a start and an end; the end has the highest number."""

    def __call__(self, texts: list[str], context_length: int) -> Tensor:
        """Return int64 ``(P, context_length)``, padded with 0."""
        tokens = torch.zeros(len(texts), context_length, dtype=torch.int64)
        for row, text in enumerate(texts):
            words = text.lower().replace(".", " .").split()
            inner = [1 + zlib.crc32(word.encode()) % (VOCABULARY - 4) for word in words]
            numbers = [VOCABULARY - 2, *inner, VOCABULARY - 1][:context_length]
            numbers[-1] = VOCABULARY - 1
            tokens[row, : len(numbers)] = torch.tensor(numbers)
        return tokens


class SplittingTokenizer(WordTokenizer):
    """Two tokens a word, as of a vocabulary of letters."""

    def __call__(self, texts: list[str], context_length: int) -> Tensor:
        """Return int64 ``(P, context_length)``, padded with 0."""
        return super().__call__([text.replace(" ", " x ") + " x" for text in texts], context_length)


def tiny_encoder(seed: int = 0, tokenizer: WordTokenizer | None = None) -> DualEncoder:
    """Build a random encoder of two text layers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = open_clip.CLIP(
            embed_dim=DIMENSION,
            vision_cfg={"image_size": 8, "patch_size": 4, "width": 16, "layers": 1, "head_width": 8},
            text_cfg={"context_length": 24, "vocab_size": VOCABULARY, "width": 16, "heads": 2, "layers": 2},
        )
        with torch.no_grad():
            # open_clip's small start values would make all prompts alike
            model.token_embedding.weight.normal_(0, 0.5)
    return DualEncoder(model, tokenizer or WordTokenizer())


class DrawnDataset:
    """Features around one centre per class; texts lie off the centres, so that images can teach something.

    Args:
        names: names of the classes.
        noise: spread of the images around their centres.
        encoder: encodes the sentences; None draws text features instead.
        labelled: whether there are validation images.
    """

    def __init__(
        self,
        names: Sequence[str] = NAMES,
        noise: float = 0.4,
        encoder: DualEncoder | None = None,
        labelled: bool = True,
    ) -> None:
        self.names, self.noise, self.encoder, self.labelled = names, noise, encoder, labelled
        self.centres = normalize(torch.randn(len(names), DIMENSION, generator=_generator("centres")), dim=1)

    def sentences(self, prompts: str) -> Sentences:
        """Return one sentence a class."""
        return Sentences(tuple(f"a photo of a {name}." for name in self.names), torch.arange(len(self.names)))

    def texts(self, prompts: str) -> TextFeatures:
        """Return features that are off the centres."""
        off = torch.randn(self.centres.shape, generator=_generator("texts", prompts))
        return TextFeatures(5 * (self.centres + 0.35 * off), torch.arange(len(self.names)))

    def train(self, shots: int, passes: int, interpolation: str = "bilinear") -> ImageFeatures:
        """Return the first shots of each class under passes."""
        if shots > 16:
            raise UserError("a class has 16 images")
        drawn = self._draw("train", 16, 1 + passes)
        rows = torch.cat([torch.arange(16 * label, 16 * label + shots) for label in range(len(self.names))])
        return drawn.select(rows)

    def validation(self, per_class: int | None, views: int) -> ImageFeatures:
        """Return eight images a class."""
        if not self.labelled:
            raise UserError("drawn has no validation images")
        return self._draw("validation", 8, views)

    def test(self, views: int) -> ImageFeatures:
        """Return twelve images a class."""
        return self._draw("test", 12, views)

    def _draw(self, split: str, per_class: int, views: int) -> ImageFeatures:
        labels = torch.arange(len(self.names)).repeat_interleave(per_class)
        image = torch.randn(len(labels), 1, DIMENSION, generator=_generator(split))
        view = torch.randn(len(labels), views, DIMENSION, generator=_generator(split, "views"))
        features = self.centres[labels, None] + self.noise * image + 0.1 * view
        return ImageFeatures(7 * features, labels, torch.arange(len(labels)))


def drawn_task(dataset: DrawnDataset, name: str = "drawn") -> DatasetTask:
    """Return a data set as a task."""
    count = len(dataset.names)
    return DatasetTask(index=0, known=0, seen=count, name=name, class_names=tuple(dataset.names), encoded=dataset)


def ingredients(encoder: DualEncoder | None = None, logit_scale: float = 100.0, seed: int = 1) -> FeatureIngredients:
    """Return what a run gives a method."""
    return FeatureIngredients(seed=seed, task_count=1, dimension=DIMENSION, logit_scale=logit_scale, encoder=encoder)


def step_schedule(**changed: Any) -> StepSchedule:
    """Return a short schedule of AdamW."""
    keys: dict[str, Any] = {
        "epochs": 4,
        "batch_size": 16,
        "lr": 0.001,
        "lr_final": 0.0,
        "optimizer": "adamw",
        "momentum": 0.9,
        "weight_decay": 0.01,
        "eps": 1e-4,
        "interval": "step",
        "warmup_epochs": 0,
        "warmup_lr": 0.0,
    }
    return StepSchedule(**{**keys, **changed})


def go_through(method: Method, task: DatasetTask) -> list[float]:
    """Take a method through a task as the engine does, without a trainer; return the loss of every step."""
    method.grow(task)
    method.begin_task(task)
    losses = []
    for stage in method.stages(task):
        method.begin_stage(stage, task)
        optimizer, rate = method.optimizer_of(stage)
        for epoch in range(stage.schedule.epochs):
            method.on_train_epoch_start()
            for batch in _batches(stage.samples, stage.schedule.batch_size, epoch):
                loss = torch.stack(list(method.losses(batch).values())).sum()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                rate.step()
                losses.append(float(loss.detach()))
        method.end_stage(stage, task)
    with torch.no_grad():
        method.end_task(task)
    return losses


@torch.no_grad()
def accuracies(method: Any, task: DatasetTask) -> dict[str, float]:
    """Return the accuracy of every readout on the test images."""
    method.begin_evaluation(task)
    test = task.encoded.test(method.test_views)
    scores = method.scores(test.features)
    return {name: float((values.argmax(1) == test.labels).double().mean()) for name, values in scores.items()}


def _batches(features: Any, size: int, epoch: int) -> list[FeatureBatch]:
    order = torch.randperm(len(features), generator=_generator("order", str(epoch)))
    view = epoch % features.features.shape[1]
    return [
        FeatureBatch(features.features[rows, view : view + 1], features.labels[rows], features.sources[rows])
        for rows in torch.split(order, size)
    ]


def _generator(*parts: str) -> torch.Generator:
    return torch.Generator().manual_seed(zlib.crc32(" ".join(parts).encode()))
