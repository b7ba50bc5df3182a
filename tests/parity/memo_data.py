"""Data protocol and CIFAR transforms."""

from __future__ import annotations

import numpy as np
import torch

from mmcl.benchmarks.augmentation import augment, augment_exact
from mmcl.benchmarks.cifar import Cifar100
from mmcl.benchmarks.class_order import class_order, positions, task_sizes
from mmcl.benchmarks.imagenet import seed1993_subset
from mmcl.pixels import normalise
from tests.parity import Golden, close, parity


@parity("data_protocol")
def check_data_protocol(golden: Golden) -> None:
    for name in golden:
        if name.startswith("order."):
            count, seed = (int(part.lstrip("nsed")) for part in name.split(".")[1:])
            close(class_order(count, seed), golden[name], 0)
        elif name.endswith(".args"):
            close(task_sizes(*golden[name].tolist()), golden[name.replace(".args", ".sizes")], 0)
    mapped = positions(torch.from_numpy(golden["map.y"]), golden["map.order"].tolist())
    close(mapped, golden["map.mapped"], 0)
    close(seed1993_subset(), golden["imagenet100.indices"], 0)


@parity("transforms_cifar")
def check_transforms_cifar(golden: Golden) -> None:
    images = torch.from_numpy(np.ascontiguousarray(golden["images"].transpose(0, 3, 1, 2)))
    offsets, flips = torch.from_numpy(golden["crop_ij"]), torch.from_numpy(golden["flip"])
    brightness = torch.from_numpy(golden["brightness"]).float()
    for augmented in (augment, augment_exact):
        pixels = augmented(images, offsets, flips, brightness, Cifar100.augmentation.pad)
        close(normalise(pixels, Cifar100.mean, Cifar100.std), golden["train_out"])
    close(normalise(images, Cifar100.mean, Cifar100.std), golden["test_out"])
