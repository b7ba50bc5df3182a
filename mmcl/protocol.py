"""The words that engine, benchmarks and methods share: samples, batch, task, stage."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from mmcl.config.schema import Passes
from mmcl.images import Images, join_images
from mmcl.memory.class_memory import MemoryContent
from mmcl.pixels import PixelScale


@dataclass(frozen=True)
class Samples:
    """Images with their labels.

    Attributes:
        images: uint8 pixels ``(N, 3, H, W)``; or files; or float pixels; or these mixed; or a tensor of float32 values
            ``(N, ...)``, which are served as they are, without augmentation and normalisation: features ``(N, D)``,
            pixels that were normalised before.
        labels: class as position in the class order, int64 ``(N,)``.
        sources: identity of each image in the benchmark's split, int64 ``(N,)``; keys its augmentation.
    """

    images: Images
    labels: Tensor
    sources: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, rows: Tensor) -> Samples:
        """Return the rows named by an int64 index or a bool mask ``(N,)``."""
        if rows.dtype == torch.bool:
            rows = rows.nonzero().flatten()
        return Samples(self.images[rows], self.labels[rows], self.sources[rows])

    @staticmethod
    def concatenate(parts: Sequence[Samples]) -> Samples:
        """Join parts of one benchmark in the given order; empty parts are welcome, no part at all is not."""
        labels, sources = (torch.cat([getattr(part, name) for part in parts]) for name in ("labels", "sources"))
        return Samples(join_images([part.images for part in parts]), labels, sources)


class Batch(NamedTuple):
    """What a network sees at once.

    ``images`` float32 ``(B, 3, H, W)`` normalised, ``labels`` int64 ``(B,)``, ``sources`` int64 ``(B,)``. ``share`` is
    the factor that turns this process's mean loss into its part of the global mean: 1 on one process.
    """

    images: Tensor
    labels: Tensor
    sources: Tensor
    share: float = 1.0


class PlainBatches(Protocol):
    """Batches of samples under the test transform, in order, on a device."""

    def __call__(self, samples: Samples, device: torch.device) -> Iterator[Batch]:
        """Yield all samples, the last batch being what remains."""
        ...


class AugmentedBatches(Protocol):
    """Batches of samples under the training transform, in order, on a device."""

    def __call__(
        self, samples: Samples, batch_size: int, draw: tuple[int | str, ...], device: torch.device
    ) -> Iterator[Batch]:
        """Yield all samples, the last batch being what remains.

        Args:
            samples: images of the benchmark, or kept ones.
            batch_size: images of a batch.
            draw: what the randomness is for, such as ``(seed, task, "exemplars", epoch)``. An image is altered by
                (draw, source) alone: equally in every batch, on every process, and as often as it comes.
            device: where the batches shall be.
        """
        ...


@dataclass(frozen=True)
class Task:
    """One step of a benchmark's sequence.

    Attributes:
        index: position in the sequence, from 0.
        known: number of classes of earlier tasks; the new ones are ``range(known, seen)``.
        seen: number of classes so far, this task's included.
    """

    index: int
    known: int
    seen: int

    @property
    def size(self) -> int:
        """Number of new classes."""
        return self.seen - self.known


@dataclass(frozen=True)
class ClassTask(Task):
    """New classes of one data set; the test is about all classes seen so far.

    Attributes:
        train: training images of the new classes, by class, in the order of the data set.
        test: test images of all seen classes, by class.
        past: training images of all earlier tasks. For upper bounds only: no method with a budget may ask.
        plain_batches: reads samples under the test transform.
        augmented_batches: reads samples under the training transform.
        pixel_scale: by what pixels are normalised.
    """

    train: Samples
    test: Samples
    past: Callable[[], Samples] = field(repr=False)
    plain_batches: PlainBatches = field(repr=False)
    augmented_batches: AugmentedBatches = field(repr=False)
    pixel_scale: PixelScale


class Sentences(NamedTuple):
    """Texts about the classes of a data set: ``texts`` of length P, ``classes`` int64 ``(P,)``, grouped by class."""

    texts: tuple[str, ...]
    classes: Tensor


class TextFeatures(NamedTuple):
    """Encoded sentences: ``features`` float32 ``(P, D)`` as the encoder gives them, ``classes`` int64 ``(P,)``."""

    features: Tensor
    classes: Tensor


@dataclass(frozen=True)
class ImageFeatures:
    """Encoded images under several views.

    Attributes:
        features: float16 or float32 ``(N, V, D)`` as the encoder gives them (not normalised), perhaps mapped from a
            file and read-only; view 0 is the plain image under the test transform.
        labels: int64 ``(N,)``.
        sources: position of each image in its split, int64 ``(N,)``.
    """

    features: Tensor
    labels: Tensor
    sources: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, rows: Tensor) -> ImageFeatures:
        """Return the images named by an int64 index ``(M,)``."""
        return ImageFeatures(self.features[rows], self.labels[rows], self.sources[rows])

    def with_views(self, views: slice | list[int]) -> ImageFeatures:
        """Return the same images under some of the views."""
        return ImageFeatures(self.features[:, views], self.labels, self.sources)


class FeatureBatch(NamedTuple):
    """What a method on features sees at once.

    ``features`` float32 ``(B, V, D)`` as the encoder gives them, view 0 being the plain image (a training batch has the
    one view of its epoch), ``labels`` int64 ``(B,)``, ``sources`` int64 ``(B,)``; ``share`` as in :class:`Batch`.
    """

    features: Tensor
    labels: Tensor
    sources: Tensor
    share: float = 1.0


class EncodedDataset(Protocol):
    """A data set of images with texts about its classes, behind frozen encoders whose outputs are cached."""

    def sentences(self, prompts: str) -> Sentences:
        """Return the texts of a kind of prompts; raises UserError where the data set has none of it."""
        ...

    def texts(self, prompts: str) -> TextFeatures:
        """Return the encoded texts of a kind of prompts."""
        ...

    def train(self, shots: int, passes: int, interpolation: str = "bilinear") -> ImageFeatures:
        """Return ``shots`` training images of each class, grouped by class: ``(C * shots, 1 + passes, D)``.

        View 0 is plain; each pass is one random resized crop with flip. Raises UserError for more shots than a class
        has.
        """
        ...

    def validation(self, per_class: int | None, views: int) -> ImageFeatures:
        """Return validation images (``per_class`` of each class, null: all) under views as in :meth:`test`.

        Raises UserError where the setting has no validation labels, such as a shifted test set.
        """
        ...

    def test(self, views: int) -> ImageFeatures:
        """Return the test images: view 0 plain and ``views - 1`` altered ones, ``(N, views, D)``."""
        ...


@dataclass(frozen=True)
class DatasetTask(Task):
    """A whole data set as one step: its classes are its own, its test is its own stream.

    Attributes:
        name: name of the data set in results, such as ``dtd``.
        class_names: names of its classes, C of them; labels are positions here.
        encoded: its images and texts behind frozen encoders.
    """

    name: str
    class_names: tuple[str, ...]
    encoded: EncodedDataset = field(repr=False)


class AskedMemory(NamedTuple):
    """Queries with the memory of their classes.

    Attributes:
        queries: labelled images ``(Q, 1, D)``.
        content: the memory.
        class_names: names of the C classes.
        encoded: encoded texts about these classes, for a text classifier of them.
    """

    queries: ImageFeatures
    content: MemoryContent
    class_names: tuple[str, ...]
    encoded: EncodedDataset


@dataclass(frozen=True)
class MemoryItems:
    """What queries and rows of a memory are, for people to look at.

    Attributes:
        queries: the images that are asked, in the order of the test; None where there are features alone.
        images: the images of the memory, by row; None likewise.
        sentences: the texts of the memory, by row; empty strings where they are not known.
    """

    queries: Samples | None
    images: Samples | None
    sentences: tuple[str, ...]


@dataclass(frozen=True)
class MemoryTask(DatasetTask):
    """Queries about classes, and a memory of images and texts that may be all that is known about these classes.

    Attributes:
        memory: what is remembered about the classes, each modality grouped by class.
        encoder: digest of the encoders and their computation.
        training: labelled queries of the classes of training with their memory, which a method may learn from; sources
            are rows. None where nothing is to be learned.
        validation: labelled queries of other classes with their memory, which may choose something; None where
            ``training`` is.
        items: what the rows are.
        fewest: of images and of texts, how many the smallest memory of this task and the later ones has that has any;
            a method that looks at more of them stops before it learns. (0, 0) says nothing.
    """

    memory: MemoryContent = field(repr=False)
    encoder: str
    training: AskedMemory | None = field(repr=False)
    validation: AskedMemory | None = field(repr=False)
    items: MemoryItems = field(repr=False)
    fewest: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class StreamSamples:
    """Vectors whose distribution is known to the protocol, not to the learner.

    Attributes:
        features: float32 ``(N, D)``.
        labels: int64 ``(N,)``.
        distributions: number of the distribution that each sample is from, int64 ``(N,)``, from 0.
    """

    features: Tensor
    labels: Tensor
    distributions: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, rows: Tensor) -> StreamSamples:
        """Return the rows named by an int64 index or a bool mask ``(N,)``."""
        return StreamSamples(self.features[rows], self.labels[rows], self.distributions[rows])

    @property
    def distribution_count(self) -> int:
        """Number of distributions; each has at least one sample."""
        return int(self.distributions.max()) + 1


class EvaluationBatch(NamedTuple):
    """What is asked after a window of a stream.

    ``features`` float32 ``(B, D)``, ``labels`` and ``distributions`` int64 ``(B,)``, ``evaluation`` the name of the
    samples (``test``, ``validation``, ``train``).
    """

    features: Tensor
    labels: Tensor
    distributions: Tensor
    evaluation: str


@dataclass(frozen=True)
class StreamTask(Task):
    """A window of an online stream: the samples of one distribution, seen once, in order.

    All classes have an output from the start: ``known`` is 0 and ``seen`` the number of classes in every task. Nothing
    that a method does may depend on where a window ends, but what the published protocol of a method says so (GDumb).

    Attributes:
        name: name of the distribution, such as ``domain 0, class 2``.
        train: the window, in the order of the stream.
        batch_size: samples of a step.
    """

    name: str
    train: ImageFeatures
    batch_size: int


@dataclass(frozen=True)
class Stage:
    """One training pass inside a task.

    Attributes:
        name: what the pass is for, as it appears in logs and results.
        samples: what it trains on, in data-set order before shuffling: images, or features whose views are the passes.
        schedule: epochs, batch size and optimiser.
    """

    name: str
    samples: Samples | ImageFeatures
    schedule: Passes
