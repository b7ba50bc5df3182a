"""Images before a loader serves them: in files, as float pixels, as tensors, or several kinds in one order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class FileImages:
    """Images that stay in files until a loader reads them.

    Attributes:
        root: folder below which the files lie.
        paths: path of each image relative to ``root``; ``len(paths)`` is N.
    """

    root: Path
    paths: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, rows: Tensor) -> FileImages:
        return FileImages(self.root, tuple(self.paths[row] for row in rows.tolist()))

    @property
    def nbytes(self) -> int:
        """Size of the files in bytes."""
        return sum((self.root / path).stat().st_size for path in self.paths)


@dataclass(frozen=True, eq=False)
class FloatPixels:
    """Images whose grey values are no whole numbers, at the size that the network sees.

    They are altered and normalised as uint8 pixels are, but neither rounded nor clamped on the way.

    Attributes:
        values: float32 ``(N, 3, H, W)`` on the scale 0 to 255, beyond which they may lie.
    """

    values: Tensor

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: Tensor) -> FloatPixels:
        return FloatPixels(self.values[rows])

    @property
    def nbytes(self) -> int:
        """Size of the values in bytes."""
        return self.values.nbytes


ImagesOfOneKind = Tensor | FileImages | FloatPixels


@dataclass(frozen=True, eq=False)
class MixedImages:
    """Images of several kinds in one order, such as new data in files followed by kept float pixels.

    Attributes:
        parts: two or more; the images of each kind in the order in which they come among all, at least one.
        part_of: number of the part that each image is from, int64 ``(N,)`` on the CPU.
    """

    parts: tuple[ImagesOfOneKind, ...]
    part_of: Tensor

    def __len__(self) -> int:
        return len(self.part_of)

    def __getitem__(self, rows: Tensor) -> Images:
        """Return some rows; they are not mixed any more where one part has them all."""
        rows = rows.cpu()
        part_of, places = self.part_of[rows], self.places[rows]
        return _unmixed([part[places[part_of == number]] for number, part in enumerate(self.parts)], part_of)

    @cached_property
    def places(self) -> Tensor:
        """Row of each image inside its part, int64 ``(N,)``."""
        places = torch.empty_like(self.part_of)
        for number, part in enumerate(self.parts):
            places[self.part_of == number] = torch.arange(len(part))
        return places

    @property
    def nbytes(self) -> int:
        """Size of all parts in bytes."""
        return sum(part.nbytes for part in self.parts)


Images = Tensor | FileImages | FloatPixels | MixedImages


def join_images(images: Sequence[Images]) -> Images:
    """Return images one after the other: of one kind where they all are, else mixed. An empty one has no say.

    Files lie below one folder, that of the first.

    Raises:
        TypeError: float values that are served as they are, among images of another kind.
    """
    filled = [part for part in images if len(part)] or images[:1]
    of_kind: dict[Any, list[ImagesOfOneKind]] = {}
    part_of = []
    for part in filled:
        parts, numbers = (part.parts, part.part_of) if isinstance(part, MixedImages) else ((part,), _zeros(len(part)))
        for one in parts:
            of_kind.setdefault(_kind(one), []).append(one)
        kinds = list(of_kind)
        part_of.append(torch.tensor([kinds.index(_kind(one)) for one in parts])[numbers])
    if len(of_kind) > 1 and any(isinstance(part, Tensor) and part.is_floating_point() for part, *_ in of_kind.values()):
        raise TypeError("float values that are served as they are cannot be joined with images of another kind")
    return _unmixed([_join_one_kind(parts) for parts in of_kind.values()], torch.cat(part_of))


def _unmixed(parts: list[ImagesOfOneKind], part_of: Tensor) -> Images:
    """Return images without the parts that are empty: the only part itself where one or none has images."""
    filled = [number for number, part in enumerate(parts) if len(part)]
    if len(filled) < 2:
        return parts[filled[0] if filled else 0]
    renumbered = torch.zeros(len(parts), dtype=torch.int64)
    renumbered[filled] = torch.arange(len(filled))
    return MixedImages(tuple(parts[number] for number in filled), renumbered[part_of])


def _join_one_kind(parts: Sequence[ImagesOfOneKind]) -> ImagesOfOneKind:
    first = parts[0]
    if isinstance(first, FileImages):
        return FileImages(first.root, tuple(path for files in parts for path in files.paths))  # type: ignore[union-attr]
    if isinstance(first, FloatPixels):
        return FloatPixels(torch.cat([part.values for part in parts]))  # type: ignore[union-attr,misc]
    return torch.cat(parts)  # type: ignore[arg-type]


def _kind(images: ImagesOfOneKind) -> Any:
    """Return what images that are joined to one part have in common; of tensors, (dtype, shape of an image)."""
    if isinstance(images, Tensor):
        return images.dtype, tuple(images.shape[1:])
    return FileImages if isinstance(images, FileImages) else (FloatPixels, tuple(images.values.shape[1:]))


def _zeros(count: int) -> Tensor:
    return torch.zeros(count, dtype=torch.int64)
