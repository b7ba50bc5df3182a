"""What every class-incremental benchmark is: classes in an order, cut into tasks, and their loaders."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from mmcl.benchmarks.augmentation import Augmentation
from mmcl.benchmarks.base import Benchmark, BenchmarkConfig
from mmcl.benchmarks.class_order import check_class_order, class_order, positions, task_sizes
from mmcl.benchmarks.feature_batches import FeatureSteps, ResidentFeatures
from mmcl.benchmarks.files import ImageLoader, ImageStepLoader, ImageTransforms
from mmcl.benchmarks.order import InOrder, StepOrder
from mmcl.benchmarks.resident import BlockBatches, BlockLoader, Recipe, ResidentSamples, StepBlock
from mmcl.config.schema import setting
from mmcl.errors import UserError
from mmcl.images import FileImages, FloatPixels, Images, MixedImages
from mmcl.pixels import PixelScale
from mmcl.protocol import Batch, ClassTask, ImageFeatures, Samples, Task


@dataclass
class ClassIncrementalBenchmarkConfig(BenchmarkConfig):
    """Keys that all class-incremental benchmarks have."""

    base: int = setting("Classes of the first task; 0 means as many as increment.")
    increment: int = setting("Classes of every later task; a remainder becomes a smaller last task.")
    order_seed: int = setting("Shuffles the classes as the published protocols do.")
    class_order: list[int] | None = setting("Labels in the order they come; null shuffles by order_seed.")
    exact: bool = setting("Alter training images in memory one by one with PIL: same pixels, slower.")
    workers: int = setting("Processes that read and resize images; 0 does it in the training process.")
    steps_per_block: int = setting("Steps handed over at once, images in memory; 1 on several processes.")


class RawData(NamedTuple):
    """A data set as it was read: labels are the data set's own, rows are in its own order."""

    train: Samples
    test: Samples
    class_names: list[str]


