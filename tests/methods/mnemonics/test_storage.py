"""Exemplars as floats and as bytes."""

from __future__ import annotations

import pytest
import torch

from mmcl.methods.mnemonics.storage import STORAGES, stored
from mmcl.pixels import PixelScale

SCALE = PixelScale((0.5071, 0.4866, 0.4409), (0.2009, 0.1984, 0.2023))
EVERY_GREY = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)


def normalised(*pixels: float) -> torch.Tensor:
    return SCALE.normalise(torch.tensor(pixels).view(-1, 1, 1, 1).expand(-1, 3, 1, 1).contiguous())


def test_rounding_gives_every_grey_back() -> None:
    assert torch.equal(stored(SCALE.normalise(EVERY_GREY), SCALE, "uint8_round"), EVERY_GREY)


def test_truncation_darkens_some_greys_by_one() -> None:
    lost = EVERY_GREY.int() - stored(SCALE.normalise(EVERY_GREY), SCALE, "uint8_trunc").int()
    assert set(lost.unique().tolist()) == {0, 1}


@pytest.mark.parametrize(
    ("storage", "expected"),
    [("uint8_round", [0, 0, 10, 11, 255, 255]), ("uint8_trunc", [253, 0, 10, 10, 255, 44])],
)
def test_bytes_at_and_beyond_the_ends(storage: str, expected: list[int]) -> None:
    pixels = stored(normalised(-3.4, -0.4, 10.2, 10.8, 255.3, 300.7), SCALE, storage)
    assert pixels.dtype == torch.uint8
    assert pixels[:, 0, 0, 0].tolist() == expected


def test_floats_are_neither_rounded_nor_clamped() -> None:
    pixels = stored(normalised(-3.4, 10.2, 300.7).requires_grad_(), SCALE, "float")
    assert pixels.dtype == torch.float32
    assert not pixels.requires_grad
    assert pixels[:, 1, 0, 0].tolist() == pytest.approx([-3.4, 10.2, 300.7], abs=1e-3)


def test_every_storage_keeps_the_shape() -> None:
    for storage in STORAGES:
        assert stored(torch.zeros(5, 3, 2, 4), SCALE, storage).shape == (5, 3, 2, 4)
