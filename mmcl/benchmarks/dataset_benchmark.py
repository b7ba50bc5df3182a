"""Benchmarks whose tasks are whole data sets of images with texts about their classes, behind frozen encoders."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from mmcl.benchmarks.base import Benchmark, BenchmarkConfig
from mmcl.benchmarks.feature_batches import FeatureSteps, ResidentFeatures, StreamLoader
from mmcl.benchmarks.few_shot import few_shot_rows
from mmcl.benchmarks.order import StepOrder
from mmcl.benchmarks.resident import BlockLoader, StepBlock
from mmcl.config.schema import setting
from mmcl.errors import UserError
from mmcl.features.job import Encoders, EncodingJob, Views
from mmcl.protocol import DatasetTask, EncodedDataset, ImageFeatures, Samples, Sentences, Task, TextFeatures

WITHOUT_VALIDATION = "choose nothing on them (dmn: method.fusion=fixed, tip_adapter: method.search=fixed)"
PRECISIONS = ("float16", "float32")


@dataclass(frozen=True)
class ImageTextDataset:
    """A data set as its files or its generator give it.

    Attributes:
        name: name in results, such as ``dtd``.
        class_names: C names; labels are positions here.
        train: images that few-shot methods may choose from, in the order of the published list.
        validation: images that may select something; empty where the data set has none.
        test: images of the stream, in the order of the published list.
        sentences: returns the texts of a kind of prompts (simple, tip, cupl, tip_cupl, full); raises UserError where
            there is none.
        alteration: what views of its test images are: ``crop`` or ``augmix`` (see ``mmcl.features.job.Views``).
        unlabelled: why there is nothing to choose from for few shots and validation, such as "a shifted test set of
            imagenet"; empty when there is.
    """

    name: str
    class_names: tuple[str, ...]
    train: Samples
    validation: Samples
    test: Samples
    sentences: Callable[[str], Sentences] = field(repr=False)
    alteration: str = "augmix"
    unlabelled: str = ""


class FeatureTasks(Benchmark):
    """Tasks that are data sets behind encoders, and the loaders of their features."""

    task_type: ClassVar[type[Task]] = DatasetTask
    steps_per_block: ClassVar[int] = 50
    stream_batch_size: ClassVar[int] = 100

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._order: StepOrder | None = None
        self._resident: ResidentFeatures | None = None
        self._stream: Callable[[], StreamLoader] | None = None

    @abstractmethod
    def encoded(self, index: int) -> EncodedDataset:
        """Return the data set of a task behind its encoders."""

    @abstractmethod
    def names_of(self, index: int) -> tuple[str, ...]:
        """Return the class names of a task."""

    @property
    def task_sizes(self) -> list[int]:
        """Number of classes of each data set."""
        return [len(self.names_of(index)) for index in range(len(self.task_names))]

    @property
    @abstractmethod
    def task_names(self) -> list[str]:
        """Names of the data sets."""

    @property
    def class_names(self) -> list[str]:
        """Names of all classes, data set after data set."""
        return [name for index in range(len(self.task_names)) for name in self.names_of(index)]

    def task(self, index: int) -> DatasetTask:
        """Return one data set of the sequence, from 0."""
        sizes = self.task_sizes
        known = sum(sizes[:index])
        names = self.names_of(index)
        return DatasetTask(index, known, known + sizes[index], self.task_names[index], names, self.encoded(index))

    def serve_training(self, samples: Samples | ImageFeatures, batch_size: int, draw: tuple[int | str, ...]) -> None:
        """Name what :meth:`train_dataloader` yields from now on."""
        assert isinstance(samples, ImageFeatures)
        self._resident = ResidentFeatures(samples)
        self._order = StepOrder(len(samples), batch_size, draw)

    def train_dataloader(self) -> Iterable[StepBlock]:
        """Serve blocks of steps."""
        if self._order is None:
            raise RuntimeError("serve_training comes before train_dataloader")
        self._order.rank, self._order.world = self._processes()
        return BlockLoader(self._order, self.steps_per_block if self._order.world == 1 else 1)

    def serve_stream(self, features: ImageFeatures, order: Tensor, start: int, whole: bool) -> None:
        """Name what :meth:`test_dataloader` yields from now on.

        Args:
            features: of the test samples.
            order: row at each place of the stream, int64 ``(N,)``.
            start: first batch.
            whole: every process sees all samples; otherwise each sees its part.
        """

        def loader() -> StreamLoader:
            part = (0, 1) if whole else self._processes()
            return StreamLoader(features, order, self.stream_batch_size, start, part)

        self._stream = loader

    def test_dataloader(self) -> StreamLoader:
        """Serve the stream's batches."""
        if self._stream is None:
            raise RuntimeError("serve_stream comes before test_dataloader")
        return self._stream()

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Turn a block of rows into an iterable of training batches; test batches are ready."""
        if isinstance(batch, StepBlock):
            assert self._resident is not None
            return FeatureSteps(batch, self._resident)
        return batch


@dataclass
class EncodingConfig(BenchmarkConfig):
    """Keys of benchmarks whose images are encoded here."""

    workers: int = setting("Processes that read image files; 0 reads in the encoding process.")
    encode_batch_size: int = setting("Views that the image encoder sees at once.")
    features_precision: str = setting("Type of cached features: float16 halves the file, float32 keeps all digits.")

    def __post_init__(self) -> None:
        """Refuse what no cache holds."""
        if self.features_precision not in PRECISIONS:
            known = " or ".join(PRECISIONS)
            raise UserError(f"benchmark.features_precision={self.features_precision}: expected {known}")
        if self.encode_batch_size < 1 or self.workers < 0:
            raise UserError(
                f"benchmark.encode_batch_size={self.encode_batch_size}, benchmark.workers={self.workers}: expected at "
                "least 1 and at least 0"
            )


class EncodingBenchmark(FeatureTasks):
    """Images and texts that are encoded once, each feature cached."""

    Config: ClassVar[type[BenchmarkConfig]] = EncodingConfig
    config: EncodingConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._encoders: Encoders | None = None

    def connect(self, encoders: Encoders) -> None:
        """Take the encoders that stand before the images and texts."""
        self._encoders = encoders

    @property
    def encoders(self) -> Encoders:
        """The encoders that were connected."""
        if self._encoders is None:
            raise RuntimeError("connect comes before tasks")
        return self._encoders


@dataclass
class DatasetBenchmarkConfig(EncodingConfig):
    """Keys of benchmarks whose images are encoded under views."""

    view_seed: int = setting("Keys the altered views, which all runs share whatever their seed is.")
    exact: bool = setting("Make views image by image with PIL, as published; slower.")


class DatasetBenchmark(EncodingBenchmark):
    """Data sets of images under views, a task each."""

    Config: ClassVar[type[BenchmarkConfig]] = DatasetBenchmarkConfig
    config: DatasetBenchmarkConfig

    def __init__(self, config: DatasetBenchmarkConfig) -> None:
        super().__init__(config)
        self._datasets: list[ImageTextDataset] = []

    @abstractmethod
    def dataset_names(self) -> list[str]:
        """Return the names of the data sets in the order of the tasks."""

    @abstractmethod
    def read_dataset(self, name: str) -> ImageTextDataset:
        """Read a data set's lists. Raises UserError where files are missing or damaged."""

    def setup(self, stage: str | None = None) -> None:
        """Read the lists of all data sets; does nothing the second time."""
        if not self._datasets:
            self._datasets = [self.read_dataset(name) for name in self.dataset_names()]

    @property
    def task_names(self) -> list[str]:
        """Names of the data sets."""
        self.setup()
        return [dataset.name for dataset in self._datasets]

    def names_of(self, index: int) -> tuple[str, ...]:
        """Return the class names of a data set."""
        self.setup()
        return self._datasets[index].class_names

    def encoded(self, index: int) -> EncodedDataset:
        """Return a data set behind the encoders."""
        return self.behind_encoders(index)

    def behind_encoders(self, index: int) -> ImagesBehindEncoders:
        """Return a data set behind the encoders, with what only an export asks for."""
        return ImagesBehindEncoders(self._datasets[index], self.encoders, self.config)


