"""What comes as float values, or as features under views, is served as it is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from mmcl.protocol import Batch, FeatureBatch, ImageFeatures, Samples
from tests.methods.toy import ToyBenchmark

CPU = torch.device("cpu")


def batches(benchmark: ToyBenchmark, epoch: int = 0) -> list[Any]:
    loader: Any = benchmark.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return [batch for block in loader for batch in benchmark.on_after_batch_transfer(block, 0)]


def float_samples(*shape: int) -> Samples:
    count = shape[0]
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(1))
    return Samples(values, torch.arange(count) % 3, torch.arange(count) + 100)


def test_float_values_are_neither_augmented_nor_normalised() -> None:
    benchmark = ToyBenchmark()
    for samples in (float_samples(10, 3, 8, 8), float_samples(10, 5)):
        benchmark.serve_training(samples, 4, (0, 0, "main"))
        served = batches(benchmark)
        assert [len(batch.labels) for batch in served] == [4, 4, 2]
        for batch in served:
            assert isinstance(batch, Batch)
            rows = batch.sources - 100
            assert torch.equal(batch.images, samples.images[rows])  # type: ignore[index]
            assert torch.equal(batch.labels, samples.labels[rows])
        (plain,) = benchmark.plain_batches(samples, CPU)
        assert torch.equal(plain.images, samples.images)  # type: ignore[arg-type]
        benchmark.serve_test(samples)
        (tested,) = benchmark.test_dataloader()
        assert torch.equal(benchmark.on_after_batch_transfer(tested, 0).images, samples.images)


def test_pixels_are_still_normalised() -> None:
    benchmark = ToyBenchmark()
    train = benchmark.task(0).train
    (plain,) = benchmark.plain_batches(train, CPU)
    torch.testing.assert_close(plain.images, (train.images / 255 - 0.5) / 0.25)  # type: ignore[operator]


def test_the_epoch_chooses_the_view_of_features() -> None:
    benchmark = ToyBenchmark()
    features = torch.randn(6, 3, 4).half()
    images = ImageFeatures(features, torch.arange(6), torch.arange(6) + 10)
    benchmark.serve_training(images, 4, (0, 0, "alignment"))
    for epoch, view in ((0, 0), (2, 2), (4, 1)):
        served = batches(benchmark, epoch)
        assert [len(batch.labels) for batch in served] == [4, 2]
        for batch in served:
            assert isinstance(batch, FeatureBatch)
            assert batch.features.dtype == torch.float32
            assert torch.equal(batch.features[:, 0], features[batch.labels, view].float())


def test_processes_share_the_batches_of_features() -> None:
    benchmark = ToyBenchmark()
    benchmark.serve_training(ImageFeatures(torch.randn(5, 1, 4), torch.arange(5), torch.arange(5)), 4, (0, 0, "main"))
    whole = batches(benchmark)
    benchmark.trainer = SimpleNamespace(global_rank=1, world_size=2)  # type: ignore[assignment]
    parts = batches(benchmark)
    assert torch.equal(parts[0].labels, whole[0].labels[1::2])
    assert parts[0].share == 1.0
    assert (parts[1].share, len(parts[1].labels)) == (0.0, 1)


def test_pixels_after_features_are_served_as_pixels() -> None:
    benchmark = ToyBenchmark()
    benchmark.serve_training(ImageFeatures(torch.randn(5, 1, 4), torch.arange(5), torch.arange(5)), 4, (0, 0, "main"))
    benchmark.serve_training(benchmark.task(0).train, 4, (0, 0, "main"))
    assert batches(benchmark)[0].images.shape == (4, 3, 8, 8)
