"""Online streams: windows in order, blocks of steps, what is asked after each window, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning import Trainer

from mmcl.benchmarks.online import OnlineBenchmark, OnlineBenchmarkConfig, OnlineStream, check_stream
from mmcl.errors import UserError
from mmcl.protocol import EvaluationBatch, FeatureBatch, StreamSamples

CONFIG = OnlineBenchmarkConfig(
    _target_="", name="made_up", data="", batch_size=1, evaluate=["test", "validation"], steps_per_block=4
)
CLASSES = 3


def samples(sizes: list[int], first: float = 0.0) -> StreamSamples:
    """Return one-dimensional samples that count upwards from ``first``."""
    distributions = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes, dtype=torch.int64))
    values = first + torch.arange(len(distributions), dtype=torch.float32)
    return StreamSamples(values[:, None], torch.arange(len(distributions)) % CLASSES, distributions)


def made_up(sizes: list[int]) -> OnlineStream:
    """Return a stream whose validation has only half of its distributions."""
    half = max(1, len(sizes) // 2)
    return OnlineStream(
        train=samples(sizes),
        validation=samples([2] * half, 100.0),
        test=samples([3] * len(sizes), 200.0),
        class_names=["a", "b", "c"],
        distribution_names=[f"part {number}" for number in range(len(sizes))],
    )


class MadeUp(OnlineBenchmark):
    """A stream that is given."""

    def __init__(self, config: OnlineBenchmarkConfig, stream: OnlineStream) -> None:
        super().__init__(config)
        self.given = stream
        self.readings = 0

    def read(self) -> OnlineStream:
        self.readings += 1
        return self.given


def benchmark(sizes: list[int], **changes: Any) -> MadeUp:
    return MadeUp(replace(CONFIG, **changes), made_up(sizes))


def served(stream: MadeUp, index: int) -> list[list[FeatureBatch]]:
    """Return the training batches of a window, block by block."""
    task = stream.task(index)
    stream.serve_training(task.train, task.batch_size, (0, index))
    return [list(stream.on_after_batch_transfer(block, 0)) for block in stream.train_dataloader()]


def asked(stream: MadeUp, index: int) -> list[EvaluationBatch]:
    stream.serve_evaluation(index)
    return list(stream.test_dataloader())


@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(1, 4), st.integers(1, 3))
def test_windows_serve_the_stream_once_and_in_order(sizes: list[int], batch_size: int, steps: int) -> None:
    made = benchmark(sizes, batch_size=batch_size, steps_per_block=steps)
    found = []
    for index, size in enumerate(sizes):
        blocks = served(made, index)
        assert all(len(block) == steps for block in blocks[:-1])
        batches = [batch for block in blocks for batch in block]
        assert [len(batch.labels) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
        assert sum(len(batch.labels) for batch in batches) == size
        assert all(batch.share == 1 for batch in batches)
        found += batches
    train = made.stream.train
    assert torch.equal(torch.cat([batch.features for batch in found])[:, 0], train.features)
    assert torch.equal(torch.cat([batch.labels for batch in found]), train.labels)
    assert torch.equal(torch.cat([batch.sources for batch in found]), torch.arange(len(train)))


def test_a_window_knows_all_classes_and_its_name() -> None:
    made = benchmark([2, 3, 4])
    task = made.task(1)
    assert (task.index, task.known, task.seen, task.name) == (1, 0, CLASSES, "part 1")
    assert made.task_sizes == [CLASSES] * 3
    assert made.dimension == 1
    assert made.readings == 1


def test_validation_is_not_asked_beyond_its_distributions() -> None:
    made = benchmark([2, 2, 2, 2])
    names = [[batch.evaluation for batch in asked(made, index)] for index in range(4)]
    assert names == [["test", "validation"]] * 2 + [["test"]] * 2
    test = asked(made, 3)[0]
    assert torch.equal(test.features, made.stream.test.features)
    assert torch.equal(test.distributions, made.stream.test.distributions)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_processes_share_what_is_asked_and_repeat_nothing(world: int) -> None:
    made = benchmark([1, 1], evaluate=["validation", "test"])
    found: dict[str, list[float]] = {"validation": [], "test": []}
    for rank in range(world):
        made.trainer = cast(Trainer, SimpleNamespace(global_rank=rank, world_size=world))
        for batch in asked(made, 0):
            found[batch.evaluation] += batch.features[:, 0].tolist()
    assert {name: sorted(values) for name, values in found.items()} == {
        name: values.features[:, 0].tolist() for name, values in made.evaluations().items()
    }


def test_every_process_trains_on_the_whole_stream() -> None:
    made = benchmark([5])
    made.trainer = cast(Trainer, SimpleNamespace(global_rank=1, world_size=2))
    assert sum(len(block) for block in served(made, 0)) == 5


def test_questions_come_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MadeUp, "evaluation_batch_size", 4)
    made = benchmark([1, 1])
    assert [len(batch.labels) for batch in asked(made, 0)] == [4, 2, 2]
    assert len(made.test_dataloader()) == 3  # type: ignore[arg-type]


# What is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "benchmark.batch_size=0: must be at least 1"),
        ({"steps_per_block": 0}, "benchmark.steps_per_block=0"),
        ({"evaluate": ["tset"]}, "unknown samples 'tset'.*Did you mean 'test'"),
        ({"evaluate": ["train"]}, "test must be among them"),
    ],
)
def test_keys_that_serve_nothing_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        replace(CONFIG, **changes)


def changed(part: str, name: str, values: torch.Tensor) -> OnlineStream:
    stream = made_up([2, 2])
    return replace(stream, **{part: replace(getattr(stream, part), **{name: values})})


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (changed("test", "features", torch.full((6, 1), torch.nan)), "test sample 0 has a value"),
        (changed("train", "features", torch.full((4, 1), torch.inf)), "train sample 0 has a value"),
        (changed("validation", "labels", torch.tensor([0, 3])), r"validation sample 1 is 3: expected 0 to 2"),
        (changed("test", "distributions", torch.tensor([0, 1, 2, 0, 1, 1])), "test sample 2 is 2: expected 0 to 1"),
        (changed("train", "distributions", torch.tensor([0, 1, 0, 1])), "one after the other"),
        (changed("train", "distributions", torch.tensor([1, 1, 1, 1])), "must begin with 0"),
        (changed("train", "distributions", torch.tensor([0, 0, 0, 0])), "1 distributions, but 2 names"),
        (replace(made_up([1]), train=samples([])), "no train samples"),
    ],
)
def test_a_stream_that_a_learner_would_choke_on_is_refused(stream: OnlineStream, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_stream(stream)
    with pytest.raises(UserError, match=message):
        MadeUp(CONFIG, stream).setup()
