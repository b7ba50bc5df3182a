"""Images that are made on their way to a frozen network, described well enough to find their features again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor


@dataclass(frozen=True)
class PixelJob:
    """Images to encode.

    Attributes:
        name: words for messages and the cache listing, such as ``ns_imagenet``.
        origin: everything that the pixels depend on, as plain types.
        count: number N of images.
        mean: of the normalised pixels' red, green and blue, on the scale of 0 to 1.
        std: as ``mean``.
        batches: makes the images anew, in order: uint8 ``(B, 3, H, W)``; called where their features are not there yet.
    """

    name: str
    origin: Mapping[str, Any]
    count: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    batches: Callable[[], Iterator[Tensor]]


class FrozenNet(Protocol):
    """A frozen network from images to features behind a cache: each job is computed once."""

    def features(self, job: PixelJob) -> Tensor:
        """Return the features of a job, float32 ``(N, D)``, read-only."""
        ...
