"""What is to be encoded: images under views, described so that equal descriptions give equal features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from mmcl.protocol import ImageFeatures, Samples, Sentences, TextFeatures

ALTERATIONS = ("none", "crop", "augmix")


@dataclass(frozen=True)
class Views:
    """How one image becomes several.

    Attributes:
        count: number of views V; view 0 is always plain: resized (bicubic) and cropped at the centre.
        alteration: what the others are: ``crop`` (random resized crop of 0.5 to 1 of the area, flip) or ``augmix``
            (three random chains of operations on such a crop, mixed with it); ``none`` without others.
        interpolation: of the crop, ``bilinear`` or ``bicubic``.
        seed: keys the draws, together with each image's source and the number of the view, whatever ``count`` is.
        exact: alter image by image with PIL, as published, instead of batched.
    """

    count: int = 1
    alteration: str = "none"
    interpolation: str = "bilinear"
    seed: int = 0
    exact: bool = False


@dataclass(frozen=True)
class EncodingJob:
    """Images to encode under views.

    Attributes:
        name: words for messages and the cache listing, such as ``dtd-test``.
        samples: images as files or uint8 pixels, with labels and sources.
        views: how each image becomes several.
    """

    name: str
    samples: Samples
    views: Views


class Encoders(Protocol):
    """Frozen encoders behind a cache: each job is computed once, on all processes, and read from a file after that."""

    @property
    def dimension(self) -> int:
        """Length D of a feature."""
        ...

    @property
    def digest(self) -> str:
        """What features depend on beside images and sentences."""
        ...

    def images(self, job: EncodingJob) -> ImageFeatures:
        """Return the features of a job, ``(N, V, D)``."""
        ...

    def texts(self, name: str, sentences: Sentences, too_long: str = "refuse") -> TextFeatures:
        """Return the features of sentences, ``(P, D)``; ``too_long`` is ``refuse``, or ``cut`` to what fits."""
        ...
