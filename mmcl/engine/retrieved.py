"""What queries looked at, for people: pictures, sentences and the attention that each of them got."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any, Protocol, runtime_checkable

import torch
from PIL import Image
from torch import Tensor

from mmcl.benchmarks.files import open_image
from mmcl.errors import UserError
from mmcl.images import FileImages
from mmcl.memory.class_memory import MemoryContent
from mmcl.methods.mml.readout import Retrieved
from mmcl.protocol import MemoryItems, MemoryTask, Samples
from mmcl.whole_files import write_whole

SCHEMA = 1
READOUT = "mml"
QUERIES = 6
SHOWN = 5  # items of a modality, and answers
SIDE, QUALITY = 56, 70  # of a picture, so that a task has at most 150 kB whatever is on its images
LONGEST = 240  # characters of a sentence


@runtime_checkable
class LooksUp(Protocol):
    """A method that can say what its queries look at in the memory of its task."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        ...

    def scores(self, images: Tensor) -> dict[str, Tensor]:
        """Return the scores of each readout for plain queries ``(B, 1, D)``."""
        ...

    def retrieved(self, features: Tensor) -> Retrieved:
        """Return what queries ``(B, D)`` look at."""
        ...


@dataclass(frozen=True)
class Surroundings:
    """What rows of queries and of a memory are.

    Attributes:
        class_names: C names.
        content: the rows with their classes.
        items: the images and sentences behind them.
    """

    class_names: Sequence[str]
    content: MemoryContent
    items: MemoryItems


def write_retrieved(method: LooksUp, task: MemoryTask, folder: Path) -> None:
    """Write ``retrieved_<task>_<name>.json`` into the directory of a run: a few queries and what they looked at.

    Args:
        method: remembers what the task brought; on the device of the run.
        task: asks for queries.
        folder: directory of the run.
    """
    asked = task.encoded.test(1)
    rows = spread_rows(asked.labels, QUERIES)
    features = asked.features[rows].float().to(method.device)
    with torch.no_grad():
        scores = method.scores(features)[READOUT]
    around = Surroundings(task.class_names, task.memory, task.items)
    queries = described(scores, method.retrieved(features[:, 0]), around, rows)
    for query, label in zip(queries, asked.labels[rows].tolist(), strict=True):
        query["truth"] = task.class_names[label]
    text = json.dumps({"schema": SCHEMA, "task": task.name, "readout": READOUT, "queries": queries})
    path = folder / f"retrieved_{task.index:03d}_{task.name}.json"
    write_whole(path, lambda part: part.write_text(text, encoding="utf-8"))


def spread_rows(labels: Tensor, count: int) -> Tensor:
    """Return the first row of each of at most ``count`` classes, which lie evenly among those of ``labels (N,)``."""
    present = torch.unique(labels)
    chosen = min(count, len(present))
    places = ((torch.arange(chosen) + 0.5) * len(present) / chosen).long()
    return torch.stack([(labels == label).nonzero()[0, 0] for label in present[places]])


def described(scores: Tensor, looked: Retrieved, around: Surroundings, rows: Tensor) -> list[dict[str, Any]]:
    """Describe answers as plain types.

    Args:
        scores: of B queries ``(B, C)``.
        looked: what they looked at.
        around: what rows are.
        rows: row of each query among ``around.items.queries``, int64 ``(B,)``.

    Returns:
        For each query its ``name`` and ``picture``; ``answers``, the best classes with their scores; ``images`` and
        ``sentences``, those that it attends to most, each with ``row``, ``class``, ``weight``, ``rank`` by nearness
        and ``picture`` or ``text``; ``seen_images`` and ``seen_sentences``, how many it attends to. Pictures are data
        URIs, None where there is nothing to show.
    """
    images, texts = around.content.images.classes, around.content.texts.classes
    best = scores.topk(min(SHOWN, scores.shape[1]), dim=1)
    queries = []
    for number, row in enumerate(rows.tolist()):
        answers = zip(best.indices[number].tolist(), best.values[number].tolist(), strict=True)
        seen_images = _Seen(looked.image_rows[number], looked.image_weights[number], images)
        seen_texts = _Seen(looked.text_rows[number], looked.text_weights[number], texts)
        queries.append(
            {
                "name": _name(around.items.queries, row),
                "picture": _picture(around.items.queries, row),
                "answers": [[around.class_names[label], score] for label, score in answers],
                "images": [
                    {**item, "picture": _picture(around.items.images, item["row"])}
                    for item in seen_images.heaviest(around.class_names)
                ],
                "sentences": [
                    {**item, "text": _sentence(around.items.sentences, item["row"])}
                    for item in seen_texts.heaviest(around.class_names)
                ],
                "seen_images": len(looked.image_rows[number]),
                "seen_sentences": len(looked.text_rows[number]),
            }
        )
    return queries


@dataclass(frozen=True)
class _Seen:
    """Items of a modality that a query sees: rows and weights ``(k,)``, and the class of every row ``(N,)``."""

    rows: Tensor
    weights: Tensor
    classes: Tensor

    def heaviest(self, class_names: Sequence[str]) -> list[dict[str, Any]]:
        order = self.weights.argsort(descending=True, stable=True)[:SHOWN].tolist()
        rows, weights = self.rows.tolist(), self.weights.tolist()
        return [
            {
                "row": rows[at],
                "class": class_names[int(self.classes[rows[at]])],
                "weight": weights[at],
                "rank": at + 1,
            }
            for at in order
        ]


def _name(samples: Samples | None, row: int) -> str:
    return Path(samples.images.paths[row]).name if samples and isinstance(samples.images, FileImages) else f"row {row}"


def _sentence(sentences: Sequence[str], row: int) -> str:
    return shorten(sentences[row], LONGEST, placeholder=" ...") if row < len(sentences) else ""


def _picture(samples: Samples | None, row: int) -> str | None:
    """Return a small JPEG as a data URI; None where there is no image, or none that can still be read."""
    if samples is None or isinstance(samples.images, Tensor) and samples.images.dtype != torch.uint8:
        return None
    try:
        image = open_image(samples.images, row)
    except UserError:
        return None
    image.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
