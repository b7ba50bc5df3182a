"""Non-stationary mini-ImageNet on made-up files of its layout, behind a network of a few numbers."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import get_worker_info

from mmcl.backbones.feature_backbone import FeatureBackbone
from mmcl.benchmarks.ns_imagenet import FILES, MEAN, STD, NsImageNet, NsImageNetConfig
from mmcl.benchmarks.ns_imagenet_images import DOMAINS, NoisyImages, Size, enlarged, noise_of, split_samples, with_noise
from mmcl.engine.frozen_net import CachedNet, frozen_net, weights_digest
from mmcl.errors import MissingFileError, UserError
from mmcl.features.cache import FeatureCache
from mmcl.features.pixel_job import PixelJob
from mmcl.pixels import normalise
from tests.engine.encoder import trainer_config

SIDE, PER_CLASS, CLASSES = 12, 10, [2, 1, 1]
CONFIG = NsImageNetConfig(
    _target_="mmcl.benchmarks.ns_imagenet.NsImageNet",
    name="ns_imagenet",
    data="",
    batch_size=1,
    evaluate=["test", "validation"],
    steps_per_block=50,
    noise_seed=0,
    classes_of_files=CLASSES,
    per_class=PER_CLASS,
    image_size=16,
    workers=0,
    encode_batch_size=32,
)


class SmallNet(FeatureBackbone):
    """Projects pixels; counts the images that it has seen."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(5)
        generator = torch.Generator().manual_seed(seed)
        self.across = nn.Parameter(torch.randn(3 * 16 * 16, 5, generator=generator) / 16)
        self.seen = 0

    def forward(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        return images.flatten(1) @ self.across


def pixels(number: int) -> np.ndarray[Any, Any]:
    count = CLASSES[number] * PER_CLASS
    return np.random.default_rng(number).integers(0, 256, (count, SIDE, SIDE, 3)).astype(np.uint8)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "mini_imagenet"
    folder.mkdir(parents=True)
    for number, name in enumerate(FILES):
        names = {f"n{number}": list(range(PER_CLASS)), "last": np.int64(3)}
        entry = {"image_data": pixels(number), "class_dict": names}
        (folder / name).write_bytes(pickle.dumps(entry, protocol=2))
    return folder.parent


def behind(cache: Path, net: SmallNet) -> CachedNet:
    return CachedNet(net, FeatureCache(cache), trainer_config())


def connected(data: Path, net: SmallNet, **changes: Any) -> NsImageNet:
    benchmark = NsImageNet(replace(CONFIG, data=str(data), **changes))
    benchmark.prepare_data()
    benchmark.setup()  # as the engine does, before there is a network
    benchmark.connect(behind(data.parent / "cache", net))
    return benchmark


def test_the_stream_goes_through_domains_and_classes(data: Path) -> None:
    stream = connected(data, SmallNet()).stream
    assert stream.train.distributions.tolist() == [number for number in range(12) for _ in range(7)]
    assert torch.equal(stream.train.labels, stream.train.distributions % 4)
    assert stream.validation.distributions.tolist() == list(range(6))
    assert stream.test.distributions.bincount().tolist() == [2] * 12
    assert stream.distribution_names[5] == "domain 1, class 1"
    assert stream.train.features.shape == (84, 5)


def test_features_are_those_of_the_enlarged_images(data: Path) -> None:
    benchmark, net = connected(data, SmallNet()), SmallNet()
    originals = np.concatenate([pixels(number) for number in range(3)])
    expected = []
    for image in originals[30:37]:  # the training images of class 3, free of noise
        large = Image.fromarray(image).resize((16, 16), Image.Resampling.BILINEAR)
        expected.append(torch.from_numpy(np.array(large)).permute(2, 0, 1))
    found = benchmark.stream.train.features[21:28]
    torch.testing.assert_close(found, net(normalise(torch.stack(expected), MEAN, STD)).detach())


def test_noise_is_the_seeds_and_the_samples_alone(data: Path) -> None:
    noisy = NoisyImages(np.full((4 * PER_CLASS, SIDE, SIDE, 3), 128, np.uint8), noise_seed=3, side=16)
    spread = [np.stack([noisy.pixels(40 * domain + place) for place in range(40)]) / 255 for domain in range(3)]
    assert [values.std() for values in spread] == pytest.approx([0.0, 0.025, 0.1], abs=0.002)
    assert [values.mean() for values in spread] == pytest.approx([0.5, 0.5, 0.5], abs=0.005)
    assert not np.array_equal(noisy.pixels(40), noisy.pixels(41))
    assert not np.array_equal(noise_of(3, 40, 0.1, (4,)), noise_of(4, 40, 0.1, (4,)))
    assert np.array_equal(noise_of(3, 40, 0.1, (4,)), noise_of(3, 40, 0.1, (4,)))
    assert with_noise(np.array([0.1, 0.9]), 1.0, np.array([-0.5, 0.5])).tolist() == [0.0, 1.0]


@pytest.mark.parametrize("changes", [{"encode_batch_size": 7}, {"workers": 2}])
def test_features_do_not_depend_on_how_they_were_made(data: Path, tmp_path: Path, changes: dict[str, int]) -> None:
    plain = connected(data, SmallNet()).stream
    other = NsImageNet(replace(CONFIG, data=str(data), **changes))
    other.connect(behind(tmp_path / "other", SmallNet()))
    torch.testing.assert_close(other.stream.train.features, plain.train.features)


def test_images_are_encoded_once(data: Path) -> None:
    net = SmallNet()
    first = connected(data, net).stream
    assert net.seen == 120
    again = connected(data, net, evaluate=["test"]).stream
    assert net.seen == 120
    assert torch.equal(first.train.features, again.train.features)
    assert connected(data, net, noise_seed=1).stream.train.features.shape == (84, 5)
    assert net.seen == 240
    other = SmallNet(seed=1)
    assert not torch.equal(connected(data, other).stream.train.features, first.train.features)
    assert other.seen == 120


def test_an_interrupted_encoding_leaves_nothing(tmp_path: Path) -> None:
    def batches() -> Iterator[Tensor]:
        yield torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
        raise KeyboardInterrupt

    net = behind(tmp_path, SmallNet())
    with pytest.raises(KeyboardInterrupt):
        net.features(PixelJob("part", {}, 4, MEAN, STD, batches))
    assert list(tmp_path.iterdir()) == []


def test_the_digest_is_of_weights_and_kinds() -> None:
    def digest(activation: nn.Module) -> str:
        return weights_digest(nn.Sequential(SmallNet(), activation))

    assert digest(nn.ReLU()) == digest(nn.ReLU()) != digest(nn.Tanh())
    assert weights_digest(SmallNet()) != weights_digest(SmallNet(seed=1))


def test_a_backbone_that_is_trained_from_the_start_is_refused() -> None:
    conf = Path(__file__).parents[2] / "conf" / "backbone" / "resnet32.yaml"
    config = OmegaConf.create({"backbone": OmegaConf.load(conf), "benchmark": {"name": "ns_imagenet"}})
    with pytest.raises(UserError, match="resnet32 is not a pre-trained network.*backbone=resnet18_in1k"):
        frozen_net(config)


# What is refused


def test_a_missing_file_is_named(data: Path) -> None:
    benchmark = NsImageNet(replace(CONFIG, data=str(data)))
    benchmark.files[1].unlink()
    with pytest.raises(MissingFileError, match=r"mini-imagenet-cache-val\.pkl is missing.*paths\.data=FOLDER"):
        benchmark.prepare_data()
    assert [item.present for item in benchmark.describe_data()] == [True, False, True]


class Foreign:
    """Pickles into a call."""

    def __reduce__(self) -> Any:
        return get_worker_info, ()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps({"image_data": Foreign()}), r"get_worker_info is not allowed in a data file"),
        (pickle.dumps({"image_data": pixels(0)})[:3000], "pickle data was truncated"),
        (pickle.dumps([pixels(0)]), "holds a list, expected a dictionary"),
        (pickle.dumps({"data": pixels(0)}), "no 'image_data' of uint8 pixels"),
        (pickle.dumps({"image_data": pixels(0).astype(np.float32)}), "no 'image_data' of uint8 pixels"),
        (pickle.dumps({"image_data": pixels(0)[1:]}), "has 19 images, expected 20: benchmark.classes_of_files"),
    ],
)
def test_a_file_of_another_content_is_refused(data: Path, content: bytes, message: str) -> None:
    benchmark = connected(data, SmallNet())
    benchmark.files[0].write_bytes(content)
    with pytest.raises(UserError, match=rf"mini-imagenet-cache-train\.pkl(?s:.*)({message})"):
        benchmark.setup()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes_of_files": [4, 1]}, "expected a number for each of 3 files"),
        ({"per_class": 9}, "benchmark.per_class=9: expected at least 10"),
        ({"workers": -1}, "benchmark.workers=-1: expected at least 0"),
    ],
)
def test_sizes_that_make_no_stream_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        replace(CONFIG, **changes)


def test_every_image_is_in_one_part_of_the_first_domains() -> None:
    size = Size(classes=4, per_class=10)
    parts = split_samples(size)
    numbers = torch.cat(list(parts.values())).tolist()
    assert len(numbers) == len(set(numbers))
    assert set(range(size.samples // 2)) <= set(numbers)
    assert len(DOMAINS) * size.images == size.samples


def test_enlarging_keeps_a_plain_colour() -> None:
    colour = np.zeros((SIDE, SIDE, 3), np.uint8) + np.array([1, 2, 3], np.uint8)
    large = enlarged(colour, 30)
    assert large.shape == (3, 30, 30)
    assert torch.equal(large, torch.tensor([1, 2, 3], dtype=torch.uint8)[:, None, None].expand(3, 30, 30))
