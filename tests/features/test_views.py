"""Views depend on seed, source and number alone, and both modes agree."""

from __future__ import annotations

import pytest
import torch
from torchvision import transforms

from mmcl.errors import UserError
from mmcl.features.job import Views
from mmcl.features.views import view_batch
from tests.features.pictures import picture

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
LEVEL = 1 / 255 / min(STD)
IMAGES = [picture(60, 44, 0), picture(40, 52, 1), picture(32, 32, 2)]
SOURCES = torch.tensor([7, 3, 100])


def made(views: Views, size: int = 24, rows: slice = slice(None)) -> torch.Tensor:
    return view_batch(IMAGES[rows], SOURCES[rows], views, size, MEAN, STD)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("size", [24, 32, 70])
def test_the_first_view_is_the_test_transform(size: int, exact: bool) -> None:
    plain = transforms.Compose(
        [
            transforms.Resize(size, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(size),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    expected = torch.stack([plain(image) for image in IMAGES])
    for views in (Views(1, exact=exact), Views(3, "augmix", exact=exact)):
        torch.testing.assert_close(made(views, size)[:, 0], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("alteration", ["crop", "augmix"])
def test_neither_count_nor_batch_matters(alteration: str, exact: bool) -> None:
    five, three = (made(Views(count, alteration, exact=exact)) for count in (5, 3))
    assert torch.equal(five[:, :3], three)
    assert torch.equal(made(Views(5, alteration, exact=exact), rows=slice(1, 2)), five[1:2])
    assert not torch.equal(five[:, 3], five[:, 4])
    assert not torch.equal(made(Views(5, alteration, seed=1, exact=exact))[:, 1:], five[:, 1:])


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_both_modes_agree_on_crops(interpolation: str) -> None:
    batched, exact = (made(Views(6, "crop", interpolation, exact=exact)) for exact in (False, True))
    assert float((batched - exact).abs().max()) < (1.01 if interpolation == "bilinear" else 2.01) * LEVEL


def test_both_modes_agree_on_mixtures() -> None:
    batched, exact = (made(Views(40, "augmix", exact=exact)) for exact in (False, True))
    difference = (batched - exact).abs()
    # What cuts or equalises levels after an affine operation makes more of the one level by which that may differ.
    assert float((difference > 1.01 * LEVEL).float().mean()) < 0.01
    assert float(difference.mean()) < 0.1 * LEVEL


def test_pixels_are_images() -> None:
    pixels = torch.randint(256, (3, 3, 16, 16), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    images = [transforms.ToPILImage()(image) for image in pixels]
    views = Views(4, "augmix")
    assert torch.equal(
        view_batch(pixels, SOURCES, views, 16, MEAN, STD), view_batch(images, SOURCES, views, 16, MEAN, STD)
    )


@pytest.mark.parametrize(
    ("views", "words"),
    [
        (Views(0), "count of 0"),
        (Views(2), "need an alteration"),
        (Views(2, "augmx"), "Did you mean 'augmix'"),
        (Views(2, "crop", "bilinar"), "Did you mean 'bilinear'"),
    ],
)
def test_senseless_views(views: Views, words: str) -> None:
    with pytest.raises(UserError, match=words):
        made(views)
