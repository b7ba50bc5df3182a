"""The ``shapes`` world with a memory of images and texts: the embedded benchmark of replaceable memories."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from mmcl.benchmarks.memory_images import MemoryImages, MemoryImagesConfig
from mmcl.benchmarks.memory_sets import ClassSet, ClassSets
from mmcl.benchmarks.shapes_drawing import draw_images
from mmcl.benchmarks.shapes_sentences import class_sentences
from mmcl.benchmarks.shapes_world import CLASS_NAMES, class_labels, collection_habits, draw_scenes
from mmcl.config.schema import setting
from mmcl.errors import UserError
from mmcl.protocol import Samples, Sentences
from mmcl.randomness import key, permutation

SENTENCES = ("full", "cupl")


@dataclass
class ShapesMemoryConfig(MemoryImagesConfig):
    """Keys of the ``shapes`` world with a memory."""

    validation_classes: int = setting("Classes held out to choose the epoch, drawn from the 44 that the encoder knows.")
    training_queries: int = setting("Labelled images of each class of training; at least 1.")
    queries: int = setting("Images of each class that are asked; at least 1.")
    images: int = setting("Images of each class that the memory may have; at least 1.")
    shots: int = setting("Labelled images of each class for few_shot; 0 gives none.")
    world_seed: int = setting("Keys the images and the habits of the classes; the mini CLIP was trained in world 0.")

    def __post_init__(self) -> None:
        """Refuse numbers that no set can have."""
        super().__post_init__()
        for name, least in (("training_queries", 1), ("queries", 1), ("images", 1), ("shots", 0)):
            if getattr(self, name) < least:
                raise UserError(f"benchmark.{name}={getattr(self, name)}: expected at least {least}.")
        seen = len(class_labels("seen"))
        if not 1 <= self.validation_classes < seen:
            raise UserError(
                f"benchmark.validation_classes={self.validation_classes}: expected 1 to {seen - 1}, out of the {seen} "
                "classes that the encoder knows."
            )


class ShapesMemory(MemoryImages):
    """Learn on classes that the mini CLIP knows, answer for the 20 that it never saw."""

    Config: ClassVar[type[ShapesMemoryConfig]] = ShapesMemoryConfig
    config: ShapesMemoryConfig

    def read_sets(self) -> ClassSets:
        """Draw the classes of training and validation, and the images of all."""
        known = class_labels("seen")
        drawn = permutation(len(known), self.config.split_seed, "shapes memory classes").tolist()
        held_out = {known[place] for place in drawn[: self.config.validation_classes]}
        return ClassSets(
            seen=self._class_set([label for label in known if label not in held_out], self.config.training_queries),
            validation=self._class_set(sorted(held_out), 0),
            unseen=self._class_set(list(class_labels("unseen")), 0),
        )

    def _class_set(self, labels: list[int], training: int) -> ClassSet:
        config = self.config
        spoken = [class_sentences(labels, kind) for kind in SENTENCES]
        classes = torch.cat([part.classes for part in spoken])
        order = classes.argsort(stable=True)
        texts = [text for part in spoken for text in part.texts]
        return ClassSet(
            class_names=tuple(CLASS_NAMES[label] for label in labels),
            training=self._samples("memory training", labels, training),
            queries=self._samples("memory queries", labels, config.queries),
            images=self._samples("memory images", labels, config.images),
            sentences=Sentences(tuple(texts[row] for row in order.tolist()), classes[order]),
            shots=self._samples("memory shots", labels, config.shots),
            prompts=lambda kind: class_sentences(labels, kind),
        )

    def _samples(self, split: str, labels: list[int], per_class: int) -> Samples:
        """Draw images of every class, grouped by class; an image does not depend on how many there are."""
        places = torch.arange(len(labels)).repeat_interleave(per_class)
        indices = torch.arange(per_class).repeat(len(labels))
        world = self.config.world_seed
        scenes = draw_scenes(
            key("shapes", world, split), torch.tensor(labels)[places], indices, collection_habits(world)
        )
        return Samples(draw_images(scenes, "plain"), places, torch.arange(len(places)))
