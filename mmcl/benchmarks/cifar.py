"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009) from the pickled files that torchvision downloads."""

from __future__ import annotations

import hashlib
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.datasets import CIFAR10, CIFAR100

from mmcl.benchmarks.array_pickles import ArrayUnpickler
from mmcl.benchmarks.augmentation import Augmentation
from mmcl.benchmarks.base import DataItem
from mmcl.benchmarks.class_incremental import ClassIncrementalBenchmark, ClassIncrementalBenchmarkConfig, RawData
from mmcl.benchmarks.download import fetch_folder
from mmcl.benchmarks.files import ImageTransforms
from mmcl.benchmarks.transforms import BICUBIC, check_sizes, crop_transforms
from mmcl.config.schema import setting
from mmcl.errors import UserError
from mmcl.protocol import Samples

IMAGE_BYTES = 3 * 32 * 32
UNREADABLE = (OSError, EOFError, pickle.UnpicklingError, ValueError, LookupError, TypeError, AttributeError)


@dataclass
class CifarConfig(ClassIncrementalBenchmarkConfig):
    """Keys of the CIFAR benchmarks."""

    download: bool = setting("Fetch absent data through torchvision; false never uses the network.")
    verify: bool = setting("Refuse data that is not the published set; false takes any of the layout.")


class Cifar(ClassIncrementalBenchmark):
    """What both sets share: the layout of the files, and how they are read and verified."""

    Config: ClassVar[type[CifarConfig]] = CifarConfig
    config: CifarConfig
    source: ClassVar[type[CIFAR10]]
    fine_labels: ClassVar[str]
    names_key: ClassVar[str]
    pixel_sha256: ClassVar[dict[str, str]] = {}

    @property
    def folder(self) -> Path:
        """Folder of the pickled files."""
        return self.root / str(self.source.base_folder)

    def describe_data(self) -> list[DataItem]:
        """List the pickled files."""
        images = [(name, "pixels and labels") for name, _ in self.source.train_list + self.source.test_list]
        files = [*images, (self.source.meta["filename"], "names of the classes")]
        return [DataItem(self.folder / name, what, (self.folder / name).is_file()) for name, what in files]

    def prepare_data(self) -> None:
        """Download the set if it is absent and that is allowed.

        Raises:
            UserError: files are missing and may not or cannot be fetched.
        """
        missing = [item.path for item in self.describe_data() if not item.present]
        if not missing:
            return
        if not self.config.download:
            raise UserError(f"{self.name}: {missing[0]} is missing. {self._advice()}")
        fetch_folder(self.folder, lambda root: self.source(root, download=True), self._advice())
        if not missing[0].is_file():
            raise UserError(f"{self.name}: {self.folder} has no {missing[0].name}. {self._advice()}")

    def read(self) -> RawData:
        """Read and verify both splits."""
        self.prepare_data()
        train = self._read_split("train", self.source.train_list)
        test = self._read_split("test", self.source.test_list)
        names_file = self.folder / self.source.meta["filename"]
        names = _field(_unpickle(names_file), self.names_key, names_file)
        for split, samples in (("train", train), ("test", test)):
            if len(samples) and int(samples.labels.max()) >= len(names):
                found = f"{split} labels up to {int(samples.labels.max())}, but {len(names)} class names"
                raise UserError(f"{self.folder}: {found}. {self._advice()}")
        return RawData(train, test, list(names))

    def _read_split(self, split: str, files: list[list[str]]) -> Samples:
        pixels, labels = [], []
        for name, md5 in files:
            path = self.folder / name
            if self.config.verify and not self.pixel_sha256:
                self._compare(path, hashlib.md5(path.read_bytes()).hexdigest(), md5)
            entry = _unpickle(path)
            pixels.append(_pixels(entry, path))
            labels += list(_field(entry, self.fine_labels, path))
        images = np.concatenate(pixels)
        if len(images) != len(labels):
            counts = f"{len(images)} {split} images, but {len(labels)} labels"
            raise UserError(f"{self.folder}: {counts}. {self._advice()}")
        if self.config.verify and self.pixel_sha256:
            digest = hashlib.sha256(images.transpose(0, 2, 3, 1).tobytes()).hexdigest()
            self._compare(self.folder / files[0][0], digest, self.pixel_sha256[split])
        return Samples(torch.from_numpy(images), torch.tensor(labels), torch.arange(len(images)))

    def _compare(self, path: Path, found: str, expected: str) -> None:
        if found != expected:
            raise UserError(
                f"{path} does not hold the published images: hash {found[:12]}, expected {expected[:12]}. "
                f"{self._advice()} To use it as it is, type benchmark.verify=false."
            )

    def _advice(self) -> str:
        names = ", ".join(item.path.name for item in self.describe_data())
        return (
            f"Expected: the folder {self.folder} with the files {names}, as in {self.source.url}. "
            f"To fetch it, move what is there away and type benchmark.download=true; "
            f"to use a copy from elsewhere, type paths.data=<the folder above {self.source.base_folder}>."
        )


