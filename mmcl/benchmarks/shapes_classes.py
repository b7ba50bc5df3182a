"""The world of coloured shapes class by class: embedded images for networks that were trained before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from mmcl.benchmarks.augmentation import Augmentation
from mmcl.benchmarks.class_incremental import ClassIncrementalBenchmark, ClassIncrementalBenchmarkConfig, RawData
from mmcl.benchmarks.shapes_drawing import draw_images
from mmcl.benchmarks.shapes_world import CLASS_NAMES, collection_habits, draw_scenes
from mmcl.config.schema import setting
from mmcl.errors import UserError
from mmcl.protocol import Samples
from mmcl.randomness import key


@dataclass
class ShapesClassesConfig(ClassIncrementalBenchmarkConfig):
    """Keys of the shapes class by class."""

    train_per_class: int = setting("Training images of each class.")
    test_per_class: int = setting("Test images of each class.")
    world_seed: int = setting("Keys the images and the habits of the classes; the mini CLIP was trained in world 0.")

    def __post_init__(self) -> None:
        """Refuse empty splits."""
        for name in ("train_per_class", "test_per_class"):
            if getattr(self, name) < 1:
                raise UserError(f"benchmark.{name}={getattr(self, name)}: expected at least 1")


class ShapesClasses(ClassIncrementalBenchmark):
    """Eight colours times eight shapes, 64 classes of 32x32 images, each class with habits of its own.

    The images are those of the ``shapes`` benchmark: the web that the mini CLIP was trained on has no habits, and 20 of
    the classes were never in it. No flip in training, since classes differ in their tilt.
    """

    Config: ClassVar[type[ShapesClassesConfig]] = ShapesClassesConfig
    config: ShapesClassesConfig
    augmentation = Augmentation(pad=2, flip=False, brightness=0.1)

    def read(self) -> RawData:
        """Draw the images."""
        train = self._drawn("train", self.config.train_per_class)
        return RawData(train, self._drawn("test", self.config.test_per_class), list(CLASS_NAMES))

    def _drawn(self, split: str, per_class: int) -> Samples:
        """Draw images of every class; an image does not depend on how many there are."""
        labels = torch.arange(len(CLASS_NAMES)).repeat_interleave(per_class)
        indices = torch.arange(per_class).repeat(len(CLASS_NAMES))
        world = self.config.world_seed
        scenes = draw_scenes(key("shapes", world, split), labels, indices, collection_habits(world))
        return Samples(draw_images(scenes, "plain"), labels, torch.arange(len(labels)))
