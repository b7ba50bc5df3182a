"""What every online stream is: samples that come once and in order, and what is asked after each distribution."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from mmcl.benchmarks.base import Benchmark, BenchmarkConfig
from mmcl.benchmarks.feature_batches import FeatureSteps, ResidentFeatures
from mmcl.benchmarks.order import InOrder
from mmcl.benchmarks.resident import BlockLoader, StepBlock
from mmcl.config.schema import setting
from mmcl.errors import UserError, nearest
from mmcl.protocol import EvaluationBatch, ImageFeatures, Samples, StreamSamples, StreamTask, Task

TEST = "test"
EVALUATIONS = (TEST, "validation", "train")


@dataclass
class OnlineBenchmarkConfig(BenchmarkConfig):
    """Keys that every online stream has."""

    batch_size: int = setting("Samples of a step; 1 is the published protocol. No step crosses distributions.")
    evaluate: list[str] = setting(
        "Samples asked after each distribution: test, validation (may select settings), train."
    )
    steps_per_block: int = setting("Steps handed over at once.")

    def __post_init__(self) -> None:
        """Refuse what would serve or ask nothing."""
        for name in ("batch_size", "steps_per_block"):
            if getattr(self, name) < 1:
                raise UserError(f"benchmark.{name}={getattr(self, name)}: must be at least 1")
        for name in self.evaluate:
            if name not in EVALUATIONS:
                known = ", ".join(EVALUATIONS)
                raise UserError(
                    f"benchmark.evaluate: unknown samples '{name}'.{nearest(name, EVALUATIONS)} Known: {known}"
                )
        if TEST not in self.evaluate:
            raise UserError(f"benchmark.evaluate={list(self.evaluate)}: test must be among them. Type [test]")
        if len(set(self.evaluate)) < len(self.evaluate):
            raise UserError(f"benchmark.evaluate={list(self.evaluate)}: expected none twice")


@dataclass(frozen=True)
class OnlineStream:
    """A stream as its files or its generator give it.

    Attributes:
        train: the stream in its order, distribution after distribution.
        validation: samples of the first distributions, which may select settings.
        test: samples of all distributions.
        class_names: names of all classes.
        distribution_names: names of the distributions in the order of the stream.
    """

    train: StreamSamples
    validation: StreamSamples
    test: StreamSamples
    class_names: list[str]
    distribution_names: list[str]


class OnlineBenchmark(Benchmark):
    """A stream whose windows are tasks: one for each distribution.

    Every process is served every sample: a stream has one order, and a step of one sample cannot be shared.
    """

    task_type: ClassVar[type[Task]] = StreamTask
    config: OnlineBenchmarkConfig
    Config: ClassVar[type[BenchmarkConfig]] = OnlineBenchmarkConfig
    evaluation_batch_size: ClassVar[int] = 10000

    def __init__(self, config: OnlineBenchmarkConfig) -> None:
        super().__init__(config)
        self._stream: OnlineStream | None = None
        self._training: tuple[ImageFeatures, int] | None = None
        self._resident: ResidentFeatures | None = None

    @abstractmethod
    def read(self) -> OnlineStream:
        """Read or generate the stream. Raises UserError where files are missing or damaged."""

    def setup(self, stage: str | None = None) -> None:
        """Read the stream; does nothing the second time."""
        if self._stream is None:
            stream = self.read()
            try:
                check_stream(stream)
            except UserError as error:
                files = ", ".join(str(item.path) for item in self.describe_data()) or f"benchmark={self.name}"
                raise UserError(f"{files}: {error}. Bring the files again") from error
            self._stream = stream

    @property
    def stream(self) -> OnlineStream:
        """The stream with all its samples."""
        self.setup()
        assert self._stream is not None
        return self._stream

    @property
    def dimension(self) -> int:
        """Length D of a sample."""
        return self.stream.train.features.shape[1]

    @property
    def task_sizes(self) -> list[int]:
        """Number of classes in each window: all of them, since no learner is told which are in it."""
        return [len(self.class_names)] * len(self.stream.distribution_names)

    @property
    def class_names(self) -> list[str]:
        """Names of all classes."""
        return self.stream.class_names

    @property
    def task_names(self) -> list[str]:
        """Names of the distributions."""
        return self.stream.distribution_names

    def evaluations(self) -> dict[str, StreamSamples]:
        """Return the samples that are asked after each distribution, by name."""
        return {name: getattr(self.stream, name) for name in self.config.evaluate}

    def task(self, index: int) -> StreamTask:
        """Return one window of the stream, from 0."""
        train = self.stream.train
        rows = (train.distributions == index).nonzero().flatten()
        return StreamTask(
            index=index,
            known=0,
            seen=len(self.class_names),
            name=self.task_names[index],
            train=ImageFeatures(train.features[rows][:, None], train.labels[rows], rows),
            batch_size=self.config.batch_size,
        )

    # Loaders

    def serve_training(self, samples: Samples | ImageFeatures, batch_size: int, draw: tuple[int | str, ...]) -> None:
        """Name what :meth:`train_dataloader` yields from now on, in the order of the stream."""
        assert isinstance(samples, ImageFeatures)
        self._training = (samples, batch_size)
        self._resident = ResidentFeatures(samples)

    def train_dataloader(self) -> Iterable[Any]:
        """Serve blocks of steps."""
        if self._training is None:
            raise RuntimeError("serve_training comes before train_dataloader")
        samples, batch_size = self._training
        return BlockLoader(InOrder(len(samples), batch_size), self.config.steps_per_block)

    def serve_evaluation(self, index: int) -> None:
        """Name the window after which :meth:`test_dataloader` asks."""
        self._asked = {
            name: samples for name, samples in self.evaluations().items() if index < samples.distribution_count
        }

    def test_dataloader(self) -> Iterable[EvaluationBatch]:
        """Serve this process's part of what is asked, ``samples[rank::world]``: none is repeated.

        Samples of fewer distributions than the stream has met are not asked any more, as in the published protocol.
        """
        rank, world = self._processes()
        return EvaluationLoader(self._asked, self.evaluation_batch_size, rank, world)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Turn a block of steps into an iterable of training batches."""
        if isinstance(batch, StepBlock):
            assert self._resident is not None
            return FeatureSteps(batch, self._resident)
        return batch


