"""The sets of images in files that pre-trained networks are compared on: ImageNet-R, CUB-200-2011 and Cars-196 at 224.

Layouts, transforms and splits are those of SLCA (Zhang et al., ICCV 2023), which Memory Head takes over.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from mmcl.benchmarks.base import DataItem
from mmcl.benchmarks.class_incremental import RawData
from mmcl.benchmarks.clip_lists import CubLists, Place
from mmcl.benchmarks.files import ImageTransforms
from mmcl.benchmarks.image_folder import FilesBenchmark, FilesConfig
from mmcl.benchmarks.listing import listed_class_names
from mmcl.benchmarks.transforms import BICUBIC, check_sizes, crop_transforms, shift_transforms
from mmcl.config.schema import setting
from mmcl.errors import UserError
from mmcl.images import FileImages
from mmcl.protocol import Samples


@dataclass
class TransferConfig(FilesConfig):
    """Keys of the sets for pre-trained networks."""

    verify: bool = setting("Refuse another number of classes or images than the published; false takes any.")


@dataclass
class FineGrainedConfig(TransferConfig):
    """Keys of the sets whose classes differ in detail."""

    train_resize: int = setting("Side of the square that a training image is resized to; >= image_size.")


class TransferSet(FilesBenchmark):
    """A published set in class folders.

    Attributes:
        classes: number of its classes.
        images: number of its images, of both splits.
        origin: where it comes from and how it is split, in a sentence.
    """

    Config: ClassVar[type[TransferConfig]] = TransferConfig
    config: TransferConfig
    classes: ClassVar[int]
    images: ClassVar[int]
    origin: ClassVar[str]

    def read(self) -> RawData:
        """List the images of both splits.

        Raises:
            UserError: files are missing, or it is not the published set.
        """
        listed = self.list_images()
        found = len(listed.class_names), len(listed.train) + len(listed.test)
        if self.config.verify and found != (self.classes, self.images):
            raise UserError(
                f"{self.folder} has {found[0]} classes and {found[1]} images, the published set {self.classes} and "
                f"{self.images}. {self.origin} To use it as it is, type benchmark.verify=false and give it a name of "
                "its own: benchmark.name=NAME"
            )
        return listed

    def list_images(self) -> RawData:
        """List the images of the class folders or list files."""
        return super().read()

    def advice(self) -> str:
        """Say what is expected where, and where it comes from."""
        return f"{super().advice()} {self.origin}"

    def image_transforms(self) -> ImageTransforms | None:
        """Return the published transforms, up to uint8 pixels."""
        config = self.config
        return crop_transforms(config.image_size, config.resize, config.brightness, BICUBIC)


class ImageNetR(TransferSet):
    """ImageNet-R (Hendrycks et al., ICCV 2021): 200 classes of ImageNet in paintings, toys and other renditions."""

    classes = 200
    images = 30_000
    origin = (
        "ImageNet-R is at github.com/hendrycks/imagenet-r, without a split: SLCA's script takes 80 of 100 images at "
        "random to train, the others to test."
    )


class FineGrained(TransferSet):
    """Classes that differ in detail: training images are resized whole and shifted, not cropped."""

    Config: ClassVar[type[FineGrainedConfig]] = FineGrainedConfig
    config: FineGrainedConfig

    def __init__(self, config: FineGrainedConfig) -> None:
        super().__init__(config)
        check_sizes(config.image_size, config.train_resize, "train_resize")

    def image_transforms(self) -> ImageTransforms | None:
        """Return the published transforms, up to uint8 pixels."""
        config = self.config
        return shift_transforms(config.image_size, config.resize, config.train_resize, config.brightness, BICUBIC)


class Cub200(FineGrained):
    """CUB-200-2011 (Wah et al. 2011): 200 species of birds, in class folders or as it is published, with its lists."""

    classes = 200
    images = 11_788
    origin = (
        "CUB-200-2011 is at data.caltech.edu/records/65de6-vp158; unpacked as CUB_200_2011, with images.txt and "
        "train_test_split.txt, it is read as it is."
    )
    official: ClassVar[tuple[str, ...]] = ("CUB_200_2011", "CUB_200_2011/CUB_200_2011")

    @property
    def folder(self) -> Path:
        """Folder of the data set: the official one where the class folders are not there."""
        folders = super().folder
        official = [self.root / name for name in self.official if (self.root / name / "images.txt").is_file()]
        return official[0] if official and not folders.is_dir() else folders

    def describe_data(self) -> list[DataItem]:
        """Name the folders of both splits, or the official lists."""
        return CubLists().files(self._place()) if self._is_official() else super().describe_data()

    def list_images(self) -> RawData:
        """List the images, those of the official lists in the order of class folders."""
        if not self._is_official():
            return super().list_images()
        self.prepare_data()
        listed = CubLists().read(self._place())
        train, test = (_by_path(samples) for samples in (listed.train, listed.test))
        return RawData(train, test, listed_class_names(train))

    def _is_official(self) -> bool:
        return (self.folder / "images.txt").is_file()

    def _place(self) -> Place:
        return Place(self.root, self.folder)


class Cars196(FineGrained):
    """Stanford Cars (Krause et al. 2013): 196 makes and models of cars."""

    classes = 196
    images = 16_185
    origin = "Stanford Cars has 8144 training and 8041 test images; its official split makes train and val."


def _by_path(samples: Samples) -> Samples:
    """Sort the images of each class by their paths, as a tree of folders gives them."""
    files, labels = samples.images, samples.labels.tolist()
    assert isinstance(files, FileImages)
    rows = torch.tensor(sorted(range(len(files)), key=lambda row: (labels[row], files.paths[row])))
    return Samples(files[rows], samples.labels[rows], torch.arange(len(rows)))
