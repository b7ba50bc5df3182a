"""Non-stationary mini-ImageNet, the long online stream of the Memory Head paper (Tiezzi et al., CoLLAs 2024, Sec. 4.2).

Three domains (no noise, some, more) times 100 classes are 300 distributions, one after the other, 126,000 samples in
all, seen through a frozen network. The published files have not been at hand: order, split and noise are checked
against recorded ones, the reading and encoding on made-up files of the published layout.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from mmcl.benchmarks.array_pickles import read_pickle
from mmcl.benchmarks.base import DataItem
from mmcl.benchmarks.files import fetched
from mmcl.benchmarks.ns_imagenet_images import DOMAINS, NoisyImages, Pixels, Size, split_samples
from mmcl.benchmarks.online import OnlineBenchmark, OnlineBenchmarkConfig, OnlineStream
from mmcl.config.schema import setting
from mmcl.errors import MissingFileError, UserError
from mmcl.features.fingerprint import digest_file
from mmcl.features.pixel_job import FrozenNet, PixelJob
from mmcl.protocol import StreamSamples

FOLDER = "mini_imagenet"
FILES = tuple(f"mini-imagenet-cache-{part}.pkl" for part in ("train", "val", "test"))
SOURCE = "the Kaggle data set whitemoon/miniimagenet"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass
class NsImageNetConfig(OnlineBenchmarkConfig):
    """Keys of the non-stationary mini-ImageNet."""

    noise_seed: int = setting(
        "Keys the noise, which all runs share whatever their seed is; the published one is unknown."
    )
    classes_of_files: list[int] = setting("Classes in each of the three files.")
    per_class: int = setting("Images of each class.")
    image_size: int = setting("Side of the enlarged images that the network sees, in pixels.")
    workers: int = setting("Processes that add noise and enlarge; 0 does it in the encoding process.")
    encode_batch_size: int = setting("Images that the network sees at once.")

    def __post_init__(self) -> None:
        """Refuse sizes that make no stream."""
        super().__post_init__()
        if len(self.classes_of_files) != len(FILES) or min(self.classes_of_files) < 1:
            raise UserError(
                f"benchmark.classes_of_files={self.classes_of_files}: expected a number for each of 3 files"
            )
        smallest = {"per_class": 10, "image_size": 1, "encode_batch_size": 1, "workers": 0}
        for name, least in smallest.items():
            if getattr(self, name) < least:
                raise UserError(f"benchmark.{name}={getattr(self, name)}: expected at least {least}")


class NsImageNet(OnlineBenchmark):
    """Domain after domain, and in each class after class; the samples are features of a frozen network.

    The network is given by :meth:`connect`. Its features are made once and kept; noise is keyed by (seed, sample),
    since the published noise has no known seed.
    """

    Config: ClassVar[type[NsImageNetConfig]] = NsImageNetConfig
    config: NsImageNetConfig

    def __init__(self, config: NsImageNetConfig) -> None:
        super().__init__(config)
        self._net: FrozenNet | None = None

    @property
    def files(self) -> list[Path]:
        """The three files in the order of their classes."""
        return [self.root / FOLDER / name for name in FILES]

    @property
    def size(self) -> Size:
        """Number of classes, and of images in each."""
        return Size(sum(self.config.classes_of_files), self.config.per_class)

    def describe_data(self) -> list[DataItem]:
        """List the three files."""
        counts = self.config.classes_of_files
        meanings = [f"pixels of {count} classes" for count in counts]
        return [DataItem(*item, item[0].is_file()) for item in zip(self.files, meanings, strict=True)]

    def prepare_data(self) -> None:
        """Look whether the files are there.

        Raises:
            MissingFileError: one is not.
        """
        for file in self.files:
            if not file.is_file():
                raise MissingFileError(
                    f"{file} is missing. Put the three files of {SOURCE} there, or type paths.data=FOLDER, the folder "
                    f"above {FOLDER}"
                )

    def connect(self, net: FrozenNet) -> None:
        """Take the network that stands before the images."""
        self._net = net

    def setup(self, stage: str | None = None) -> None:
        """Bring the features of all samples, once the network is there; does nothing the second time."""
        if self._net is not None:
            super().setup(stage)

    def read(self) -> OnlineStream:
        """Encode all samples, or find their features, and cut them into the stream and its evaluation samples.

        Raises:
            UserError: a file is missing or damaged.
        """
        assert self._net is not None
        self.prepare_data()
        size, config = self.size, self.config
        origin = {
            "files": [digest_file(file) for file in self.files],
            "size": size,
            "domains": DOMAINS,
            "noise_seed": config.noise_seed,
            "image_size": config.image_size,
        }
        features = self._net.features(PixelJob(self.name, origin, size.samples, MEAN, STD, self._batches))
        parts = {name: _samples(features, numbers, size) for name, numbers in split_samples(size).items()}
        classes = [str(label) for label in range(size.classes)]
        names = [f"domain {domain}, class {label}" for domain in range(len(DOMAINS)) for label in classes]
        return OnlineStream(**parts, class_names=classes, distribution_names=names)

    def _batches(self) -> Iterator[Tensor]:
        config = self.config
        images = [
            read_images(file, classes * config.per_class)
            for file, classes in zip(self.files, config.classes_of_files, strict=True)
        ]
        noisy = NoisyImages(np.concatenate(images), config.noise_seed, config.image_size)
        numbers = torch.split(torch.arange(self.size.samples), config.encode_batch_size)
        return fetched(noisy, numbers, config.workers)


def read_images(file: Path, count: int) -> Pixels:
    """Read ``image_data`` of a pickle file, uint8 ``(count, H, W, 3)``, class after class.

    Raises:
        UserError: the file is truncated, of another kind, or of another number of images.
    """
    advice = f"Bring the file of {SOURCE} again"
    images: Any = read_pickle(file, advice).get("image_data")
    if not (isinstance(images, np.ndarray) and images.dtype == np.uint8 and images.ndim == 4 and images.shape[3] == 3):
        raise UserError(f"{file} has no 'image_data' of uint8 pixels (N, H, W, 3). {advice}")
    if len(images) != count:
        raise UserError(
            f"{file} has {len(images)} images, expected {count}: benchmark.classes_of_files times benchmark.per_class. "
            f"{advice}, or type the numbers of yours"
        )
    return images


def _samples(features: Tensor, numbers: Tensor, size: Size) -> StreamSamples:
    distributions = numbers // size.per_class
    return StreamSamples(features[numbers], distributions % size.classes, distributions)
