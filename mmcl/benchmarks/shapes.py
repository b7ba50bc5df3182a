"""The ``shapes`` benchmark: embedded images with texts for methods beside CLIP, plain and under shifts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from mmcl.benchmarks.dataset_benchmark import DatasetBenchmark, DatasetBenchmarkConfig, ImageTextDataset
from mmcl.benchmarks.shapes_drawing import SHIFTS, draw_images
from mmcl.benchmarks.shapes_sentences import class_sentences
from mmcl.benchmarks.shapes_world import CLASS_NAMES, class_labels, collection_habits, draw_scenes
from mmcl.config.schema import setting
from mmcl.errors import UserError, nearest
from mmcl.protocol import Samples
from mmcl.randomness import key

PLAIN = "plain"
CLASS_CHOICES = ("all", "seen", "unseen")


@dataclass
class ShapesConfig(DatasetBenchmarkConfig):
    """Keys of the ``shapes`` benchmark."""

    sets: list[str] = setting("Tasks in order: plain, and the shifts sketch, noise, inverted, blur, rotated.")
    classes: str = setting("all 64, the 44 that the mini CLIP has seen, or the 20 unseen ones.")
    train_per_class: int = setting("Images of each class that few-shot methods may choose from; 0 gives none.")
    validation_per_class: int = setting("Images of each class that may select something; 0 gives none.")
    test_per_class: int = setting("Images of each class in the stream of each set.")
    world_seed: int = setting("Keys the images and the habits of the classes; the mini CLIP was trained in world 0.")

    def __post_init__(self) -> None:
        """Refuse sets that the world does not have, and numbers that no set can have."""
        super().__post_init__()
        for name in self.sets:
            if name not in SHIFTS:
                raise UserError(f"benchmark.sets: unknown {name!r}.{nearest(name, SHIFTS)} Known: {', '.join(SHIFTS)}.")
        if not self.sets or len(set(self.sets)) < len(self.sets):
            raise UserError(f"benchmark.sets={self.sets}: expected at least one, none twice.")
        if self.classes not in CLASS_CHOICES:
            known = ", ".join(CLASS_CHOICES)
            raise UserError(
                f"benchmark.classes={self.classes}: expected {known}.{nearest(self.classes, CLASS_CHOICES)}"
            )
        for name, least in (("train_per_class", 0), ("validation_per_class", 0), ("test_per_class", 1)):
            if getattr(self, name) < least:
                raise UserError(f"benchmark.{name}={getattr(self, name)}: expected at least {least}")


class Shapes(DatasetBenchmark):
    """A captioned world drawn by code, one task for the plain set and one for each shift.

    A shift shows the scenes of the plain test set in another way; its labels are for the test alone.
    """

    Config: ClassVar[type[ShapesConfig]] = ShapesConfig
    config: ShapesConfig

    def dataset_names(self) -> list[str]:
        """Return ``shapes`` for the plain set and ``shapes_sketch`` and the like for shifts."""
        return [_dataset_name(name) for name in self.config.sets]

    def read_dataset(self, name: str) -> ImageTextDataset:
        """Draw the images of a data set."""
        shift = next(shift for shift in self.config.sets if _dataset_name(shift) == name)
        labels = class_labels(self.config.classes)
        few_shot = shift == PLAIN
        return ImageTextDataset(
            name=name,
            class_names=tuple(CLASS_NAMES[label] for label in labels),
            train=self._samples("train", self.config.train_per_class if few_shot else 0, shift),
            validation=self._samples("validation", self.config.validation_per_class if few_shot else 0, shift),
            test=self._samples("test", self.config.test_per_class, shift),
            sentences=lambda prompts: class_sentences(labels, prompts),
            unlabelled="" if few_shot else "a shifted test set of shapes",
        )

    def _samples(self, split: str, per_class: int, shift: str) -> Samples:
        """Draw images of every class, grouped by class; an image does not depend on how many there are."""
        known = torch.tensor(class_labels(self.config.classes))
        labels = torch.arange(len(known)).repeat_interleave(per_class)
        indices = torch.arange(per_class).repeat(len(known))
        world = self.config.world_seed
        scenes = draw_scenes(key("shapes", world, split), known[labels], indices, collection_habits(world))
        return Samples(draw_images(scenes, shift), labels, torch.arange(len(labels)))


def _dataset_name(shift: str) -> str:
    return "shapes" if shift == PLAIN else f"shapes_{shift}"
