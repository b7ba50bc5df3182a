"""A stream of a hundred points of the plane in four windows, for runs of a second."""

from __future__ import annotations

from dataclasses import replace

import torch

from mmcl.benchmarks.modes2d import Modes2D
from mmcl.benchmarks.online import OnlineStream
from mmcl.protocol import StreamSamples


class ShortStream(Modes2D):
    """Every tenth point of each part."""

    def read(self) -> OnlineStream:
        """Read the points, and leave most of them out."""
        stream = super().read()
        return replace(stream, train=_few(stream.train), validation=_few(stream.validation), test=_few(stream.test))


def _few(samples: StreamSamples) -> StreamSamples:
    return samples.select(torch.arange(0, len(samples), 10))
