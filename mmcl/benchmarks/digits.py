"""The handwritten digits that ship inside scikit-learn: 1,797 real images, no download."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import Tensor

from mmcl.benchmarks.augmentation import Augmentation
from mmcl.benchmarks.class_incremental import ClassIncrementalBenchmark, RawData
from mmcl.protocol import Samples

ENLARGEMENT = 4
TEST_EVERY = 5


class Digits(ClassIncrementalBenchmark):
    """Ten handwritten digits, 8x8 grey, enlarged to 32x32 and repeated over three channels.

    Of every class, in the order of the data set, each fifth image tests: 1,442 to train, 355 to test.
    """

    mean = (0.305, 0.305, 0.305)
    std = (0.376, 0.376, 0.376)
    augmentation = Augmentation(pad=2, flip=False, brightness=0.0)

    def read(self) -> RawData:
        """Read the digits out of scikit-learn."""
        bunch = load_digits()
        grey = (torch.from_numpy(bunch.images) * (255 / 16)).round().to(torch.uint8)
        large = grey.repeat_interleave(ENLARGEMENT, dim=1).repeat_interleave(ENLARGEMENT, dim=2)
        images = large[:, None].repeat(1, 3, 1, 1)
        labels = torch.from_numpy(bunch.target).to(torch.int64)
        is_test = _rank_in_class(labels) % TEST_EVERY == TEST_EVERY - 1
        splits = [Samples(images[mask], labels[mask], torch.arange(int(mask.sum()))) for mask in (~is_test, is_test)]
        return RawData(splits[0], splits[1], [str(digit) for digit in range(10)])


def _rank_in_class(labels: Tensor) -> Tensor:
    """Return how many earlier images have the same label, int64 ``(N,)``."""
    members = labels[:, None] == torch.arange(int(labels.max()) + 1)
    return members.cumsum(0).gather(1, labels[:, None])[:, 0] - 1
