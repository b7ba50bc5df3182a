"""Whole pickled torch modules, read as named tensors so that a foreign file cannot run code.

Both layouts of ``torch.save`` are known: the archive that torch writes since 1.6, and the one before, whose pickles
and raw values follow each other. Nothing of a file is looked up in Python's modules: a name stands for one of the
inert parts below, or the file is refused.
"""

from __future__ import annotations

import math
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

from mmcl.errors import UserError

UNREADABLE = (
    *(OSError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile, zlib.error, struct.error),
    *(ValueError, LookupError, TypeError, AttributeError, RuntimeError, OverflowError, MemoryError),
)
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
ClassName = tuple[str, str]  # its module, its name


class PickledModule:
    """Stands for any module: keeps what was recorded of it and computes nothing.

    Attributes:
        state: its attributes, those of ``torch.nn.Module`` under ``_parameters``, ``_buffers`` and ``_modules``.
    """

    state: dict[str, Any]

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.state = dict(state)


class _Names(dict[str, Any]):
    """Stands for ``OrderedDict``; what is attached to one, such as the versions of modules, is dropped."""

    def __setstate__(self, state: object) -> None:
        pass


class _Storage(NamedTuple):
    """A run of numbers that tensors are cut from."""

    values: Tensor


def _tensor(storage: _Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object) -> Tensor:
    values = storage.values
    if math.prod(size) > len(values):
        raise ValueError(f"a tensor {size} of {len(values)} numbers")
    return values.as_strided(size, stride, offset)  # raises RuntimeError beyond the storage


def _parameter(tensor: Tensor, *_: object) -> Tensor:
    return tensor


def _nothing() -> None:
    """Stands for the table of kernels that modules of torch before 1.3 refer to."""


DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
PLAIN_MODULES = {
    "conv": ("Conv2d",),
    "batchnorm": ("BatchNorm2d",),
    "activation": ("ReLU",),
    "pooling": ("AvgPool2d", "AdaptiveAvgPool2d", "MaxPool2d"),
    "container": ("Sequential",),
}
_KNOWN: dict[ClassName, Any] = {
    ("collections", "OrderedDict"): _Names,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch.nn.backends.thnn", "_get_thnn_function_backend"): _nothing,
    **{("torch", storage): dtype for storage, dtype in DTYPES.items()},
    **{(f"torch.nn.modules.{file}", name): PickledModule for file, names in PLAIN_MODULES.items() for name in names},
}


def read_pickled(file: Path, modules: Collection[ClassName]) -> dict[str, Tensor]:
    """Return the tensors of a pickled module, or of a pickled state dict, by their names in ``state_dict``.

    Args:
        file: what ``torch.save`` wrote.
        modules: the classes of modules that may occur beside those of ``torch.nn``; each is stood for by
            :class:`PickledModule`, none is imported.

    Raises:
        UserError: no such file, cut short, of another layout, or naming anything else than modules and tensors.
    """
    if not file.is_file():
        raise UserError(f"{file}: no such file")
    known = _KNOWN | dict.fromkeys(modules, PickledModule)
    try:
        content = _from_archive(file, known) if zipfile.is_zipfile(file) else _from_sequence(file, known)
        named = dict(_named_tensors(content))
    except UNREADABLE as error:
        raise UserError(
            f"{file} cannot be read ({error or type(error).__name__}). Expected a whole module or its state dict, "
            "saved by torch; if the file was cut short, bring it again"
        ) from error
    if not named:
        raise UserError(f"{file} holds no named tensors. Expected a whole module or its state dict, saved by torch")
    return named


class _Unpickler(pickle.Unpickler):
    """Knows modules and tensors only; ``load_storage`` finds the numbers that a tensor is cut from."""

    def __init__(self, file: Any, known: dict[ClassName, Any], load_storage: Callable[..., _Storage] | None) -> None:
        super().__init__(file, encoding="utf-8")
        self._known = known
        self._load_storage = load_storage

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._known:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a file of weights")
        return self._known[module, name]

    def persistent_load(self, reference: Any) -> Any:
        kind, *details = reference
        if kind == "module":  # a class with its source, as torch before 1.6 keeps it
            return details[0]
        if kind != "storage" or self._load_storage is None:
            raise pickle.UnpicklingError(f"an unknown reference {kind!r}")
        dtype, name, _, count, *view = details
        if not isinstance(dtype, torch.dtype) or any(part is not None for part in view):
            raise pickle.UnpicklingError("a storage of an unknown kind")
        return self._load_storage(dtype, str(name), int(count))