class ClassIncrementalBenchmark(Benchmark):
    """Classes in an order, cut into tasks, and the loaders that serve them.

    A family of benchmarks derives from it, says how its data is read (:meth:`read`) and states its constants.
    The engine calls :meth:`prepare_data` and :meth:`setup`, asks for each :meth:`task`, and names what the
    next loaders shall serve by :meth:`serve_training` and :meth:`serve_test`.

    Args:
        config: the benchmark's keys.

    Attributes:
        image_bytes: bytes of one stored image in the papers' accounting.
    """

    task_type: ClassVar[type[Task]] = ClassTask
    config: ClassIncrementalBenchmarkConfig
    Config: ClassVar[type[BenchmarkConfig]] = ClassIncrementalBenchmarkConfig
    image_bytes: int = 3 * 32 * 32
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.25, 0.25, 0.25)
    augmentation: Augmentation = Augmentation()
    plain_batch_size: int = 500

    def __init__(self, config: ClassIncrementalBenchmarkConfig) -> None:
        super().__init__(config)
        if config.steps_per_block < 1:
            raise UserError(f"benchmark.steps_per_block={config.steps_per_block}: must be at least 1.")
        if config.workers < 0:
            raise UserError(f"benchmark.workers={config.workers}: must be 0 (no extra process) or more.")
        self._data: RawData | None = None
        self._training: tuple[Samples | ImageFeatures, int, tuple[int | str, ...]] | None = None
        self._resident: ResidentSamples | ResidentFeatures | None = None
        self._test: Samples | None = None

    # What a family says about its data

    @abstractmethod
    def read(self) -> RawData:
        """Read the data set. Raises UserError where files are missing or damaged."""

    def image_transforms(self) -> ImageTransforms | None:
        """Return the transforms of images that workers read one by one: from files, or resized out of memory.

        None where pixels lie in memory at their size: they are altered in batches on the device, by
        :attr:`augmentation`.
        """
        return None

    # Classes and tasks

    def setup(self, stage: str | None = None) -> None:
        """Read the data set and bring its classes into order; does nothing the second time."""
        if self._data is not None:
            return
        raw = self.read()
        count = len(raw.class_names)
        if self.config.class_order is None:
            order = class_order(count, self.config.order_seed)
        else:
            order = check_class_order(self.config.class_order, count)
        self._sizes = task_sizes(count, self.config.base, self.config.increment)
        train, test = (_by_class(samples, order) for samples in (raw.train, raw.test))
        self._train_starts, self._test_starts = (_class_starts(part.labels, count) for part in (train, test))
        self._data = RawData(train, test, [raw.class_names[label] for label in order])

    @property
    def task_sizes(self) -> list[int]:
        """Number of classes that each task adds."""
        self.setup()
        return self._sizes

    @property
    def fewest_images(self) -> int:
        """Number of training images of the class that has fewest."""
        self.setup()
        return min(stop - start for start, stop in pairwise(self._train_starts))

    @property
    def class_names(self) -> list[str]:
        """Names of the classes in class order."""
        return self._ready().class_names

    @property
    def pixel_scale(self) -> PixelScale:
        """By what pixels are normalised."""
        return PixelScale(self.mean, self.std)

    def task(self, index: int) -> ClassTask:
        """Return one task of the sequence, from 0."""
        data, sizes = self._ready(), self.task_sizes
        known = sum(sizes[:index])
        seen = known + sizes[index]
        starts = self._train_starts
        return ClassTask(
            index=index,
            known=known,
            seen=seen,
            train=_between(data.train, starts[known], starts[seen]),
            test=_between(data.test, 0, self._test_starts[seen]),
            past=lambda: _between(data.train, 0, starts[known]),
            plain_batches=self.plain_batches,
            augmented_batches=self.augmented_batches,
            pixel_scale=self.pixel_scale,
        )

    def _ready(self) -> RawData:
        self.setup()
        assert self._data is not None
        return self._data

    # Loaders

    def serve_training(self, samples: Samples | ImageFeatures, batch_size: int, draw: tuple[int | str, ...]) -> None:
        """Name what :meth:`train_dataloader` yields from now on.

        Pixels are augmented and normalised, float values are served as they are; features come as
        :class:`~mmcl.protocol.FeatureBatch`, epoch e with view ``e mod V``.
        """
        self._training = (samples, batch_size, draw)
        self._resident = None
        if isinstance(samples, ImageFeatures):
            self._resident = ResidentFeatures(samples)
        elif self._transforms_of(samples.images) is None:
            self._resident = self._resident_samples(samples, draw)

    def train_dataloader(self) -> Iterable[Any]:
        """Serve blocks of steps: items that :meth:`on_after_batch_transfer` turns into batches."""
        if self._training is None:
            raise RuntimeError("serve_training comes before train_dataloader")
        samples, batch_size, draw = self._training
        rank, world = self._processes()
        order = StepOrder(len(samples), batch_size, draw, rank, world)
        if self._resident is not None:
            return BlockLoader(order, self.config.steps_per_block if world == 1 else 1)
        assert isinstance(samples, Samples)
        transforms = self._transforms_of(samples.images)
        assert transforms is not None
        return ImageStepLoader(samples, order, draw, transforms.train, self.config.workers, self.pixel_scale)

    def serve_test(self, samples: Samples) -> None:
        """Name what :meth:`test_dataloader` yields from now on."""
        self._test = samples

    def test_dataloader(self) -> Iterable[Batch]:
        """Serve this process's part of the test samples, ``samples[rank::world]``: none is repeated."""
        if self._test is None:
            raise RuntimeError("serve_test comes before test_dataloader")
        rank, world = self._processes()
        rows = torch.arange(rank, len(self._test), world)
        return self._pixel_batches(self._test.select(rows))

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Turn what a loader yielded into an iterable of training batches, or into one test batch."""
        if isinstance(batch, StepBlock):
            if isinstance(self._resident, ResidentFeatures):
                return FeatureSteps(batch, self._resident)
            assert self._resident is not None
            return BlockBatches(batch, self._resident)
        if isinstance(batch, list):
            return [self._normalised(step) for step in batch]
        return self._normalised(batch)

    def plain_batches(self, samples: Samples, device: torch.device) -> Iterator[Batch]:
        """Yield samples under the test transform, in order, in batches on a device; float values as they are."""
        for batch in self._pixel_batches(samples):
            yield self._normalised(_on_device(batch, device))

    def augmented_batches(
        self, samples: Samples, batch_size: int, draw: tuple[int | str, ...], device: torch.device
    ) -> Iterator[Batch]:
        """Yield samples under the training transform, in order, in batches on a device; float values as they are.

        See :class:`~mmcl.protocol.AugmentedBatches`.
        """
        order = InOrder(len(samples), batch_size)
        transforms = self._transforms_of(samples.images)
        if transforms is None:
            resident = self._resident_samples(samples, draw)
            for step in order:
                yield resident.batch(step.rows.to(device), step.epoch, step.share)
            return
        for (batch,) in ImageStepLoader(samples, order, draw, transforms.train, self.config.workers, self.pixel_scale):
            yield self._normalised(_on_device(batch, device))

    def _resident_samples(self, samples: Samples, draw: tuple[int | str, ...]) -> ResidentSamples:
        return ResidentSamples(samples, Recipe(self.augmentation, self.mean, self.std, self.config.exact), draw)

    def _pixel_batches(self, samples: Samples) -> Iterable[Batch]:
        transforms = self._transforms_of(samples.images)
        if transforms is None:
            return PlainLoader(samples, self.plain_batch_size, self.pixel_scale)
        own = (samples if self._data is None else self._data.train).images
        shape = tuple(own.shape[1:]) if isinstance(own, Tensor) else None
        size, workers = self.plain_batch_size, self.config.workers
        return ImageLoader(samples, transforms.test, shape, size, workers, self.pixel_scale)

    def _transforms_of(self, images: Images) -> ImageTransforms | None:
        """Return the transforms of images that are read one by one; None for those that are served out of memory."""
        is_final = isinstance(images, Tensor) and images.is_floating_point()
        return None if is_final else self.image_transforms()

    def _normalised(self, batch: Batch) -> Batch:
        if batch.images.is_floating_point():
            return batch
        return batch._replace(images=self.pixel_scale.normalise(batch.images))


class PlainLoader:
    """Batches of samples in memory, in order, as uint8 pixels or as float values; with float pixels, normalised."""

    def __init__(self, samples: Samples, batch_size: int, scale: PixelScale) -> None:
        self.samples = samples
        self.batch_size = batch_size
        self.scale = scale

    def __len__(self) -> int:
        return -(-len(self.samples) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, len(self.samples), self.batch_size):
            part = _between(self.samples, start, start + self.batch_size)
            yield Batch(self._tensor(part.images), part.labels, part.sources)

    def _tensor(self, images: Images) -> Tensor:
        if isinstance(images, Tensor):
            return images
        if isinstance(images, FloatPixels):
            return self.scale.normalise(images.values)
        assert isinstance(images, MixedImages)
        tensors = [part.values if isinstance(part, FloatPixels) else part for part in images.parts]
        pixels = torch.empty(len(images), *tensors[0].shape[1:])  # type: ignore[union-attr]
        for number, part in enumerate(tensors):
            pixels[images.part_of == number] = part.float()  # type: ignore[union-attr]
        return self.scale.normalise(pixels)


def _by_class(samples: Samples, order: list[int]) -> Samples:
    """Give labels as positions in the class order and sort by them; inside a class the order stays."""
    labels = positions(samples.labels, order)
    rows = labels.argsort(stable=True)
    return Samples(samples.images[rows], labels[rows], samples.sources[rows])


def _class_starts(labels: Tensor, count: int) -> list[int]:
    """Return where each class begins among sorted labels, and the end: ``count + 1`` numbers."""
    counts = torch.bincount(labels, minlength=count)
    return [0, *counts.cumsum(0).tolist()]


def _between(samples: Samples, start: int, stop: int) -> Samples:
    """Return the rows from start to stop without copying pixels."""
    images = samples.images
    part: Images
    if isinstance(images, FileImages):
        part = FileImages(images.root, images.paths[start:stop])
    elif isinstance(images, FloatPixels):
        part = FloatPixels(images.values[start:stop])
    elif isinstance(images, MixedImages):
        part = images[torch.arange(start, min(stop, len(images)))]
    else:
        part = images[start:stop]
    return Samples(part, samples.labels[start:stop], samples.sources[start:stop])


def _on_device(batch: Batch, device: torch.device) -> Batch:
    images, labels, sources = (part.to(device, non_blocking=True) for part in batch[:3])
    return Batch(images, labels, sources)
