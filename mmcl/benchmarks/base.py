"""What the engine asks of every benchmark: its tasks, and loaders for what is to be served next."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from lightning import LightningDataModule

from mmcl.config.schema import ComponentConfig, setting
from mmcl.protocol import ImageFeatures, Samples, Task


@dataclass
class BenchmarkConfig(ComponentConfig):
    """Keys that every benchmark has."""

    data: str = setting("Folder that holds the data sets, one folder each.")


class DataItem(NamedTuple):
    """A file or folder that a benchmark needs, and whether it is there."""

    path: Path
    meaning: str
    present: bool


class Benchmark(LightningDataModule):
    """A sequence of tasks over data, and the loaders that serve it.

    The engine calls :meth:`prepare_data` and :meth:`setup`, asks for each :meth:`task`, and names what the next
    loaders shall serve.

    Args:
        config: the benchmark's keys.

    Attributes:
        name: the benchmark's name in results.
        task_type: the kind of its tasks.
    """

    Config: ClassVar[type[BenchmarkConfig]] = BenchmarkConfig
    task_type: ClassVar[type[Task]] = Task

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.name: str = config.name

    @abstractmethod
    def setup(self, stage: str | None = None) -> None:
        """Read what the tasks need; does nothing the second time. Raises UserError where data is missing or damaged."""

    def describe_data(self) -> list[DataItem]:
        """Say which files and folders are needed and which of them are there. Empty for embedded data."""
        return []

    @property
    def root(self) -> Path:
        """Folder that holds the data sets."""
        return Path(self.config.data).expanduser()

    @property
    @abstractmethod
    def task_sizes(self) -> list[int]:
        """Number of classes that each task adds."""

    @property
    @abstractmethod
    def class_names(self) -> list[str]:
        """Names of all classes, task after task."""

    @property
    def task_names(self) -> list[str] | None:
        """Names of the tasks where they have some."""
        return None

    @abstractmethod
    def task(self, index: int) -> Any:
        """Return one task of the sequence, from 0."""

    @abstractmethod
    def serve_training(self, samples: Samples | ImageFeatures, batch_size: int, draw: tuple[int | str, ...]) -> None:
        """Name what :meth:`train_dataloader` yields from now on.

        Args:
            samples: training samples of a stage.
            batch_size: size of the global batch.
            draw: what order and augmentation are for, such as ``(seed, task, stage)``.
        """

    def _processes(self) -> tuple[int, int]:
        """Return (rank, number of processes)."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
