"""What is remembered about classes behind a frozen encoder: images, texts and prototypes, replaced without training.

The memory of Kang et al., "Memory-Modular Classification: Learning to Generalize with Memory Replacement", TMLR 2025.
Classes are positions 0 to C - 1. Whatever fails leaves the memory as it was.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mmcl.errors import MissingFileError, UserError, nearest
from mmcl.memory.prototypes import ClassRows, Prototypes, prototypes
from mmcl.whole_files import write_whole

FORMAT = 1
STORAGES = {"float32": torch.float32, "float16": torch.float16}
_PARTS = ("images", "texts", "shots")


class MemoryContent(NamedTuple):
    """Rows of C classes, as the encoder gives them (not normalised).

    Attributes:
        images: encoded images, perhaps of the web; a class may have none.
        texts: encoded sentences; every class has some, or none has any (``(0, D)``).
        shots: labelled images that stand for the images in prototypes; None without any.
        class_count: C.
    """

    images: ClassRows
    texts: ClassRows
    shots: ClassRows | None
    class_count: int

    def parts(self) -> dict[str, ClassRows]:
        """Return the rows that are there by name."""
        return {name: rows for name in _PARTS if (rows := getattr(self, name)) is not None}


@dataclass(frozen=True)
class _Held:
    content: MemoryContent
    prototypes: Prototypes


class ClassMemory(nn.Module):
    """The rows of a set of classes with their prototypes.

    Rows lie by class, in the order in which they came inside a class. They are neither parameters nor buffers: moving
    the module does not move them, and ``state_dict`` holds them as they are stored. Prototypes are computed for the
    classes that are new alone, to the bit as all at once.

    Args:
        encoder: fingerprint of the encoder that the rows come from; rows of another are refused.
        top: how many rows of a class and modality a prototype averages.
        storage: ``float32`` or ``float16``, how rows are kept; prototypes are float32.

    Raises:
        UserError: an unknown storage.
    """

    def __init__(self, encoder: str, top: int, storage: str = "float32") -> None:
        super().__init__()
        if storage not in STORAGES:
            known = ", ".join(STORAGES)
            raise UserError(f"storage={storage}: expected one of {known}.{nearest(storage, STORAGES)}")
        self.encoder, self.top, self.storage = encoder, top, storage
        self._held: _Held | None = None

    # ------------------------------------------------------------------ what is there

    @property
    def class_count(self) -> int:
        """Number of classes; 0 in an empty memory."""
        return 0 if self._held is None else self._held.content.class_count

    @property
    def content(self) -> MemoryContent:
        """The rows by class, in the type of the storage.

        Raises:
            UserError: the memory is empty.
        """
        return self._full().content

    @property
    def prototypes(self) -> Prototypes:
        """Unit rows float32 ``(C, D)`` of images and texts.

        Raises:
            UserError: the memory is empty.
        """
        return self._full().prototypes

    @property
    def nbytes(self) -> int:
        """Bytes of rows, their classes and the prototypes."""
        if self._held is None:
            return 0
        rows = self._held.content.parts().values()
        return sum(tensor.nbytes for part in (*rows, self._held.prototypes) for tensor in part)

    def fingerprint(self) -> str:
        """Return the SHA-256 of encoder and rows, types and shapes included: what answers depend on."""
        digest = hashlib.sha256(json.dumps([self.encoder, self.top, self.class_count]).encode())
        parts = {} if self._held is None else self._held.content.parts()
        for name, rows in parts.items():
            for values in rows:
                digest.update(f"{name}{values.dtype}{tuple(values.shape)}".encode())
                digest.update(values.contiguous().cpu().numpy().data)
        return digest.hexdigest()

    # ------------------------------------------------------------------ changes

    def replace(self, content: MemoryContent, encoder: str) -> None:
        """Forget all and remember these classes.

        Args:
            content: rows in any order.
            encoder: fingerprint of the encoder that they come from.

        Raises:
            UserError: another encoder, no class, a class without text where others have some, or with nothing, lengths
                that differ, or numbers that the storage cannot hold.
        """
        self._require_encoder(encoder)
        self._held = self._made(content)

    def append(self, content: MemoryContent, encoder: str) -> None:
        """Remember further classes; class c of the content becomes class C + c.

        Raises:
            UserError: as for :meth:`replace`, or shots or texts here and none there.
        """
        self._require_encoder(encoder)
        added = self._made(content)
        self._held = added if self._held is None else _joined(self._held, added)

    def union(self, other: ClassMemory) -> None:
        """Remember the classes of another memory behind the own ones, with the prototypes that they have there.

        Raises:
            UserError: it comes from another encoder, averages or stores otherwise, is empty, or has shots or texts and
                this one none.
        """
        self._require_encoder(other.encoder)
        for name in ("top", "storage"):
            ours, theirs = getattr(self, name), getattr(other, name)
            if ours != theirs:
                raise UserError(f"one memory has {name}={ours}, the other {theirs}: make both with the same")
        self._held = other._full() if self._held is None else _joined(self._held, other._full())

    def remove(self, classes: Iterable[int]) -> None:
        """Forget these classes; later ones move up.

        Raises:
            UserError: a class that is not there.
        """
        gone = set(classes)
        unknown = sorted(gone - set(range(self.class_count)))
        if unknown:
            raise UserError(f"class {unknown[0]} is not in the memory: expected 0 to {self.class_count - 1}")
        kept = [number for number in range(self.class_count) if number not in gone]
        self._held = _selected(self._full(), kept) if kept else None

    # ------------------------------------------------------------------ files and states

    def save(self, path: Path, source: Mapping[str, Any]) -> None:
        """Write the memory into one safetensors file, whole or not at all.

        Args:
            path: the file, which is replaced.
            source: where the rows come from, as plain types: data set, mapping of classes, preprocessing. It becomes
                part of the JSON recipe in the head of the file.

        Raises:
            UserError: the memory is empty, or the disk is full.
        """
        from safetensors.torch import save

        tensors = {name: values.contiguous() for name, values in _tensors(self.content).items()}
        facts = {"class_count": self.class_count, "fingerprint": self.fingerprint(), "source": dict(source)}
        recipe = self._recipe() | facts
        head = {"recipe": json.dumps(recipe, sort_keys=True)}
        write_whole(path, lambda part: _write_bytes(part, save(tensors, metadata=head)))

    def load(self, path: Path) -> dict[str, Any]:
        """Take the memory out of a file and return its recipe.

        Raises:
            UserError: the file is missing, damaged or no memory, or it was made with another encoder, ``top`` or
                storage.
        """
        recipe, tensors = _read(path)
        for name, ours in self._recipe().items():
            if recipe.get(name) != ours:
                raise UserError(f"{path} was made with {name}={recipe.get(name)}, asked for is {ours}: make it anew")
        loaded = ClassMemory(self.encoder, self.top, self.storage)
        loaded.replace(_content_of(tensors, recipe["class_count"]), self.encoder)
        if loaded.fingerprint() != recipe["fingerprint"]:
            raise UserError(f"{path} is damaged: its fingerprint is another. Make it anew")
        self._held = loaded._held
        return recipe

    def get_extra_state(self) -> dict[str, Any]:
        """Return the state as tensors and plain types."""
        held = (
            {}
            if self._held is None
            else _tensors(self._held.content) | dict(_named("prototypes", self._held.prototypes))
        )
        return {**self._recipe(), "class_count": self.class_count, "tensors": held}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take a saved state.

        Raises:
            UserError: it is of another encoder, another ``top`` or another storage.
        """
        for name, ours in self._recipe().items():
            if state[name] != ours:
                raise UserError(f"the saved memory was made with {name}={state[name]}, this run has {ours}")
        tensors, held = state["tensors"], None
        if tensors:
            content = _content_of(tensors, state["class_count"])
            held = _Held(content, Prototypes(tensors["prototypes.images"], tensors["prototypes.texts"]))
        self._held = held

    # ------------------------------------------------------------------ inside

    def _recipe(self) -> dict[str, Any]:
        return {"format": FORMAT, "encoder": self.encoder, "top": self.top, "storage": self.storage}

    def _full(self) -> _Held:
        if self._held is None:
            raise UserError("the memory is empty: replace it with the rows of at least one class first")
        return self._held

    def _require_encoder(self, encoder: str) -> None:
        if encoder != self.encoder:
            raise UserError(
                f"rows of the encoder {encoder} for a memory of the encoder {self.encoder}: their directions mean "
                "other things. Encode images and texts with the same weights"
            )

    def _made(self, content: MemoryContent) -> _Held:
        if content.class_count < 1:
            raise UserError("a memory needs at least one class; these rows are of none")
        parts = {name: self._stored(name, rows) for name, rows in content.parts().items()}
        widths = {rows.features.shape[1] for rows in parts.values()}
        if len(widths) > 1:
            raise UserError(f"images and texts are of different lengths {sorted(widths)}: encode both with one encoder")
        made = MemoryContent(parts["images"], parts["texts"], parts.get("shots"), content.class_count)
        return _Held(made, prototypes(*made.images, *made.texts, made.class_count, self.top, made.shots))

    def _stored(self, name: str, rows: ClassRows) -> ClassRows:
        if len(rows.features) != len(rows.classes):
            raise UserError(f"{len(rows.features)} {name} with {len(rows.classes)} classes: give each its class")
        order = torch.argsort(rows.classes, stable=True)
        features = rows.features[order].to(STORAGES[self.storage])
        if not torch.isfinite(features).all():
            raise UserError(
                f"{name} of the memory have a number that is not finite in {self.storage}. Take storage=float32, or "
                "encode them again"
            )
        return ClassRows(features, rows.classes[order])


