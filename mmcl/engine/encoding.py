"""Frozen encoders behind the feature cache: what is not there yet is computed once, on all processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from lightning import Callback, LightningModule, Trainer
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.utils.data import Dataset

from mmcl.backbones.dual_encoder import DualEncoder
from mmcl.benchmarks.files import fetched, open_image
from mmcl.engine.preemption import stop_if_asked
from mmcl.engine.trainers import make_trainer
from mmcl.errors import UserError
from mmcl.features.cache import FeatureCache, PartWriter, Stored, Wanted
from mmcl.features.fingerprint import digest_samples, digest_sentences
from mmcl.features.job import EncodingJob, Views
from mmcl.features.views import ViewMaker
from mmcl.images import FileImages
from mmcl.protocol import ImageFeatures, Samples, Sentences, TextFeatures

TOKENIZED_BY = {"refuse": "tokenize", "cut": "tokenize_beginnings"}


class ViewBatch(NamedTuple):
    """Views on their way to the encoder: ``pixels`` ``(B, V, 3, S, S)``, ``sources`` int64 ``(B,)``."""

    pixels: Tensor
    sources: Tensor


@dataclass(frozen=True)
class Work:
    """Rows to encode.

    Attributes:
        words: what is encoded, for the progress line.
        rows_at_once: rows of one batch.
        batches: from the rows of each batch, to what :attr:`encode` takes.
        encode: from encoder and batch to features ``(B, ...)``.
    """

    words: str
    rows_at_once: int
    batches: Callable[[list[Tensor]], Iterator[Any]]
    encode: Callable[[DualEncoder, Any], Tensor]


class CachedEncoders:
    """Encodes images and sentences, or reads what was encoded before; see :class:`mmcl.features.job.Encoders`.

    Args:
        encoder: the frozen encoders.
        cache: where features are kept.
        trainer_config: the ``trainer`` group: devices, processes and precision of the computation.
        precision: type of cached image features, ``float16`` or ``float32``; those of texts are float32.
        batch_size: views, or sentences, that an encoder sees at once.
        workers: processes that read image files; 0 reads in this one.
    """

    def __init__(
        self,
        encoder: DualEncoder,
        cache: FeatureCache,
        trainer_config: DictConfig,
        *,
        precision: str,
        batch_size: int,
        workers: int,
    ) -> None:
        self.encoder, self.cache, self.trainer_config = encoder, cache, trainer_config
        self.precision, self.batch_size, self.workers = precision, batch_size, workers

    @classmethod
    def configured(cls, encoder: DualEncoder, cache: Path, config: DictConfig) -> CachedEncoders:
        """Return encoders behind the cache in a folder, as the configuration of a benchmark of images wants them."""
        keys = config.benchmark
        return cls(
            encoder,
            FeatureCache(cache),
            config.trainer,
            precision=keys.features_precision,
            batch_size=keys.encode_batch_size,
            workers=keys.workers,
        )

    @property
    def dimension(self) -> int:
        """Length D of a feature."""
        return self.encoder.dimension

    def images(self, job: EncodingJob) -> ImageFeatures:
        """Return the features of a job, ``(N, V, D)``.

        Raises:
            UserError: an image cannot be read, or the disk is full.
        """
        samples, views = job.samples, job.views
        encoder = self.encoder
        maker = ViewMaker(views, encoder.image_size, encoder.mean, encoder.std, encoder.interpolation)
        description = {
            **self._computation(),
            "image_size": encoder.image_size,
            "mean": encoder.mean,
            "std": encoder.std,
            "interpolation": encoder.interpolation,
            # Where there is the plain view alone, nothing else of the description matters.
            "views": asdict(views if views.count > 1 else Views()),
            "samples": digest_samples(samples),
        }
        shape = (len(samples), views.count, encoder.dimension)
        wanted = Wanted(job.name, description, shape, self.precision)
        arrays = {"labels": samples.labels, "sources": samples.sources}
        read = _Views(samples, maker)
        workers = self.workers if isinstance(samples.images, FileImages) else 0

        def encode(encoder: DualEncoder, batch: ViewBatch) -> Tensor:
            images = maker.finish(batch.pixels, batch.sources)
            return encoder.encode_images(images.flatten(0, 1)).view(*images.shape[:2], -1)

        rows_at_once = max(1, self.batch_size // views.count)
        work = Work(job.name, rows_at_once, lambda parts: fetched(read, parts, workers), encode)
        stored = self._stored(wanted, arrays, work)
        return ImageFeatures(stored.features, stored.arrays["labels"], stored.arrays["sources"])

    @property
    def digest(self) -> str:
        """What features depend on beside images and sentences: weights, tokenizer and precision of the computation."""
        computation = self._computation()
        return "-".join(str(computation[name]) for name in sorted(computation))

    def texts(self, name: str, sentences: Sentences, too_long: str = "refuse") -> TextFeatures:
        """Return the features of sentences, ``(P, D)``.

        Args:
            name: words for messages and the cache listing.
            sentences: P texts with their classes.
            too_long: what becomes of a sentence that the encoder cannot take: ``refuse``, or ``cut`` to what fits.

        Raises:
            UserError: a sentence is too long for the encoder, or the disk is full.
        """
        tokenize = getattr(self.encoder, TOKENIZED_BY[too_long])
        description = {**self._computation(), "sentences": digest_sentences(sentences)}
        wanted = Wanted(name, description, (len(sentences.texts), self.encoder.dimension), "float32")

        def batches(parts: list[Tensor]) -> Iterator[Tensor]:
            for rows in parts:
                yield tokenize([sentences.texts[row] for row in rows.tolist()])

        work = Work(name, self.batch_size, batches, lambda encoder, tokens: encoder.encode_tokens(tokens))
        stored = self._stored(wanted, {"classes": sentences.classes}, work)
        return TextFeatures(stored.features, stored.arrays["classes"])

    def _computation(self) -> dict[str, Any]:
        config = self.trainer_config
        return {"encoder": self.encoder.digest, "precision": config.precision, "matmul": config.matmul_precision}

    def _stored(self, wanted: Wanted, arrays: dict[str, Tensor], work: Work) -> Stored:
        build = _Build(self.cache, wanted, arrays)
        callbacks: list[Callback] = [_Bar(work.words)] if self.trainer_config.progress else []
        trainer = make_trainer(self.trainer_config, callbacks=callbacks)
        if trainer.world_size == 1 or (dist.is_available() and dist.is_initialized()):
            build.decide(trainer)
        if build.is_needed is not False:
            try:
                trainer.predict(_Encoding(self.encoder, work, build), return_predictions=False)
                build.finish(trainer)
            except BaseException:
                build.abandon(trainer)
                raise
            stop_if_asked(f"after encoding {work.words}")
        return self.cache.read(wanted)


class _Build:
    """The making of one entry, decided by the first process and done by all."""

    def __init__(self, cache: FeatureCache, wanted: Wanted, arrays: dict[str, Tensor]) -> None:
        self.cache, self.wanted, self.arrays = cache, wanted, arrays
        self.is_needed: bool | None = None
        self.part: Path | None = None
        self.writer: PartWriter | None = None
        self.failure = ""

    def decide(self, trainer: Trainer) -> None:
        """Look whether the entry is there, and make room for it otherwise; the processes are up by now."""
        if self.is_needed is not None:
            return
        part, failure = None, ""
        if trainer.is_global_zero and not self.cache.find(self.wanted):
            try:
                part = self.cache.begin(self.wanted)
            except UserError as error:
                failure = str(error)
        part, failure = _from_first((part, failure))
        if failure:
            raise UserError(failure)
        self.is_needed, self.part = part is not None, part

    def rows(self, trainer: Trainer) -> Tensor:
        """Return this process's rows."""
        count = self.wanted.shape[0] if self.is_needed else 0
        return torch.arange(trainer.global_rank, count, trainer.world_size)

    def open(self, trainer: Trainer) -> None:
        """Open this process's part of the entry."""
        if self.part is not None:
            shape = (len(self.rows(trainer)), *self.wanted.shape[1:])
            with self.watched():
                self.writer = PartWriter(self.part / f"part-{trainer.global_rank}.npy", shape, self.wanted.dtype)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Keep a UserError until all can hear of it: a process that stopped alone would leave the others waiting."""
        try:
            yield
        except UserError as error:
            self.failure = self.failure or str(error)

    def finish(self, trainer: Trainer) -> None:
        """Move the entry to its place, or remove what there is of it when a process failed, and say why."""
        if self.part is None:
            return
        if self.writer is not None:
            with self.watched():
                self.writer.close()
        failure = next(filter(None, _from_all(self.failure)), "")
        if trainer.is_global_zero:
            if not failure:
                failure = self._commit(trainer.world_size)
            if failure:
                self.cache.discard(self.part)
        failure = _from_first(failure)
        if failure:
            raise UserError(failure)

    def _commit(self, processes: int) -> str:
        assert self.part is not None
        try:
            self.cache.commit(self.wanted, self.part, self.arrays, processes)
        except UserError as error:
            return str(error)
        return ""

    def abandon(self, trainer: Trainer) -> None:
        """Leave nothing half-written behind."""
        if self.part is not None and trainer.is_global_zero:
            self.cache.discard(self.part)


class _Encoding(LightningModule):
    """Runs an encoder over this process's rows and writes what comes out."""

    def __init__(self, encoder: DualEncoder, work: Work, build: _Build) -> None:
        super().__init__()
        self.encoder, self.work, self.build = encoder, work, build

    def setup(self, stage: str) -> None:
        """Decide, once all processes can be asked."""
        self.build.decide(self.trainer)
        self.build.open(self.trainer)

    def predict_dataloader(self) -> _Batches:
        """Serve this process's rows; none where the entry is there already."""
        return _Batches(self.work, self.build, self.build.rows(self.trainer))

    def predict_step(self, batch: Any, batch_idx: int) -> None:
        """Encode a batch and append its features to this process's part."""
        if self.build.writer is not None and not self.build.failure:
            with self.build.watched():
                self.build.writer.write(self.work.encode(self.encoder, batch))


