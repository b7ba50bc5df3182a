"""Float pixels, and images of several kinds in one order: as samples, and as the loaders serve them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mmcl.benchmarks.augmentation import Augmentation
from mmcl.benchmarks.class_incremental import ClassIncrementalBenchmark
from mmcl.benchmarks.files import open_image
from mmcl.benchmarks.image_folder import ImageFolder, ImageFolderConfig
from mmcl.benchmarks.transforms import BILINEAR, crop_transforms
from mmcl.images import FileImages, FloatPixels, Images, MixedImages
from mmcl.protocol import Batch, Samples
from tests.benchmarks.test_image_folder import CONFIG, paint
from tests.methods.toy import ToyBenchmark

CPU = torch.device("cpu")
DRAW = (7, 1, "main")


def identities(images: Images) -> list[str]:
    """Name each image so that kind and content show; the number in a name is what :func:`part` was given."""
    if isinstance(images, MixedImages):
        named = [identities(one) for one in images.parts]
        return [named[number][place] for number, place in zip(images.part_of, images.places, strict=True)]
    if isinstance(images, FileImages):
        return [f"file {path}" for path in images.paths]
    if isinstance(images, FloatPixels):
        return [f"float {value}" for value in images.values[:, 0, 0, 0].tolist()]
    return [f"uint8 {value}" for value in images[:, 0, 0, 0].tolist()]


def part(kind: str, numbers: list[int]) -> Samples:
    pixels = torch.tensor(numbers, dtype=torch.float32)[:, None, None, None].expand(-1, 3, 2, 2)
    images: dict[str, Images] = {
        "uint8": pixels.to(torch.uint8),
        "float": FloatPixels(pixels + 0.25),
        "file": FileImages(Path("/root"), tuple(f"{number}.png" for number in numbers)),
    }
    return Samples(images[kind], torch.tensor(numbers, dtype=torch.int64) % 3, torch.tensor(numbers, dtype=torch.int64))


Numbers = st.lists(st.integers(0, 200), max_size=5)
Parts = st.lists(st.tuples(st.sampled_from(["uint8", "float", "file"]), Numbers), min_size=1, max_size=5)


@given(Parts, st.data())
def test_joining_and_selecting_are_those_of_a_list(kinds: list[tuple[str, list[int]]], data: st.DataObject) -> None:
    parts = [part(kind, numbers) for kind, numbers in kinds]
    whole = Samples.concatenate(parts)
    names = [name for one in parts for name in identities(one.images)]
    assert identities(whole.images) == names
    assert len(whole.images) == len(whole) == len(names)
    rows = data.draw(st.lists(st.integers(0, len(names) - 1), max_size=8) if names else st.just([]))
    chosen = whole.select(torch.tensor(rows, dtype=torch.int64))
    assert identities(chosen.images) == [names[row] for row in rows]
    assert chosen.sources.tolist() == [whole.sources[row] for row in rows]
    # chosen a second time, and joined to what it was chosen from
    assert identities(chosen.select(torch.arange(len(rows)).flip(0)).images) == [names[row] for row in reversed(rows)]
    again = Samples.concatenate([chosen, whole])
    assert identities(again.images) == [names[row] for row in rows] + names
    if isinstance(again.images, MixedImages):
        assert all(len(one) for one in again.images.parts)
        assert len({name.split()[0] for name in names}) == len(again.images.parts)


@given(Parts)
def test_only_images_of_several_kinds_are_mixed(kinds: list[tuple[str, list[int]]]) -> None:
    whole = Samples.concatenate([part(kind, numbers) for kind, numbers in kinds]).images
    present = {kind for kind, numbers in kinds if numbers}
    assert isinstance(whole, MixedImages) == (len(present) > 1)
    if not isinstance(whole, FileImages) and "file" not in present:
        bytes_each = {"uint8": 12, "float": 48, "file": 0}
        assert whole.nbytes == sum(bytes_each[kind] * len(numbers) for kind, numbers in kinds)


def test_uint8_pixels_of_two_sizes_are_mixed_and_final_values_are_not() -> None:
    small, large = (torch.zeros(2, 3, size, size, dtype=torch.uint8) for size in (2, 4))
    labels = torch.zeros(2, dtype=torch.int64)
    mixed = Samples.concatenate([Samples(images, labels, labels) for images in (small, large, small)]).images
    assert isinstance(mixed, MixedImages)
    assert [len(one) for one in mixed.parts] == [4, 2]
    values = Samples(torch.zeros(2, 3, 4, 4), labels, labels)
    with pytest.raises(TypeError, match="served as they are"):
        Samples.concatenate([Samples(large, labels, labels), values])
    assert torch.equal(Samples.concatenate([values, values]).images, torch.zeros(4, 3, 4, 4))  # type: ignore[arg-type]


def batches(benchmark: ClassIncrementalBenchmark, epoch: int = 0) -> list[Batch]:
    loader: Any = benchmark.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return [batch for item in loader for batch in benchmark.on_after_batch_transfer(item, 0)]


def by_source(served: list[Batch]) -> torch.Tensor:
    sources = torch.cat([batch.sources for batch in served])
    return torch.cat([batch.images for batch in served])[sources.argsort()]


def as_floats(samples: Samples, added: float = 0.0) -> Samples:
    return replace(samples, images=FloatPixels(samples.images.float() + added))  # type: ignore[union-attr]


def halves(samples: Samples) -> tuple[Samples, Samples]:
    rows = torch.arange(len(samples))
    return samples.select(rows[rows % 2 == 0]), samples.select(rows[rows % 2 == 1])


@pytest.mark.parametrize("exact", [False, True])
def test_whole_float_pixels_are_served_as_uint8_pixels_are(exact: bool) -> None:
    toy = ToyBenchmark()
    toy.config.exact = exact
    toy.augmentation = Augmentation(pad=2, flip=True, brightness=0.0)
    train = toy.task(0).train
    even, odd = halves(train)
    mixed = Samples.concatenate([even, as_floats(odd)])
    assert isinstance(mixed.images, MixedImages)
    served = []
    for samples in (train, as_floats(train), mixed):
        toy.serve_training(samples, 5, DRAW)
        served.append((by_source(batches(toy, 3)), by_source(list(toy.plain_batches(samples, CPU)))))
    for trained, plain in served[1:]:
        assert torch.equal(trained, served[0][0])
        assert torch.equal(plain, served[0][1])
    toy.serve_test(mixed)
    tested = [toy.on_after_batch_transfer(batch, 0) for batch in toy.test_dataloader()]
    assert torch.equal(by_source(tested), served[0][1])


def test_float_pixels_are_neither_rounded_nor_clamped() -> None:
    toy = ToyBenchmark()
    toy.augmentation = Augmentation(pad=0, flip=False, brightness=0.0)
    samples = as_floats(toy.task(0).train, added=190.375)
    assert samples.images.values.max() > 255  # type: ignore[union-attr]
    toy.serve_training(samples, 64, DRAW)
    expected = toy.pixel_scale.normalise(samples.images.values)  # type: ignore[union-attr]
    assert torch.equal(by_source(batches(toy)), expected)
    toy.augmentation = Augmentation(pad=0, flip=False, brightness=0.5)
    toy.serve_training(samples, 64, DRAW)
    brightened = toy.pixel_scale.denormalise(by_source(batches(toy))) / samples.images.values  # type: ignore[union-attr]
    factors = brightened.mean(dim=(1, 2, 3))
    torch.testing.assert_close(brightened, factors[:, None, None, None].expand_as(brightened), rtol=1e-4, atol=0)
    assert factors.max() > 1.2


@pytest.mark.parametrize("kind", ["mixed", "float"])
def test_two_processes_share_the_batches_of_one(kind: str) -> None:
    toy = ToyBenchmark()
    even, odd = halves(toy.task(0).train)
    samples = Samples.concatenate([even, as_floats(odd)]) if kind == "mixed" else as_floats(toy.task(0).train)
    assert_shared(toy, samples)


def assert_shared(benchmark: ClassIncrementalBenchmark, samples: Samples) -> None:
    """Compare the batches and test samples of one process with those of two."""
    benchmark.serve_training(samples, 5, DRAW)
    benchmark.serve_test(samples)
    whole = batches(benchmark, 1)
    tested = by_source([benchmark.on_after_batch_transfer(batch, 0) for batch in benchmark.test_dataloader()])
    parts = []
    for rank in (0, 1):
        benchmark.trainer = SimpleNamespace(global_rank=rank, world_size=2)  # type: ignore[assignment]
        share = batches(benchmark, 1)
        assert [len(batch.labels) for batch in share] == [len(batch.labels[rank::2]) or 1 for batch in whole]
        for one, all_ in zip(share, whole, strict=True):
            if one.share:
                assert torch.equal(one.images, all_.images[rank::2])
                assert torch.equal(one.sources, all_.sources[rank::2])
        parts += [benchmark.on_after_batch_transfer(batch, 0) for batch in benchmark.test_dataloader()]
    assert torch.equal(by_source(parts), tested)


@pytest.mark.parametrize("kind", ["uint8", "float", "mixed"])
def test_augmented_batches_are_in_order_and_keyed_by_the_image(kind: str) -> None:
    toy = ToyBenchmark()
    task = toy.task(0)
    even, odd = halves(task.train)
    samples = {
        "uint8": task.train,
        "float": as_floats(task.train),
        "mixed": Samples.concatenate([even, as_floats(odd)]),
    }
    asked = samples[kind]
    served = list(task.augmented_batches(asked, 7, DRAW, CPU))
    assert [len(batch.labels) for batch in served] == [7, 7, 7, 3]
    assert torch.equal(torch.cat([batch.sources for batch in served]), asked.sources)
    assert torch.equal(torch.cat([batch.labels for batch in served]), asked.labels)
    toy.serve_training(asked, 5, DRAW)
    assert torch.equal(by_source(batches(toy)), by_source(served))
    other = list(task.augmented_batches(asked, 7, (*DRAW, 1), CPU))
    assert not torch.equal(other[0].images, served[0].images)
    assert list(task.augmented_batches(asked.select(torch.arange(0)), 7, DRAW, CPU)) == []


# New data in files


@pytest.fixture
def folders(tmp_path: Path) -> ImageFolder:
    """Two classes with 4 training images and 1 test image, seen at 12 pixels a side."""
    for label, name in enumerate(("ant", "bee")):
        for number in range(5):
            paint(tmp_path / "tiny" / ("train" if number < 4 else "val") / name / f"{number}.png", 10 * label + number)
    config = replace(CONFIG, data=str(tmp_path), class_order=[0, 1], increment=1, brightness=0.4)
    assert isinstance(config, ImageFolderConfig)
    return ImageFolder(config)


def kept(benchmark: ImageFolder, kind: str) -> Samples:
    """Return the first class as a memory at the size that the network sees: smooth, so that resizing rounds little."""
    task = benchmark.task(0)
    slope = torch.linspace(40, 160, 12)
    pixels = (slope[:, None] + slope / 8 + 5 * torch.arange(4)[:, None, None]).round()[:, None].repeat(1, 3, 1, 1)
    whole = pixels.to(torch.uint8)
    return replace(task.train, images=whole if kind == "uint8" else FloatPixels(whole.float()))


@pytest.mark.parametrize("kind", ["uint8", "float"])
def test_a_kept_image_gets_the_random_transform_of_a_decoded_image(folders: ImageFolder, kind: str) -> None:
    memory = kept(folders, kind)
    fresh = folders.task(1).train
    whole = Samples.concatenate([fresh, memory])
    assert isinstance(whole.images, MixedImages)
    folders.serve_training(whole, 3, DRAW)
    served = batches(folders, 2)
    expected = torch.cat(
        [reference(folders, samples) for samples in (kept(folders, "uint8"), fresh)]
    )  # by source: class 0 comes first
    sources = torch.cat([batch.sources for batch in served])
    assert torch.equal(sources.sort().values, torch.arange(8))
    grey = 1 / (255 * min(folders.std))
    found = by_source(served)
    torch.testing.assert_close(found[4:], expected[4:], rtol=0, atol=1e-6)
    torch.testing.assert_close(found[:4], expected[:4], rtol=0, atol=0 if kind == "uint8" else 2.5 * grey)


def reference(benchmark: ImageFolder, samples: Samples, epoch: int = 2) -> torch.Tensor:
    """Return what the training transform makes of images one by one, all of one kind."""
    benchmark.serve_training(samples, 8, DRAW)
    return by_source(batches(benchmark, epoch))


@pytest.mark.parametrize("kind", ["uint8", "float"])
def test_a_kept_image_is_its_own_plain_view(folders: ImageFolder, kind: str) -> None:
    memory, fresh = kept(folders, kind), folders.task(1).train
    whole = Samples.concatenate([fresh, memory])
    (plain,) = folders.plain_batches(whole, CPU)
    (new,) = folders.plain_batches(fresh, CPU)
    assert torch.equal(plain.images[:4], new.images)
    values = memory.images.values if isinstance(memory.images, FloatPixels) else memory.images
    assert torch.equal(plain.images[4:], folders.pixel_scale.normalise(values))  # type: ignore[arg-type]
    assert torch.equal(plain.labels, torch.cat([fresh.labels, memory.labels]))
    (alone,) = folders.plain_batches(memory, CPU)
    assert torch.equal(alone.images, plain.images[4:])


@pytest.mark.parametrize("kind", ["uint8", "float"])
def test_workers_and_processes_change_nothing(folders: ImageFolder, kind: str) -> None:
    whole = Samples.concatenate([folders.task(1).train, kept(folders, kind)])
    assert_shared(folders, whole)
    folders.trainer = None
    streams = []
    for workers in (0, 2):
        folders.config.workers = workers
        served = list(folders.task(0).augmented_batches(whole, 3, DRAW, CPU))
        assert torch.equal(torch.cat([batch.sources for batch in served]), whole.sources)
        streams.append(by_source(served))
    assert torch.equal(streams[0], streams[1])
    folders.serve_training(whole, 5, DRAW)
    assert torch.equal(by_source(batches(folders)), streams[0])


def test_pixels_that_a_data_set_holds_are_still_enlarged(folders: ImageFolder) -> None:
    """A data set in memory whose images are smaller than what the network sees is no memory of kept images."""

    class Enlarged(ToyBenchmark):
        def image_transforms(self) -> Any:
            return crop_transforms(12, 16, 0.2, BILINEAR)

    toy = Enlarged()
    train = toy.task(0).train
    (plain,) = toy.plain_batches(train, CPU)
    assert plain.images.shape == (24, 3, 12, 12)
    large = replace(train, images=torch.full((24, 3, 12, 12), 7, dtype=torch.uint8))
    (both,) = toy.plain_batches(Samples.concatenate([train, large]), CPU)
    assert torch.equal(both.images[:24], plain.images)
    assert torch.equal(both.images[24:], toy.pixel_scale.normalise(large.images))  # type: ignore[arg-type]


def test_the_training_transform_neither_rounds_nor_clamps_float_pixels() -> None:
    transform = crop_transforms(12, 16, 0.4, BILINEAR).train
    values = torch.full((3, 20, 18), 300.25)
    torch.manual_seed(3)
    brightened = transform(values)
    torch.manual_seed(3)
    grey = transform(Image.fromarray(np.full((20, 18, 3), 100, np.uint8)))
    assert brightened.shape == (3, 12, 12)
    factor = (brightened / 300.25).mean()
    assert 100 * factor == pytest.approx(float(grey.float().mean()), abs=1)
    assert factor != 1
    torch.testing.assert_close(brightened, factor * values[:, :12, :12])


def test_an_image_of_a_mixture_can_be_opened() -> None:
    pixels = part("uint8", [3, 4])
    mixed = Samples.concatenate([part("float", [1]), pixels]).images
    assert open_image(mixed, 2).getpixel((0, 0)) == (4, 4, 4)
    with pytest.raises(TypeError, match="round and clamp"):
        open_image(mixed, 0)
