"""What queries looked at: which are shown, how they are described, and how large a file gets."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mmcl.engine.retrieved import QUERIES, SHOWN, LooksUp, Surroundings, described, spread_rows, write_retrieved
from mmcl.images import FileImages
from mmcl.memory.class_memory import MemoryContent
from mmcl.memory.prototypes import ClassRows
from mmcl.methods.mml.readout import Retrieved
from mmcl.protocol import ImageFeatures, MemoryItems, Samples
from mmcl.report.retrieved import read_retrieval

CLASSES = 8
NAMES = tuple(f"class {number}" for number in range(CLASSES))


def noise(count: int, side: int = 300) -> Samples:
    pixels = torch.randint(256, (count, 3, side, side), generator=torch.Generator().manual_seed(count))
    return Samples(pixels.to(torch.uint8), torch.arange(count) % CLASSES, torch.arange(count))


def content(images: int, texts: int) -> MemoryContent:
    return MemoryContent(class_rows(images), class_rows(texts), None, CLASSES)


def class_rows(count: int) -> ClassRows:
    return ClassRows(torch.zeros(count, 4), torch.arange(count) * CLASSES // max(count, 1))


def looked(queries: int, images: int, texts: int) -> Retrieved:
    """Return as queries would look that see every row, and the later ones the more."""
    parts: list[Tensor] = []
    for count in (images, texts):
        rows = torch.arange(count).expand(queries, count)
        parts += [rows, torch.softmax(rows.float(), dim=1)]
    return Retrieved(*parts)


class Looking:
    """A method that answers with the class of the query's row, and one query too late."""

    device = torch.device("cpu")

    def scores(self, images: Tensor) -> dict[str, Tensor]:
        return {"mml": -(images[:, 0, :1] - torch.arange(CLASSES)).abs(), "other": torch.zeros(len(images), CLASSES)}

    def retrieved(self, features: Tensor) -> Retrieved:
        return looked(len(features), 40, 40)


def task(items: MemoryItems) -> Any:
    """Return what is read of a memory task: two queries of each class, whose feature is their label."""
    labels = torch.arange(CLASSES).repeat(2)
    queries = ImageFeatures(labels[:, None, None].float(), labels, torch.arange(len(labels)))
    encoded = SimpleNamespace(test=lambda views: queries)
    return SimpleNamespace(
        index=3, name="unseen", class_names=NAMES, encoded=encoded, memory=content(40, 40), items=items
    )


@given(st.lists(st.integers(0, 9), min_size=1, max_size=60), st.integers(1, 8))
def test_one_query_of_each_class_at_most_and_as_many_as_there_can_be(labels: list[int], count: int) -> None:
    given_labels = torch.tensor(labels)
    rows = spread_rows(given_labels, count)
    chosen = given_labels[rows].tolist()
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(count, len(set(labels)))
    assert all(labels.index(label) == row for label, row in zip(chosen, rows.tolist(), strict=True))


def test_the_heaviest_items_come_first_with_their_classes(tmp_path: Path) -> None:
    items = MemoryItems(noise(2, 8), noise(16, 8), tuple(f"sentence {row} " + "word " * 99 for row in range(24)))
    around = Surroundings(NAMES, content(16, 24), items)
    scores = torch.arange(CLASSES).float().expand(2, CLASSES)
    first, second = described(scores, looked(2, 16, 24), around, torch.tensor([0, 1]))
    assert [item["row"] for item in first["images"]] == [15, 14, 13, 12, 11]
    assert [item["rank"] for item in first["images"]] == [16, 15, 14, 13, 12]
    assert [item["class"] for item in first["images"]] == ["class 7", "class 7", "class 6", "class 6", "class 5"]
    assert [item["class"] for item in first["sentences"]] == ["class 7"] * 3 + ["class 6"] * 2
    assert first["sentences"][0]["text"].startswith("sentence 23 word")
    assert len(first["sentences"][0]["text"]) <= 240
    assert first["answers"][:2] == [["class 7", 7.0], ["class 6", 6.0]]
    assert (first["seen_images"], first["seen_sentences"]) == (16, 24)
    assert first["picture"] != second["picture"]
    assert second["name"] == "row 1"


def test_features_alone_show_rows_and_sentences() -> None:
    around = Surroundings(NAMES, content(16, 24), MemoryItems(None, None, ()))
    (query,) = described(torch.zeros(1, CLASSES), looked(1, 16, 24), around, torch.tensor([5]))
    assert query["picture"] is None
    assert query["name"] == "row 5"
    assert {item["picture"] for item in query["images"]} == {None}
    assert [(item["row"], item["text"]) for item in query["sentences"]][:2] == [(23, ""), (22, "")]


def test_a_memory_of_texts_alone_and_a_file_that_is_gone(tmp_path: Path) -> None:
    gone = Samples(FileImages(tmp_path, ("a/gone.png",)), torch.zeros(1), torch.zeros(1))
    around = Surroundings(NAMES, content(0, 3), MemoryItems(gone, noise(0), ("one", "two", "three")))
    (query,) = described(torch.zeros(1, CLASSES), looked(1, 0, 3), around, torch.tensor([0]))
    assert query["images"] == []
    assert [item["text"] for item in query["sentences"]] == ["three", "two", "one"]
    assert (query["name"], query["picture"]) == ("gone.png", None)


def test_the_file_of_a_task_is_whole_readable_and_small_even_of_noise(tmp_path: Path) -> None:
    method = Looking()
    assert isinstance(method, LooksUp)
    sentences = tuple("long " * 100 for _ in range(40))
    write_retrieved(method, task(MemoryItems(noise(16), noise(40), sentences)), tmp_path)
    (path,) = tmp_path.iterdir()
    assert path.name == "retrieved_003_unseen.json"
    assert path.stat().st_size <= 150_000
    found = read_retrieval(path)
    assert (found.task, found.readout, len(found.queries)) == ("unseen", "mml", QUERIES)
    assert [query.truth for query in found.queries] == [
        "class 0",
        "class 2",
        "class 3",
        "class 4",
        "class 6",
        "class 7",
    ]
    assert all(query.right for query in found.queries)
    assert all(query.picture and len(query.images) == len(query.sentences) == SHOWN for query in found.queries)
    before = path.read_bytes()
    write_retrieved(method, task(MemoryItems(noise(16), noise(40), sentences)), tmp_path)
    assert path.read_bytes() == before
    assert json.loads(before)["schema"] == 1
