"""A user's own features in one file, npz or safetensors: any encoder can stand before the methods on features.

Keys, C classes, D numbers a feature, features of any float type:

==================== ======================== ==================================================================
``class_names``      (C) strings              names; labels are positions here
``image_train``      (N, D) or (N, P, D)      images to learn from; view 0 plain, the others augmentation passes
``label_train``      (N) integers             their classes
``image_test``       (M, D) or (M, V, D)      the stream; view 0 plain, the others altered
``label_test``       (M) integers             their classes
``image_validation`` (K, D) or (K, V, D)      optional: images that may select something
``label_validation`` (K) integers             with them
``text_feat``        (P, D)                   texts about the classes, at least one for each class
``text_class``       (P) integers             their classes
``text_sentence``    (P) strings              optional: the texts themselves
``text_kind``        (P) strings              optional: ``template``, ``description`` or ``caption``; else all are
                                              templates
``logit_scale``      number                   optional: factor of the cosine
==================== ======================== ==================================================================

``benchmark=class_features`` needs no texts: there, the first five keys are all.

A safetensors file holds tensors only. The three arrays of strings are then uint8 tensors ``(length,)`` with the bytes
of a JSON list in UTF-8.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmcl.errors import UserError, nearest
from mmcl.protocol import ImageFeatures
from mmcl.whole_files import write_whole

KINDS = ("template", "description", "caption")
_STRINGS = ("class_names", "text_sentence", "text_kind")
_IMAGES = ("class_names", "image_train", "label_train", "image_test", "label_test")
_NEEDED = (*_IMAGES, "text_feat", "text_class")
_OPTIONAL = ("image_validation", "label_validation", "text_sentence", "text_kind", "logit_scale")
_UNIT_TOLERANCE = 1e-2
Arrays = dict[str, "np.ndarray[Any, Any]"]


@dataclass(frozen=True)
class OwnFeatures:
    """The content of a file of features.

    Attributes:
        class_names: C names.
        train: images to learn from, ``(N, P, D)``; view 0 plain.
        validation: images that may select something; None without any.
        test: images of the stream, ``(M, V, D)``; view 0 plain.
        text_features: of the texts, float32 ``(P, D)``, grouped by class.
        text_classes: int64 ``(P,)``.
        text_sentences: the P texts; empty strings where the file has none.
        text_kinds: kind of each text, one of :data:`KINDS`.
        logit_scale: factor of the cosine; None where the file has none.
        remarks: what a user may want to know, such as features that are not of length 1.
    """

    class_names: tuple[str, ...]
    train: ImageFeatures
    validation: ImageFeatures | None
    test: ImageFeatures
    text_features: Tensor
    text_classes: Tensor
    text_sentences: tuple[str, ...]
    text_kinds: tuple[str, ...]
    logit_scale: float | None = None
    remarks: tuple[str, ...] = ()

    @property
    def dimension(self) -> int:
        """Length D of a feature."""
        return self.text_features.shape[1]


@dataclass(frozen=True)
class ClassFeatures:
    """The images of a file of features, without texts.

    Attributes:
        class_names: C names.
        train: images to learn from, ``(N, P, D)``; view 0 plain.
        test: images to answer for, ``(M, V, D)``; view 0 plain.
    """

    class_names: tuple[str, ...]
    train: ImageFeatures
    test: ImageFeatures

    @property
    def dimension(self) -> int:
        """Length D of a feature."""
        return self.train.features.shape[-1]


def read_own_features(path: Path) -> OwnFeatures:
    """Read and check a file of features.

    Raises:
        UserError: the file is missing or no npz or safetensors file, or a key is missing, misspelt or wrong.
    """
    return _Checked(path, _read_arrays(path), _NEEDED).content()


def read_class_features(path: Path) -> ClassFeatures:
    """Read and check the images of a file of features, which may have texts or none.

    Raises:
        UserError: as for :func:`read_own_features`.
    """
    return _Checked(path, _read_arrays(path), _IMAGES).images_alone()


def write_own_features(path: Path, features: OwnFeatures) -> None:
    """Write a file of features, npz or safetensors by its ending, whole or not at all.

    Raises:
        UserError: the ending is another one, or the disk is full.
    """
    arrays: Arrays = {
        "class_names": np.array(features.class_names),
        "text_feat": features.text_features.numpy(),
        "text_class": features.text_classes.numpy(),
        "text_kind": np.array(features.text_kinds),
        "text_sentence": np.array(features.text_sentences),
    }
    for split in ("train", "validation", "test"):
        arrays |= _image_arrays(split, getattr(features, split))
    if features.logit_scale is not None:
        arrays["logit_scale"] = np.array(features.logit_scale)
    _write(path, arrays)


def write_class_features(path: Path, features: ClassFeatures) -> None:
    """Write the images alone, for ``benchmark=class_features``; else as :func:`write_own_features`."""
    names: Arrays = {"class_names": np.array(features.class_names)}
    _write(path, names | _image_arrays("train", features.train) | _image_arrays("test", features.test))


def check_ending(path: Path) -> None:
    """Refuse a file of another kind before anything is computed for it.

    Raises:
        UserError: the ending is neither of npz nor of safetensors.
    """
    _of_ending(path, _WRITERS)


def _image_arrays(split: str, images: ImageFeatures | None) -> Arrays:
    if images is None:
        return {}
    return {f"image_{split}": images.features.numpy(), f"label_{split}": images.labels.numpy()}


def _write(path: Path, arrays: Arrays) -> None:
    save = _of_ending(path, _WRITERS)
    write_whole(path, lambda part: save(part, arrays))


# ------------------------------------------------------------------ files


def _read_arrays(path: Path) -> Arrays:
    if not path.is_file():
        raise UserError(f"there is no file {path}. Type paths.features=FILE, an npz or safetensors file of features")
    read = _of_ending(path, _READERS)
    try:
        arrays: Arrays = read(path)
        return arrays
    except (OSError, ValueError, TypeError, KeyError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} cannot be read: {error}. Write it again: numpy.savez(FILE, class_names=...)"
        ) from error


def _read_npz(path: Path) -> Arrays:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _read_safetensors(path: Path) -> Arrays:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    floats = (torch.float16, torch.float32, torch.float64)
    arrays = {
        name: (values.float() if values.is_floating_point() and values.dtype not in floats else values).numpy()
        for name, values in tensors.items()
    }
    for name in set(_STRINGS) & set(arrays):
        arrays[name] = np.array([str(word) for word in json.loads(arrays[name].tobytes())])
    return arrays


def _write_npz(path: Path, arrays: Arrays) -> None:
    with path.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def _write_safetensors(path: Path, arrays: Arrays) -> None:
    from safetensors.numpy import save_file

    strings = [name for name in _STRINGS if name in arrays]
    words = {name: np.frombuffer(json.dumps(arrays[name].tolist()).encode(), np.uint8) for name in strings}
    save_file({name: np.ascontiguousarray(values) for name, values in {**arrays, **words}.items()}, path)


_READERS: dict[str, Callable[[Path], Arrays]] = {".npz": _read_npz, ".safetensors": _read_safetensors}
_WRITERS: dict[str, Callable[[Path, Arrays], None]] = {".npz": _write_npz, ".safetensors": _write_safetensors}


def _of_ending(path: Path, known: Mapping[str, Any]) -> Any:
    if path.suffix not in known:
        raise UserError(f"{path}: expected a file that ends in {' or '.join(known)}")
    return known[path.suffix]


# ------------------------------------------------------------------ checks


class _Checked:
    """The arrays of a file, each checked when it is asked for."""

    def __init__(self, path: Path, arrays: Arrays, needed: tuple[str, ...]) -> None:
        self.path, self.arrays = path, arrays
        known = (*_NEEDED, *_OPTIONAL)
        for name in arrays:
            if name not in known:
                raise self.error(name, f"unknown key.{nearest(name, known)} Known: {', '.join(known)}")
        for name in needed:
            if name not in arrays:
                raise self.error(name, f"the key is missing. The file has: {', '.join(sorted(arrays))}")
        for one, other in (("image_validation", "label_validation"), ("label_validation", "image_validation")):
            if one in arrays and other not in arrays:
                raise self.error(other, f"the key is missing, though {one} is there")
        self.remarks: list[str] = []

    def error(self, key: str, words: str) -> UserError:
        """Return an error that names file and key."""
        return UserError(f"{self.path}: {key}: {words}")

    def content(self) -> OwnFeatures:
        """Return everything, checked."""
        names = self._words("class_names")
        texts = self._features("text_feat", (2,))
        dimension = texts.shape[-1]
        classes = self._labels("text_class", len(texts), len(names), "text_feat")
        absent = sorted(set(range(len(names))) - set(classes.tolist()))
        if absent:
            raise self.error("text_class", f"class {absent[0]} ({names[absent[0]]!r}) has no text")
        order = classes.argsort(stable=True)
        kinds = self._kinds(len(texts))
        sentences = self._words("text_sentence", len(texts)) if "text_sentence" in self.arrays else ("",) * len(texts)
        train, test = (self._images(split, len(names), dimension, "text_feat") for split in ("train", "test"))
        has_validation = "image_validation" in self.arrays
        validation = self._images("validation", len(names), dimension, "text_feat") if has_validation else None
        return OwnFeatures(
            class_names=names,
            train=train,
            validation=validation,
            test=test,
            text_features=texts[order].float(),
            text_classes=classes[order],
            text_sentences=tuple(sentences[row] for row in order.tolist()),
            text_kinds=tuple(kinds[row] for row in order.tolist()),
            logit_scale=self._logit_scale(),
            remarks=tuple(self.remarks),
        )

    def images_alone(self) -> ClassFeatures:
        """Return the images, checked."""
        names = self._words("class_names")
        train = self._images("train", len(names))
        test = self._images("test", len(names), train.features.shape[-1], "image_train")
        return ClassFeatures(names, train, test)

    def _images(self, split: str, classes: int, dimension: int | None = None, of: str = "") -> ImageFeatures:
        """Return the images of a split, whose features have as many numbers as those of another key."""
        key = f"image_{split}"
        features = self._features(key, (2, 3))
        if dimension is not None and features.shape[-1] != dimension:
            raise self.error(key, f"features have {features.shape[-1]} numbers, but {of} has {dimension}")
        labels = self._labels(f"label_{split}", len(features), classes, key)
        views = features if features.dim() == 3 else features[:, None]
        return ImageFeatures(views, labels, torch.arange(len(labels)))

    def _features(self, key: str, dims: tuple[int, ...]) -> Tensor:
        values = self.arrays[key]
        if values.ndim not in dims or 0 in values.shape:
            expected = " or ".join(str(dim) for dim in dims)
            raise self.error(key, f"shape {values.shape}, expected {expected} dimensions, none of length 0")
        if values.dtype.kind != "f":
            raise self.error(key, f"type {values.dtype}, expected a float type")
        features = torch.from_numpy(values if values.dtype.itemsize <= 4 else values.astype(np.float32))
        lengths = features.float().norm(dim=-1)
        faults = ~(lengths.isfinite() & (lengths > 0))
        if faults.any():
            place = faults.nonzero()[0].tolist()
            raise self.error(key, f"row {place} is zero or holds a number that is not finite")
        if (lengths - 1).abs().max() > _UNIT_TOLERANCE:
            low, high = float(lengths.min()), float(lengths.max())
            self.remarks.append(
                f"{key}: not of length 1 (from {low:.3g} to {high:.3g}); cosines are taken all the same"
            )
        return features

    def _labels(self, key: str, count: int, classes: int, of: str) -> Tensor:
        values = self.arrays[key]
        if values.shape != (count,):
            raise self.error(key, f"shape {values.shape}, expected ({count},): one for each row of {of}")
        if values.dtype.kind not in "iu":
            raise self.error(key, f"type {values.dtype}, expected integers")
        labels = torch.from_numpy(values.astype(np.int64))
        if labels.min() < 0 or labels.max() >= classes:
            found = f"{int(labels.min())} to {int(labels.max())}"
            raise self.error(key, f"labels run from {found}, expected 0 to {classes - 1}: positions in class_names")
        return labels

    def _words(self, key: str, count: int | None = None) -> tuple[str, ...]:
        values = self.arrays[key]
        if values.ndim != 1 or values.dtype.kind not in "US" or not len(values):
            raise self.error(key, f"type {values.dtype} and shape {values.shape}, expected a list of strings")
        if count is not None and len(values) != count:
            raise self.error(key, f"{len(values)} strings, expected {count}: one for each row of text_feat")
        return tuple(word.decode() if isinstance(word, bytes) else word for word in values.tolist())

    def _kinds(self, count: int) -> tuple[str, ...]:
        if "text_kind" not in self.arrays:
            return (KINDS[0],) * count
        kinds = self._words("text_kind", count)
        for kind in kinds:
            if kind not in KINDS:
                raise self.error("text_kind", f"'{kind}' is none of {', '.join(KINDS)}.{nearest(kind, KINDS)}")
        return kinds

    def _logit_scale(self) -> float | None:
        if "logit_scale" not in self.arrays:
            return None
        values = self.arrays["logit_scale"]
        if values.size != 1 or values.dtype.kind not in "fiu" or not float(values.reshape(())) > 0:
            raise self.error("logit_scale", "expected one number above 0, such as 100")
        return float(values.reshape(()))
