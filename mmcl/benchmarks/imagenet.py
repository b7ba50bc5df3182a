"""ImageNet with 1000 and with 100 classes (Deng et al. 2009), from class folders or list files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mmcl.benchmarks.class_order import class_order
from mmcl.benchmarks.image_folder import FilesBenchmark, FilesConfig
from mmcl.config.schema import setting
from mmcl.errors import UserError, nearest

ALL_CLASSES = 1000
SUBSET_CLASSES = 100
SUBSET_SEED = 1993


@dataclass
class ImageNet100Config(FilesConfig):
    """Keys of ImageNet with 100 classes."""

    subset: str = setting("Which 100 of 1000 class folders: seed1993 or first100.")


class ImageNet1000(FilesBenchmark):
    """ImageNet with its 1000 classes; brightness jitter in training."""

    def chosen_classes(self, names: list[str]) -> list[str]:
        """Return all folders; raises UserError unless there are 1000."""
        if len(names) != ALL_CLASSES:
            raise UserError(
                f"{self.folder / 'train'} has {len(names)} class folders, expected {ALL_CLASSES}. "
                f"For another tree type benchmark=imagefolder benchmark.folder={self.config.folder}."
            )
        return names


class ImageNet100(FilesBenchmark):
    """ImageNet with 100 classes: a tree that has just these, or a subset of the 1000."""

    Config: ClassVar[type[ImageNet100Config]] = ImageNet100Config
    config: ImageNet100Config

    def __init__(self, config: ImageNet100Config) -> None:
        super().__init__(config)
        if config.subset not in SUBSETS:
            hint = nearest(config.subset, SUBSETS)
            raise UserError(f"benchmark.subset={config.subset}: expected one of {', '.join(SUBSETS)}.{hint}")

    def chosen_classes(self, names: list[str]) -> list[str]:
        """Return all of 100 folders, or the subset of 1000; raises UserError for another number."""
        if len(names) == SUBSET_CLASSES:
            return names
        if len(names) != ALL_CLASSES:
            raise UserError(
                f"{self.folder / 'train'} has {len(names)} class folders, not 100 or 1000. "
                f"For another tree type benchmark=imagefolder benchmark.folder={self.config.folder}."
            )
        return [names[index] for index in sorted(SUBSETS[self.config.subset])]


def seed1993_subset() -> list[int]:
    """Return the positions of the usual 100 classes among the sorted 1000, in the order they were drawn.

    ``np.random.seed(1993); np.random.permutation(1000)[:100]``, used since UCIR (Hou et al. 2019).
    """
    return class_order(ALL_CLASSES, SUBSET_SEED)[:SUBSET_CLASSES]


def first100_subset() -> list[int]:
    """Return the first 100 of the sorted 1000, as in the published list of PODNet (Douillard et al. 2020)."""
    return list(range(SUBSET_CLASSES))


SUBSETS = {"seed1993": seed1993_subset(), "first100": first100_subset()}