class EvaluationLoader:
    """Batches of what is asked, set after set, one part in ``world`` of each."""

    def __init__(self, asked: dict[str, StreamSamples], batch_size: int, rank: int, world: int) -> None:
        self.batches = [
            (name, samples, rows)
            for name, samples in asked.items()
            for rows in torch.split(torch.arange(len(samples))[rank::world], batch_size)
            if len(rows)
        ]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[EvaluationBatch]:
        for name, samples, rows in self.batches:
            part = samples.select(rows)
            yield EvaluationBatch(part.features, part.labels, part.distributions, name)


def check_stream(stream: OnlineStream) -> None:
    """Refuse a stream that a learner would choke on.

    Raises:
        UserError: values that are no numbers, labels out of range, or distributions that are not in order.
    """
    classes, distributions = len(stream.class_names), len(stream.distribution_names)
    for name in EVALUATIONS:
        samples: StreamSamples = getattr(stream, name)
        if len(samples) == 0:
            raise UserError(f"the stream has no {name} samples: expected at least one")
        if not bool(samples.features.isfinite().all()):
            row = int((~samples.features.isfinite().all(dim=1)).nonzero()[0])
            raise UserError(f"the stream's {name} sample {row} has a value that is not a finite number")
        _check_range(samples.labels, classes, f"label of the stream's {name} sample", "classes")
        _check_range(
            samples.distributions, distributions, f"distribution of the stream's {name} sample", "distributions"
        )
    steps: Tensor = stream.train.distributions.diff()
    if (
        len(stream.train) == 0
        or int(stream.train.distributions[0]) != 0
        or not bool(((steps == 0) | (steps == 1)).all())
    ):
        raise UserError("the stream's distributions must begin with 0 and come one after the other, each as one part")
    if stream.train.distribution_count != distributions:
        raise UserError(f"the stream has {stream.train.distribution_count} distributions, but {distributions} names")


def _check_range(values: Tensor, count: int, what: str, of: str) -> None:
    outside = (values < 0) | (values >= count)
    if bool(outside.any()):
        row = int(outside.nonzero()[0])
        raise UserError(f"{what} {row} is {int(values[row])}: expected 0 to {count - 1}, as there are {count} {of}")
