"""Views of an image for test-time methods on one core: image by image with PIL as published, and batched.

python experiments/speed/views.py [--views 32] [--size 224]
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, ImageOps
from torchvision import transforms

from mmcl.engine.allocator import keep_freed_memory
from mmcl.features.job import Views
from mmcl.features.views import view_batch

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGES, ROUNDS = 6, 5
BICUBIC, BILINEAR = transforms.InterpolationMode.BICUBIC, Image.Resampling.BILINEAR


class Straightforward:
    """The published chain: torchvision's transforms, numpy's draws, PIL's operations, one view after the other."""

    def __init__(self, size: int, views: int) -> None:
        self.size, self.views = size, views
        self.preprocess = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
        self.plain = transforms.Compose([transforms.Resize(size, interpolation=BICUBIC), transforms.CenterCrop(size)])
        self.crop = transforms.Compose(
            [transforms.RandomResizedCrop(size, scale=(0.5, 1.0)), transforms.RandomHorizontalFlip()]
        )
        self.operations: list[Callable[[Image.Image, float], Image.Image]] = [
            lambda image, level: ImageOps.autocontrast(image),
            lambda image, level: ImageOps.equalize(image),
            lambda image, level: ImageOps.posterize(image, 4 - int(level * 4 / 10)),
            lambda image, level: image.rotate(self.sign(int(level * 30 / 10)), resample=BILINEAR),
            lambda image, level: ImageOps.solarize(image, 256 - int(level * 256 / 10)),
            lambda image, level: self.affine(image, (1, self.sign(level * 0.3 / 10), 0, 0, 1, 0)),
            lambda image, level: self.affine(image, (1, 0, 0, self.sign(level * 0.3 / 10), 1, 0)),
            lambda image, level: self.affine(image, (1, 0, self.sign(int(level * size / 3 / 10)), 0, 1, 0)),
            lambda image, level: self.affine(image, (1, 0, 0, 0, 1, self.sign(int(level * size / 3 / 10)))),
        ]

    def __call__(self, image: Image.Image) -> torch.Tensor:
        views = [self.preprocess(self.plain(image))]
        return torch.stack(views + [self.altered(image) for _ in range(self.views - 1)])

    def altered(self, image: Image.Image) -> torch.Tensor:
        crop = self.crop(image)
        weights = np.float32(np.random.dirichlet([1.0, 1.0, 1.0]))
        blend = np.float32(np.random.beta(1.0, 1.0))
        mixed = torch.zeros(3, self.size, self.size)
        for weight in weights:
            chain = crop
            for _ in range(np.random.randint(1, 4)):
                chain = random.choice(self.operations)(chain, np.random.uniform(0.1, 1.0))
            mixed += weight * self.preprocess(chain)
        return blend * self.preprocess(crop) + (1 - blend) * mixed

    def affine(self, image: Image.Image, coefficients: tuple[float, ...]) -> Image.Image:
        return image.transform((self.size, self.size), Image.Transform.AFFINE, coefficients, resample=BILINEAR)

    @staticmethod
    def sign(amount: float) -> float:
        return -amount if np.random.uniform() > 0.5 else amount


def images_per_second(serve: Callable[[int], object]) -> float:
    """Count seconds of this process alone, since other load on the machine would show otherwise."""
    start = time.process_time()
    for row in range(IMAGES):
        serve(row)
    return IMAGES / (time.process_time() - start)


def picture() -> Image.Image:
    """Return an image of photograph-like smoothness, 480 x 360."""
    coarse = Image.fromarray(np.random.randint(0, 256, (30, 40, 3), dtype=np.uint8))
    return coarse.resize((480, 360), Image.Resampling.BICUBIC)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--views", type=int, default=32)
    parser.add_argument("--size", type=int, default=224)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()  # as every run does
    random.seed(0)
    np.random.seed(0)
    images, sources = [picture() for _ in range(IMAGES)], torch.arange(IMAGES)
    straightforward = Straightforward(arguments.size, arguments.views)
    views = Views(arguments.views, "augmix")

    def batched(row: int) -> torch.Tensor:
        return view_batch(images[row : row + 1], sources[row : row + 1], views, arguments.size, MEAN, STD)

    sides = {"PIL, view by view": lambda row: straightforward(images[row]), "batched": batched}
    best = dict.fromkeys(sides, 0.0)
    for _ in range(ROUNDS):  # in turn
        for name, serve in sides.items():
            best[name] = max(best[name], images_per_second(serve))
    print(f"{arguments.views} views of {arguments.size} pixels, from images of 480 x 360")
    for name, speed in best.items():
        print(f"{name:20} {speed:7.2f} images/s")
    print(f"ratio                {best['batched'] / best['PIL, view by view']:7.2f}")


if __name__ == "__main__":
    main()
