"""What queries of a run looked at in a memory: ``retrieved_<task>_<name>.json`` beside a result, for the page."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from mmcl.whole_files import write_whole

SCHEMA = 1
PATTERN = "retrieved_*.json"
PICTURE = re.compile(r"data:image/jpeg;base64,[A-Za-z0-9+/=]+")


@dataclass(frozen=True)
class Item:
    """An image or a sentence of the memory.

    Attributes:
        row: in the memory of its modality.
        class_name: what the memory says that it shows.
        weight: share of the query's attention, 0 to 1.
        rank: 1 for the nearest to the query.
        picture: small JPEG as a data URI; None for sentences and where there are features alone.
        text: the sentence; empty for images and where it is not known.
    """

    row: int
    class_name: str
    weight: float
    rank: int
    picture: str | None
    text: str


@dataclass(frozen=True)
class Query:
    """A query with its answer and what it looked at.

    Attributes:
        name: its file, or its row among the queries of its task.
        picture: as that of an :class:`Item`.
        truth: name of the true class; None where it is not known.
        answers: the best classes with their scores, best first.
        images: items of the image memory with most attention, most first.
        sentences: items of the text memory likewise.
        seen_images: how many images it attended to.
        seen_sentences: how many sentences it attended to.
    """

    name: str
    picture: str | None
    truth: str | None
    answers: tuple[tuple[str, float], ...]
    images: tuple[Item, ...]
    sentences: tuple[Item, ...]
    seen_images: int
    seen_sentences: int

    @property
    def right(self) -> bool | None:
        """Whether the best class is the true one; None where that is not known."""
        return None if self.truth is None else self.answers[0][0] == self.truth


@dataclass(frozen=True)
class Retrieval:
    """Some queries of a task, answered by one readout; ``nbytes`` is what they take on a page."""

    task: str
    readout: str
    queries: tuple[Query, ...]
    nbytes: int


def read_retrievals(run: Path) -> tuple[list[Retrieval], list[str]]:
    """Read what queries looked at, in the order of the tasks.

    Args:
        run: the folder of a result.

    Returns:
        What was found, nothing for runs that wrote none, and one line for each file that was skipped.
    """
    found: list[Retrieval] = []
    problems: list[str] = []
    for path in sorted(run.glob(PATTERN)):
        try:
            found.append(read_retrieval(path))
        except (OSError, ValueError) as error:
            problems.append(f"{path}: skipped: {error}")
    return found, problems


def read_retrieval(path: Path) -> Retrieval:
    """Read one file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is of another form.
    """
    text = path.read_text(encoding="utf-8")
    content = json.loads(text)
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise ValueError(f"expected queries of schema {SCHEMA}")
    try:
        queries = tuple(query_of(entry) for entry in content["queries"])
        return Retrieval(str(content["task"]), str(content["readout"]), queries, len(text.encode()))
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(f"a query is of another form ({error!r})") from error


def query_of(entry: Mapping[str, Any]) -> Query:
    """Check what was written about a query; ``truth`` may be missing.

    Raises:
        ValueError: a picture that is no small JPEG, no answer, or a number that is none.
        KeyError, TypeError: something is missing or of another form.
    """
    answers = tuple((str(name), float(score)) for name, score in entry["answers"])
    if not answers:
        raise ValueError("a query without an answer")
    truth = entry.get("truth")
    return Query(
        name=str(entry["name"]),
        picture=_picture(entry["picture"]),
        truth=None if truth is None else str(truth),
        answers=answers,
        images=tuple(_item(item, _picture(item["picture"]), "") for item in entry["images"]),
        sentences=tuple(_item(item, None, str(item["text"])) for item in entry["sentences"]),
        seen_images=int(entry["seen_images"]),
        seen_sentences=int(entry["seen_sentences"]),
    )


def write_retrieval_page(title: str, facts: Mapping[str, str], queries: Sequence[Query], path: Path) -> None:
    """Write a page about a memory and the answers that it gave, which opens offline.

    Args:
        title: heading of the page.
        facts: what there is to know about the memory.
        queries: may be none.
        path: the HTML file.
    """
    environment = Environment(
        loader=PackageLoader("mmcl.report", "."), autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True
    )
    page = environment.get_template("memory_page.html").render(title=title, facts=facts, queries=queries)
    write_whole(path, lambda part: _write_text(part, page))


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _item(item: Mapping[str, Any], picture: str | None, text: str) -> Item:
    return Item(int(item["row"]), str(item["class"]), float(item["weight"]), int(item["rank"]), picture, text)


def _picture(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not PICTURE.fullmatch(value):
        raise ValueError("a picture is no JPEG in base64")
    return value
