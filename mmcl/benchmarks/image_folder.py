"""Any data set that lies in class folders or list files, read as ImageNet is, or held in memory if small."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from mmcl.benchmarks.augmentation import Augmentation
from mmcl.benchmarks.base import DataItem
from mmcl.benchmarks.class_incremental import ClassIncrementalBenchmark, ClassIncrementalBenchmarkConfig, RawData
from mmcl.benchmarks.files import ImageTransforms, open_image
from mmcl.benchmarks.listing import (
    class_folders,
    expected_layout,
    list_folders,
    listed_class_names,
    read_list,
)
from mmcl.benchmarks.transforms import BILINEAR, check_sizes, crop_transforms
from mmcl.config.schema import setting
from mmcl.errors import UserError
from mmcl.images import FileImages
from mmcl.protocol import Samples

TEST_SPLITS = ("val", "test")
LARGEST_IN_MEMORY = 64


@dataclass
class FilesConfig(ClassIncrementalBenchmarkConfig):
    """Keys of the benchmarks whose images lie in files."""

    folder: str = setting("Data set's folder below data: train/<class>/* and val/<class>/*, or lists.")
    image_size: int = setting("Side of the square that the network sees, in pixels.")
    resize: int = setting("Shorter side of a test image before its centre is cut; >= image_size.")
    brightness: float = setting("Training brightness factors lie in 1 -+ brightness; 0 leaves it.")


@dataclass
class ImageFolderConfig(FilesConfig):
    """Keys of the benchmark made from any tree of class folders."""

    in_memory: bool = setting("Hold images in memory, augment as CIFAR; one size, at most 64 pixels.")


class FilesBenchmark(ClassIncrementalBenchmark):
    """Images in files: random resized crop and flip to train, resize and centre crop to test.

    Classes are the sorted names of the folders in ``train``, or the labels of ``train.txt``. Pixels are
    normalised by ImageNet's mean and standard deviation.
    """

    Config: ClassVar[type[FilesConfig]] = FilesConfig
    config: FilesConfig
    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)
    plain_batch_size = 100

    def __init__(self, config: FilesConfig) -> None:
        super().__init__(config)
        check_sizes(config.image_size, config.resize)
        self.image_bytes = 3 * config.image_size**2

    @property
    def folder(self) -> Path:
        """Folder of the data set."""
        return self.root / Path(self.config.folder).expanduser()

    def describe_data(self) -> list[DataItem]:
        """Say where the training and the test images are expected."""
        if (self.folder / "train.txt").is_file():
            lists = [(self.folder / "train.txt", "training list"), (self._test_list(), "test list")]
            return [DataItem(path, meaning, path.is_file()) for path, meaning in lists]
        test = self.folder / self._test_split()
        trees = [(self.folder / "train", "training images"), (test, "test images")]
        return [DataItem(path, meaning, path.is_dir()) for path, meaning in trees]

    def prepare_data(self) -> None:
        """Check that the folders or list files are there; raises UserError if not."""
        for item in self.describe_data():
            if not item.present:
                raise UserError(f"{item.path} ({item.meaning}) is missing. {self.advice()}")

    def read(self) -> RawData:
        """List the images of both splits."""
        self.prepare_data()
        if (self.folder / "train.txt").is_file():
            train = read_list(self.folder, "train.txt")
            test = read_list(self.folder, self._test_list().name)
            return RawData(train, test, listed_class_names(train))
        names = self.chosen_classes(class_folders(self.folder / "train"))
        train = list_folders(self.folder, "train", names)
        return RawData(train, list_folders(self.folder, self._test_split(), names), names)

    def chosen_classes(self, names: list[str]) -> list[str]:
        """Return which of the class folders form the benchmark, sorted: all, unless a family says else."""
        return names

    def advice(self) -> str:
        """Say what is expected where, and what to type if it lies elsewhere."""
        return expected_layout(self.folder)

    def image_transforms(self) -> ImageTransforms | None:
        """Return the papers' transforms for ImageNet, up to uint8 pixels."""
        config = self.config
        return crop_transforms(config.image_size, config.resize, config.brightness, BILINEAR)

    def _test_split(self) -> str:
        return next((name for name in TEST_SPLITS if (self.folder / name).is_dir()), TEST_SPLITS[0])

    def _test_list(self) -> Path:
        lists = [self.folder / f"{name}.txt" for name in TEST_SPLITS]
        return next((path for path in lists if path.is_file()), lists[0])


class ImageFolder(FilesBenchmark):
    """Any tree of class folders, or list files."""

    Config: ClassVar[type[ImageFolderConfig]] = ImageFolderConfig
    config: ImageFolderConfig

    def read(self) -> RawData:
        """List the images, and read them if they are to be held in memory."""
        listed = super().read()
        if not self.config.in_memory:
            return listed
        train, test = (held_in_memory(samples) for samples in (listed.train, listed.test))
        height, width = train.images.shape[2:]  # type: ignore[union-attr]
        if test.images.shape[2:] != (height, width):  # type: ignore[union-attr]
            raise UserError(f"{self.folder}: image sizes differ; type benchmark.in_memory=false.")
        self.image_bytes = 3 * height * width
        self.augmentation = Augmentation(brightness=self.config.brightness)
        return RawData(train, test, listed.class_names)

    def image_transforms(self) -> ImageTransforms | None:
        """Return the transforms of images in files; images in memory are altered on the device."""
        return None if self.config.in_memory else super().image_transforms()


def held_in_memory(samples: Samples) -> Samples:
    """Read images of files into one uint8 tensor ``(N, 3, H, W)``.

    Raises:
        UserError: images of several sizes, or larger than 64 pixels, or unreadable.
    """
    files = samples.images
    assert isinstance(files, FileImages)
    pixels: list[np.ndarray] = []
    for row in range(len(files)):
        image = open_image(files, row)
        if max(image.size) > LARGEST_IN_MEMORY or (pixels and image.size != pixels[0].shape[1::-1]):
            raise UserError(
                f"{files.root / files.paths[row]} is {image.size[0]}x{image.size[1]}: in memory, all images "
                f"have one size of at most {LARGEST_IN_MEMORY} pixels a side; type benchmark.in_memory=false."
            )
        pixels.append(np.asarray(image))
    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()
    return Samples(images, samples.labels, samples.sources)