def _write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that a failure is an OSError."""
    path.write_bytes(content)


def _joined(first: _Held, second: _Held) -> _Held:
    """Put classes behind others."""
    ours, theirs = first.content, second.content
    if (ours.shots is None) != (theirs.shots is None):
        raise UserError(
            "classes with shots and classes without in one memory: bring shots for all of them, or for none"
        )
    if (len(ours.texts.classes) == 0) != (len(theirs.texts.classes) == 0):
        raise UserError(
            "classes with texts and classes without in one memory: bring sentences for all of them, or for none"
        )
    if ours.texts.features.shape[1] != theirs.texts.features.shape[1]:
        raise UserError(
            f"rows of length {theirs.texts.features.shape[1]} for a memory of length {ours.texts.features.shape[1]}: "
            "encode both with one encoder"
        )
    behind = {name: ClassRows(rows.features, rows.classes + ours.class_count) for name, rows in theirs.parts().items()}
    parts = {name: _concatenated(rows, behind[name]) for name, rows in ours.parts().items()}
    content = MemoryContent(parts["images"], parts["texts"], parts.get("shots"), ours.class_count + theirs.class_count)
    return _Held(content, Prototypes(*map(torch.cat, zip(first.prototypes, second.prototypes, strict=True))))


def _concatenated(first: ClassRows, second: ClassRows) -> ClassRows:
    return ClassRows(*(torch.cat(pair) for pair in zip(first, second, strict=True)))


def _selected(held: _Held, kept: list[int]) -> _Held:
    """Keep classes, ascending, and number them anew."""
    number = torch.full((held.content.class_count,), -1, dtype=torch.int64)
    number[kept] = torch.arange(len(kept))
    parts = {}
    for name, rows in held.content.parts().items():
        renumbered = number.to(rows.classes.device)[rows.classes]
        stays = renumbered >= 0
        parts[name] = ClassRows(rows.features[stays], renumbered[stays])
    content = MemoryContent(parts["images"], parts["texts"], parts.get("shots"), len(kept))
    return _Held(content, Prototypes(*(side[kept] for side in held.prototypes)))


def _tensors(content: MemoryContent) -> dict[str, Tensor]:
    return dict(named for name, rows in content.parts().items() for named in _named(name, rows))


def _named(name: str, part: ClassRows | Prototypes) -> Iterable[tuple[str, Tensor]]:
    return [(f"{name}.{field}", values) for field, values in part._asdict().items()]


def _content_of(tensors: Mapping[str, Tensor], class_count: int) -> MemoryContent:
    parts = {
        name: ClassRows(tensors[f"{name}.features"], tensors[f"{name}.classes"])
        for name in _PARTS
        if f"{name}.features" in tensors
    }
    return MemoryContent(parts["images"], parts["texts"], parts.get("shots"), class_count)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return recipe and tensors of a file, checked for what any memory has."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise MissingFileError(f"there is no memory {path}. Name a file that a memory was saved to")
    try:
        with safe_open(path, "pt") as file:
            recipe = {"class_count": 0, "fingerprint": ""} | json.loads((file.metadata() or {})["recipe"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        _content_of(tensors, 0)
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise UserError(f"{path} is no memory that can be read ({error}). Make it anew") from error
    return recipe, tensors