def _from_archive(file: Path, known: dict[ClassName, Any]) -> Any:
    """Read a zip archive: ``<top>/data.pkl``, and the numbers of each storage in ``<top>/data/<name>``."""
    with zipfile.ZipFile(file) as archive:
        (pickled,) = [name for name in archive.namelist() if name.endswith("/data.pkl") or name == "data.pkl"]
        top = pickled.removesuffix("data.pkl")
        if f"{top}byteorder" in archive.namelist() and archive.read(f"{top}byteorder") != b"little":
            raise ValueError("numbers with the most significant byte first")
        storages: dict[str, _Storage] = {}

        def load(dtype: torch.dtype, name: str, count: int) -> _Storage:
            if name not in storages:
                content = archive.read(f"{top}data/{name}")
                storages[name] = _Storage(_filled(torch.empty(0, dtype=dtype), count, content))
            return storages[name]

        with archive.open(pickled) as stream:
            return _Unpickler(stream, known, load).load()


def _from_sequence(file: Path, known: dict[ClassName, Any]) -> Any:
    """Read the layout before torch 1.6: header, module, names of its storages, then the numbers of each of them."""
    largest = file.stat().st_size
    storages: dict[str, _Storage] = {}

    def load(dtype: torch.dtype, name: str, count: int) -> _Storage:
        if not 0 <= count * dtype.itemsize <= largest:
            raise ValueError(f"{count} numbers in a file of {largest} bytes")
        if name not in storages:
            storages[name] = _Storage(torch.empty(count, dtype=dtype))
        return storages[name]

    def pickled(stream: BinaryIO) -> Any:
        return _Unpickler(stream, known, None).load()

    with file.open("rb") as stream:
        if (pickled(stream), pickled(stream)) != (LEGACY_MAGIC, LEGACY_PROTOCOL):
            raise ValueError("not written by torch.save")
        if not pickled(stream)["little_endian"]:
            raise ValueError("numbers with the most significant byte first")
        content = _Unpickler(stream, known, load).load()
        names = pickled(stream)
        if set(names) != set(storages):
            raise ValueError("its storages are not those that its tensors need")
        for name in names:
            values = storages[name].values
            (count,) = struct.unpack("<q", stream.read(8))
            if count != len(values):
                raise ValueError(f"a storage of {count} numbers, expected {len(values)}")
            _filled(values, count, stream.read(count * values.itemsize))
    return content


def _filled(values: Tensor, count: int, content: bytes) -> Tensor:
    """Write raw numbers, the least significant byte first, into a tensor, which grows to hold them."""
    if len(content) != count * values.itemsize:
        raise EOFError(f"{len(content)} bytes where {count * values.itemsize} were expected")
    values.resize_(count)
    if count:
        values.copy_(torch.frombuffer(bytearray(content), dtype=values.dtype))
    return values


def _named_tensors(content: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a module, of a state dict, or of one under ``state_dict``."""
    if isinstance(content, PickledModule):
        yield from _tensors_of(content, "", set())
        return
    if not isinstance(content, dict):
        raise TypeError(f"a {type(content).__name__} where a module was expected")
    inner = content.get("state_dict", content)
    yield from ((str(name), value) for name, value in dict(inner).items() if isinstance(value, Tensor))


def _tensors_of(module: PickledModule, prefix: str, met: set[int]) -> Iterator[tuple[str, Tensor]]:
    if not isinstance(module, PickledModule):
        raise TypeError(f"a {type(module).__name__} as the module {prefix}")
    if id(module) in met:  # a part that occurs twice has the names of its first place
        return
    met.add(id(module))
    for group in ("_parameters", "_buffers"):
        for name, value in module.state[group].items():
            if isinstance(value, Tensor):
                yield f"{prefix}{name}", value
    for name, child in module.state["_modules"].items():
        if child is not None:
            yield from _tensors_of(child, f"{prefix}{name}.", met)
