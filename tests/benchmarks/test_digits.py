from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning import LightningModule, Trainer

from mmcl.benchmarks.class_incremental import ClassIncrementalBenchmarkConfig
from mmcl.benchmarks.digits import Digits
from mmcl.errors import UserError
from mmcl.protocol import Batch

CONFIG = ClassIncrementalBenchmarkConfig(
    _target_="mmcl.benchmarks.digits.Digits",
    name="digits",
    data="unused",
    base=0,
    increment=2,
    order_seed=1993,
    class_order=None,
    exact=False,
    workers=0,
    steps_per_block=3,
)


def batches(digits: Digits, epoch: int) -> list[Batch]:
    loader: Any = digits.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return [batch for block in loader for batch in digits.on_after_batch_transfer(block, 0)]


def test_tasks_partition_the_classes() -> None:
    digits = Digits(replace(CONFIG, base=4, increment=4))
    assert digits.task_sizes == [4, 4, 2]
    last = digits.task(2)
    assert (last.known, last.seen, last.size) == (8, 10, 2)
    assert last.train.labels.unique().tolist() == [8, 9]
    assert last.test.labels.unique().tolist() == list(range(10))
    assert len(last.past()) + len(last.train) == 1442
    assert len(last.test) == 355
    assert len(digits.task(0).past()) == 0


def test_samples_lie_by_class_in_the_order_of_the_data_set() -> None:
    task = Digits(replace(CONFIG, increment=10)).task(0)
    assert torch.equal(task.train.labels, task.train.labels.sort().values)
    for label in range(10):
        sources = task.train.sources[task.train.labels == label]
        assert torch.equal(sources, sources.sort().values)


def test_class_names_follow_a_given_order() -> None:
    given = [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]
    digits = Digits(replace(CONFIG, class_order=given))
    assert digits.class_names == [str(label) for label in given]
    natural = Digits(replace(CONFIG, class_order=list(range(10)), increment=10)).task(0).train
    threes = natural.images[natural.labels == 3]
    train = digits.task(0).train
    assert torch.equal(train.images[train.labels == 0], threes)


def test_training_serves_every_sample_once_and_repeats_exactly() -> None:
    digits = Digits(CONFIG)
    train = digits.task(1).train
    digits.serve_training(train, 32, (1993, 1, "main"))
    first = batches(digits, epoch=4)
    served = torch.cat([batch.sources for batch in first])
    assert torch.equal(served.sort().values, train.sources.sort().values)
    assert [len(batch.labels) for batch in first] == [32] * (len(train) // 32) + [len(train) % 32]
    again = batches(digits, epoch=4)
    assert all(torch.equal(one.images, two.images) for one, two in zip(first, again, strict=True))
    assert not torch.equal(first[0].images, batches(digits, epoch=5)[0].images)


def test_block_length_and_exact_mode_change_no_pixel() -> None:
    streams = []
    for config in (CONFIG, replace(CONFIG, steps_per_block=50), replace(CONFIG, exact=True)):
        digits = Digits(config)
        digits.serve_training(digits.task(0).train, 64, (1993, 0, "main"))
        streams.append(torch.cat([batch.images for batch in batches(digits, epoch=0)]))
    assert torch.equal(streams[0], streams[1])
    assert torch.equal(streams[0], streams[2])


def test_plain_batches_keep_order_and_equal_the_test_loader() -> None:
    digits = Digits(CONFIG)
    digits.plain_batch_size = 50
    task = digits.task(1)
    plain = list(task.plain_batches(task.test, torch.device("cpu")))
    assert torch.equal(torch.cat([batch.labels for batch in plain]), task.test.labels)
    digits.serve_test(task.test)
    served = [digits.on_after_batch_transfer(batch, 0) for batch in digits.test_dataloader()]
    assert torch.equal(served[-1].images, plain[-1].images)
    assert [len(batch.labels) for batch in served] == [len(batch.labels) for batch in plain]


def test_two_processes_share_the_test_samples_without_padding() -> None:
    digits = Digits(CONFIG)
    test = digits.task(1).test
    digits.serve_test(test)
    for rank in (0, 1):
        digits.trainer = SimpleNamespace(global_rank=rank, world_size=2)  # type: ignore[assignment]
        served = torch.cat([batch.sources for batch in digits.test_dataloader()])
        assert torch.equal(served, test.sources[rank::2])


def test_several_processes_get_one_step_a_block() -> None:
    digits = Digits(CONFIG)
    digits.serve_training(digits.task(1).train, 20, (1993, 1, "main"))
    whole = batches(digits, epoch=0)
    digits.trainer = SimpleNamespace(global_rank=1, world_size=2)  # type: ignore[assignment]
    loader: Any = digits.train_dataloader()
    assert [len(block.sizes) for block in loader] == [1] * len(whole)
    halves = batches(digits, epoch=0)
    for half, full in zip(halves, whole, strict=True):
        assert torch.equal(half.images, full.images[1::2])


class Recorder(LightningModule):
    """Records what Lightning's loops hand over."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.sources: list[list[int]] = []
        self.tested = 0

    def training_step(self, block: Any, index: int) -> None:
        self.sources += [batch.sources.tolist() for batch in block]

    def test_step(self, batch: Batch, index: int) -> None:
        self.tested += len(batch.labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_lightning_serves_the_same_steps() -> None:
    digits, recorder = Digits(CONFIG), Recorder()
    task = digits.task(0)
    digits.serve_training(task.train, 64, (1993, 0, "main"))
    digits.serve_test(task.test)
    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        devices=1,
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(recorder, datamodule=digits)
    trainer.test(recorder, datamodule=digits, verbose=False)
    expected = [batch.sources.tolist() for epoch in (0, 1) for batch in batches(digits, epoch)]
    assert recorder.sources == expected
    assert recorder.tested == len(task.test)


@pytest.mark.parametrize(
    ("change", "key"),
    [({"increment": 0}, "increment"), ({"steps_per_block": 0}, "steps_per"), ({"workers": -1}, "work")],
)
def test_impossible_values_name_the_key(change: dict[str, int], key: str) -> None:
    with pytest.raises(UserError, match=f"benchmark.{key}"):
        Digits(replace(CONFIG, **change)).setup()  # type: ignore[arg-type]