class _Batches:
    """Batches of one process; ends early where one cannot be read."""

    def __init__(self, work: Work, build: _Build, rows: Tensor) -> None:
        self.work, self.build = work, build
        self.parts = list(torch.split(rows, work.rows_at_once)) if len(rows) else []

    def __len__(self) -> int:
        return len(self.parts)

    def __iter__(self) -> Iterator[Any]:
        with self.build.watched():
            yield from self.work.batches(self.parts)


class _Views(Dataset[ViewBatch]):
    def __init__(self, samples: Samples, maker: ViewMaker) -> None:
        self.samples, self.maker = samples, maker

    def __getitem__(self, rows: Tensor) -> ViewBatch:
        part = self.samples.select(rows)
        images = part.images
        opened = images if isinstance(images, Tensor) else [open_image(images, row) for row in range(len(part))]
        return ViewBatch(self.maker.read(opened, part.sources), part.sources)


class _Bar(Callback):
    """A line that moves while something is encoded, where standard error is a terminal."""

    def __init__(self, words: str) -> None:
        console = Console(stderr=True)
        columns = (TextColumn(f"encoding {words}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw it on the first process."""
        if trainer.is_global_zero:
            self.bar.add_task("", total=sum(trainer.num_predict_batches))
            self.bar.start()

    def on_predict_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Move it."""
        if trainer.is_global_zero:
            self.bar.advance(self.bar.task_ids[0])

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take it away."""
        self.bar.stop()

    def on_exception(self, *_: Any) -> None:
        """Take it away, too."""
        self.bar.stop()


def _from_first(value: Any) -> Any:
    """Return the first process's value."""
    values = [value]
    if _are_several():
        dist.broadcast_object_list(values, src=0)
    return values[0]


def _from_all(value: Any) -> list[Any]:
    """Return the values of all processes in order."""
    if not _are_several():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def _are_several() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