class Cifar100(Cifar):
    """CIFAR-100: 100 classes, 500 training and 100 test images each, 32x32."""

    source = CIFAR100
    fine_labels = "fine_labels"
    names_key = "fine_label_names"
    mean = (0.5071, 0.4867, 0.4408)
    std = (0.2675, 0.2565, 0.2761)
    # Of the pixels (N, 32, 32, 3) in the published order: pickles rebuilt without the file names pass, too.
    pixel_sha256 = {
        "train": "4e457917601a66aed021f5fa37957b56c6319557c0a8ed5484de3c390af45430",
        "test": "4cb8e5d9309da489bf6b19cc10cd96c3ae6f8daf225380b605aaee4c0d6aee19",
    }


class LucirCifar100(Cifar100):
    """CIFAR-100 as the code of LUCIR, Mnemonics and AANets reads it: crops and flips alone, normalised its way."""

    mean = (0.5071, 0.4866, 0.4409)
    std = (0.2009, 0.1984, 0.2023)
    augmentation = Augmentation(brightness=0.0)


@dataclass
class Cifar100At224Config(CifarConfig):
    """Keys of CIFAR-100 enlarged."""

    image_size: int = setting("Side of the square that the network sees, in pixels.")
    resize: int = setting("Side of an enlarged test image before its centre is cut; >= image_size.")


class Cifar100At224(Cifar100):
    """CIFAR-100 enlarged to the size of networks trained on ImageNet, as SLCA and Memory Head have it.

    The 32x32 pixels stay in memory, and workers enlarge them by bicubic interpolation: random resized crop, flip and
    brightness to train, resize and centre crop to test. Normalised by CIFAR-100's own mean and deviation, as published,
    whatever the network was trained with.
    """

    Config: ClassVar[type[Cifar100At224Config]] = Cifar100At224Config
    config: Cifar100At224Config
    plain_batch_size = 100

    def __init__(self, config: Cifar100At224Config) -> None:
        super().__init__(config)
        check_sizes(config.image_size, config.resize)

    def image_transforms(self) -> ImageTransforms | None:
        """Return the published transforms, up to uint8 pixels."""
        config = self.config
        return crop_transforms(config.image_size, config.resize, self.augmentation.brightness, BICUBIC)


class Cifar10(Cifar):
    """CIFAR-10: 10 classes, 5,000 training and 1,000 test images each, 32x32. Verified by its MD5 sums."""

    source = CIFAR10
    fine_labels = "labels"
    names_key = "label_names"
    mean = (0.4914, 0.4822, 0.4465)
    std = (0.2023, 0.1994, 0.2010)


def _unpickle(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            entry = ArrayUnpickler(file, encoding="latin1").load()
    except UNREADABLE as error:
        raise UserError(
            f"cannot read {path}: {error}. The file is truncated or of another kind; replace it by a good "
            f"copy, or move {path.parent} away and type benchmark.download=true."
        ) from error
    if not isinstance(entry, dict):
        raise UserError(f"{path} holds a {type(entry).__name__}, no dictionary; replace it by a good copy.")
    return entry


def _field(entry: dict[str, Any], key: str, path: Path) -> Any:
    if key not in entry:
        keys = ", ".join(map(str, entry))
        raise UserError(f"{path} has no '{key}', only {keys}; replace it by a good copy.")
    return entry[key]


def _pixels(entry: dict[str, Any], path: Path) -> NDArray[np.uint8]:
    pixels = _field(entry, "data", path)
    is_array = isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8
    if not is_array or pixels.ndim != 2 or pixels.shape[1] != IMAGE_BYTES:
        raise UserError(f"{path}: 'data' is not uint8 of shape (N, 3072); replace it by a good copy.")
    images: NDArray[np.uint8] = pixels.reshape(-1, 3, 32, 32)
    return images
