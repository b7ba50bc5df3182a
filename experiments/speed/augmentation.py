"""Augmentation of CIFAR images on one core: image by image with PIL, and batched.

python experiments/speed/augmentation.py
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from torchvision import transforms

from mmcl.benchmarks.augmentation import Augmentation
from mmcl.benchmarks.resident import Recipe, ResidentSamples
from mmcl.protocol import Samples

MEAN, STD = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)
IMAGES, BATCH_SIZE, ROUNDS = 10_000, 128, 5
STRAIGHTFORWARD = transforms.Compose(
    [
        transforms.ToPILImage(),
        transforms.RandomCrop(32, padding=4),
        transforms.RandomHorizontalFlip(),
        transforms.ColorJitter(brightness=63 / 255),
        transforms.ToTensor(),
        transforms.Normalize(MEAN, STD),
    ]
)


def images_per_second(serve: Callable[[torch.Tensor], torch.Tensor], images: int) -> float:
    """Time one pass over shuffled images."""
    batches = torch.randperm(images).split(BATCH_SIZE)
    start = time.perf_counter()
    for rows in batches:
        serve(rows)
    return images / (time.perf_counter() - start)


def pil(pictures: list[np.ndarray], rows: torch.Tensor) -> torch.Tensor:
    return torch.stack([STRAIGHTFORWARD(pictures[row]) for row in rows.tolist()])


def main() -> None:
    torch.set_num_threads(1)
    images = torch.randint(256, (IMAGES, 3, 32, 32), dtype=torch.uint8)
    pictures = list(images.permute(0, 2, 3, 1).numpy())
    labels = torch.zeros(IMAGES, dtype=torch.int64)
    resident = ResidentSamples(
        Samples(images, labels, torch.arange(IMAGES)), Recipe(Augmentation(), MEAN, STD), (1993, 0, "main")
    )
    one_by_one, batched = 0.0, 0.0
    for _ in range(ROUNDS):  # in turn, so that other load on the machine meets both
        one_by_one = max(one_by_one, images_per_second(lambda rows: pil(pictures, rows), IMAGES // 5))
        batched = max(batched, images_per_second(lambda rows: resident.batch(rows, 0, 1.0).images, IMAGES))
    print(f"PIL, image by image: {one_by_one:9,.0f} images/s")
    print(f"batched:             {batched:9,.0f} images/s")
    print(f"ratio:               {batched / one_by_one:9.1f}")


if __name__ == "__main__":
    main()