class ImagesBehindEncoders:
    """An :class:`~mmcl.protocol.EncodedDataset` of images: says what is to be encoded, leaves it to the encoders."""

    def __init__(self, dataset: ImageTextDataset, encoders: Encoders, config: DatasetBenchmarkConfig) -> None:
        self.dataset, self.encoders, self.config = dataset, encoders, config

    def sentences(self, prompts: str) -> Sentences:
        """Return the texts of a kind of prompts."""
        return self.dataset.sentences(prompts)

    def texts(self, prompts: str) -> TextFeatures:
        """Return the encoded texts of a kind of prompts."""
        return self.encoders.texts(f"{self.dataset.name}-texts-{prompts}", self.sentences(prompts))

    def train(self, shots: int, passes: int, interpolation: str = "bilinear") -> ImageFeatures:
        """Return ``shots`` training images of each class under ``1 + passes`` views."""
        self._refuse_unlabelled(f"method.shots={shots}")
        chosen = self._few(self.dataset.train, shots, "train")
        views = self._views(1 + passes, "crop", interpolation)
        return self.encoders.images(EncodingJob(f"{self.dataset.name}-train-{shots}", chosen, views))

    def all_train(self, passes: int) -> ImageFeatures:
        """Return all training images under ``1 + passes`` views."""
        views = self._views(1 + passes, "crop")
        return self.encoders.images(EncodingJob(f"{self.dataset.name}-train", self.dataset.train, views))

    def validation(self, per_class: int | None, views: int) -> ImageFeatures:
        """Return validation images under views as in :meth:`test`."""
        self._refuse_unlabelled("selection on validation labels")
        samples = self.dataset.validation
        if not len(samples):
            raise UserError(f"{self.dataset.name} has no validation images to select by: {WITHOUT_VALIDATION}")
        if per_class is not None:
            samples = self._few(samples, per_class, "validation")
        job = EncodingJob(f"{self.dataset.name}-validation", samples, self._views(views, self.dataset.alteration))
        return self.encoders.images(job)

    def test(self, views: int) -> ImageFeatures:
        """Return the test images: view 0 plain and ``views - 1`` altered ones."""
        job = EncodingJob(f"{self.dataset.name}-test", self.dataset.test, self._views(views, self.dataset.alteration))
        return self.encoders.images(job)

    def _views(self, count: int, alteration: str, interpolation: str = "bilinear") -> Views:
        seed, exact = self.config.view_seed, self.config.exact
        return Views(count, alteration if count > 1 else "none", interpolation, seed, exact)

    def _few(self, samples: Samples, shots: int, split: str) -> Samples:
        try:
            return samples.select(few_shot_rows(samples.labels, shots, self.dataset.class_names))
        except UserError as error:
            raise UserError(f"{self.dataset.name}, {split} images: {error}") from error

    def _refuse_unlabelled(self, wish: str) -> None:
        if self.dataset.unlabelled:
            raise UserError(
                f"{wish} needs labelled images, but {self.dataset.name} is {self.dataset.unlabelled}. "
                "Type method.shots=0, or choose another benchmark"
            )
