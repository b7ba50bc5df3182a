from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms import v2

from mmcl import randomness
from mmcl.benchmarks.augmentation import (
    DRAWS_PER_IMAGE,
    Alterations,
    Augmentation,
    alterations,
    augment,
    augment_exact,
)
from mmcl.pixels import normalise

CIFAR = Augmentation()


def pictures(count: int, height: int = 32, width: int = 32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (count, 3, height, width), dtype=torch.uint8, generator=generator)


def drawn(sources: torch.Tensor, augmentation: Augmentation = CIFAR, seed: int = 0) -> Alterations:
    numbers = randomness.uniforms(randomness.key(seed, "augment", 0), sources, DRAWS_PER_IMAGE)
    return alterations(numbers, augmentation)


@given(seed=st.integers(0, 10_000), pad=st.integers(0, 5), height=st.integers(4, 9), width=st.integers(4, 9))
def test_both_ways_agree_to_the_pixel(seed: int, pad: int, height: int, width: int) -> None:
    images = pictures(5, height, width)
    chosen = drawn(torch.arange(5), Augmentation(pad=pad), seed)
    assert torch.equal(augment(images, *chosen, pad), augment_exact(images, *chosen, pad).float())


def test_every_brightness_of_every_pixel_is_pils() -> None:
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).repeat(64, 3, 1, 1)
    brightness = torch.linspace(0, 2, 64)
    chosen = Alterations(torch.zeros(64, 2, dtype=torch.int64), torch.zeros(64, dtype=torch.bool), brightness)
    assert torch.equal(augment(images, *chosen, 0), augment_exact(images, *chosen, 0).float())


@given(rows=st.lists(st.integers(0, 19), min_size=1, max_size=8), epoch_seed=st.integers(0, 99))
def test_the_other_images_of_the_batch_change_nothing(rows: list[int], epoch_seed: int) -> None:
    images, index = pictures(20, 8, 8), torch.tensor(rows)
    together = augment(images, *drawn(torch.arange(20), seed=epoch_seed), CIFAR.pad)[index]
    assert torch.equal(augment(images[index], *drawn(index, seed=epoch_seed), CIFAR.pad), together)


def test_alterations_cover_their_ranges() -> None:
    chosen = drawn(torch.arange(20_000))
    assert chosen.offsets.unique().tolist() == list(range(9))
    assert chosen.flips.float().mean().item() == pytest.approx(0.5, abs=0.02)
    low, high = chosen.brightness.aminmax()
    assert 1 - 63 / 255 <= low < 0.76
    assert 1.24 < high <= 1 + 63 / 255


def test_no_augmentation_returns_the_image() -> None:
    images = pictures(6)
    still = Augmentation(pad=0, flip=False, brightness=0.0)
    assert torch.equal(augment(images, *drawn(torch.arange(6), still), 0), images.float())


def test_normalise_equals_torchvision() -> None:
    mean, std = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)
    images = pictures(3)
    expected = v2.functional.normalize(images.float() / 255, list(mean), list(std))
    torch.testing.assert_close(normalise(images, mean, std), expected, rtol=1e-5, atol=1e-6)


def test_normalise_trains_after_it_was_used_for_inference() -> None:
    mean, std = (0.11, 0.12, 0.13), (0.21, 0.22, 0.23)
    with torch.inference_mode():
        normalise(pictures(1), mean, std)
    pixels = pictures(1).float().requires_grad_()
    normalise(pixels, mean, std).sum().backward()
    assert pixels.grad is not None
    torch.testing.assert_close(pixels.grad[0, :, 0, 0], 1 / (255 * torch.tensor(std)))
