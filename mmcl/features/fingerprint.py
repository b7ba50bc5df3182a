"""Digests of what features were made from: equal content gives equal digests, wherever the files lie."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from mmcl.errors import UserError
from mmcl.images import FileImages
from mmcl.protocol import Samples, Sentences


def digest_of(description: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a description of plain types, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()


def digest_samples(samples: Samples) -> str:
    """Return the SHA-256 of pixels, or of relative paths and file sizes, with labels and sources.

    Raises:
        UserError: a file is missing.
    """
    digest = hashlib.sha256()
    if isinstance(samples.images, FileImages):
        digest.update(json.dumps(_files(samples.images)).encode())
    else:
        assert isinstance(samples.images, Tensor)
        _add(digest, samples.images)
    for part in (samples.labels, samples.sources):
        _add(digest, part)
    return digest.hexdigest()


def digest_sentences(sentences: Sentences) -> str:
    """Return the SHA-256 of texts and their classes."""
    digest = hashlib.sha256(json.dumps(sentences.texts).encode())
    _add(digest, sentences.classes)
    return digest.hexdigest()


def digest_file(path: Path) -> str:
    """Return the SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _files(files: FileImages) -> list[tuple[str, int, int]]:
    """Return path, size and time of the last change: another set of equal names and sizes has another time."""
    found = []
    for name in files.paths:
        path = files.root / name
        try:
            facts = path.stat()
            found.append((name, facts.st_size, facts.st_mtime_ns))
        except OSError as error:
            raise UserError(
                f"cannot read the image {path}: {error.strerror}. Bring the file, or take it out of the list"
            ) from error
    return found


def _add(digest: Any, values: Tensor) -> None:
    digest.update(f"{values.dtype}{tuple(values.shape)}".encode())
    digest.update(values.contiguous().numpy().data)
