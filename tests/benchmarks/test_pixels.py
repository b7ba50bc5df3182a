from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmcl.pixels import PixelScale, normalise
from tests.methods.toy import ToyBenchmark

CIFAR = PixelScale((0.5071, 0.4866, 0.4409), (0.2009, 0.1984, 0.2023))
GREYS = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).repeat(1, 3, 1, 1)


def test_the_way_back_is_a_float32_product_in_one_order() -> None:
    images = CIFAR.normalise(GREYS)
    assert torch.equal(images, normalise(GREYS, CIFAR.mean, CIFAR.std))
    mean, std = (np.array(part, np.float32).reshape(1, 3, 1, 1) for part in (CIFAR.mean, CIFAR.std))
    expected = (images.numpy() * std + mean) * np.float32(255)
    np.testing.assert_array_equal(CIFAR.denormalise(images).numpy(), expected)


@given(st.lists(st.tuples(st.floats(0.05, 0.95), st.floats(0.05, 0.95)), min_size=3, max_size=3))
def test_every_grey_value_comes_back(channels: list[tuple[float, float]]) -> None:
    scale = PixelScale(tuple(mean for mean, _ in channels), tuple(std for _, std in channels))
    back = scale.denormalise(scale.normalise(GREYS))
    assert back.dtype == torch.float32
    torch.testing.assert_close(back, GREYS.float(), rtol=0, atol=1e-3)


def test_values_beyond_the_scale_are_kept() -> None:
    pixels = torch.tensor([-20.25, 0.5, 300.75]).view(1, 1, 1, 3).repeat(1, 3, 1, 1)
    back = CIFAR.denormalise(CIFAR.normalise(pixels))
    torch.testing.assert_close(back, pixels, rtol=1e-5, atol=1e-4)


def test_the_first_caller_may_be_in_inference_mode() -> None:
    scale = PixelScale((0.31, 0.32, 0.33), (0.21, 0.22, 0.23))
    with torch.inference_mode():
        scale.denormalise(torch.zeros(1, 3, 1, 1))
    images = torch.zeros(1, 3, 1, 1, requires_grad=True)
    scale.denormalise(images).sum().backward()
    assert images.grad is not None
    assert images.grad.flatten().tolist() == pytest.approx([255 * part for part in scale.std])


def test_a_task_says_by_what_its_pixels_are_normalised() -> None:
    task = ToyBenchmark().task(1)
    (plain,) = task.plain_batches(task.train, torch.device("cpu"))
    assert torch.equal(task.pixel_scale.normalise(task.train.images), plain.images)  # type: ignore[arg-type]
