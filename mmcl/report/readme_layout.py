"""Layouts of a README's result tables as data: which figure of which kept runs stands in which cell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from mmcl.errors import UserError, nearest


@dataclass(frozen=True)
class Source:
    """Where the text of a cell comes from. What is ``None`` is said by the row, the column or the whole layout.

    Attributes:
        results: folder of kept results, below ``experiments/results``.
        table: name of a table; its rows say how a run is made, its columns what the entries of a curve are.
        row: label of a row of the table; several of them give figures with commas between.
        overrides: those of the run, in place of a row's own.
        also: overrides that the kept runs had beside those of the row.
        readout: readout of the figure, in place of the row's own.
        figure: a figure of ``Comparison.measured``, or one of ``readme.FIGURES_OF_RUNS``.
        entry: of a curve, the column of the table.
        text: text as it is, in place of a figure.
        decimals: digits behind the point.
        spread: whether the standard deviation over seeds is shown, where it is not zero.
    """

    results: str | None = None
    table: str | None = None
    row: tuple[str, ...] | None = None
    overrides: tuple[str, ...] | None = None
    also: tuple[str, ...] | None = None
    readout: str | None = None
    figure: str | None = None
    entry: str | None = None
    text: str | None = None
    decimals: int | None = None
    spread: bool | None = None

    def over(self, below: Source) -> Source:
        """Return this source, completed by one that says less about the cell."""
        return Source(**{**_said(below), **_said(self)})


def _said(source: Source) -> dict[str, Any]:
    return {key: value for key, value in vars(source).items() if value is not None}


@dataclass(frozen=True)
class Column:
    """A column: its heading, words that stand for ``{word}`` in its cells, and what all its cells share."""

    heading: str
    words: Mapping[str, str]
    source: Source


@dataclass(frozen=True)
class Line:
    """A row: its label, words, what all its cells share, and what is different below some headings."""

    label: str
    words: Mapping[str, str]
    source: Source
    at: Mapping[str, Source] = field(default_factory=dict)


@dataclass(frozen=True)
class Layout:
    """A result table of a README.

    Attributes:
        path: its file; the name of the file is that of the table.
        heading: of the column of labels.
        cells: what all cells share.
        columns: the columns behind the labels.
        rows: the rows.
    """

    path: Path
    heading: str
    cells: Source
    columns: tuple[Column, ...]
    rows: tuple[Line, ...]

    @property
    def name(self) -> str:
        """What the README calls the table."""
        return self.path.stem

    def source(self, row: Line, column: Column) -> Source:
        """Return where a cell's text comes from: a row says more than a column, and a cell of a row most."""
        exception = row.at.get(column.heading, Source())
        return exception.over(row.source.over(column.source.over(self.cells)))


def load_layout(path: Path) -> Layout:
    """Read a layout.

    Raises:
        UserError: it is not YAML, or has an unknown, missing or wrong key.
    """
    try:
        node = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {error}") from error
    keys = _keys(node, ("heading", "cells", "columns", "rows"), str(path))
    columns = [_column(column, f"{path}: columns[{index}]") for index, column in enumerate(keys["columns"])]
    headings = [column.heading for column in columns]
    rows = [_line(row, headings, f"{path}: rows[{index}]") for index, row in enumerate(keys["rows"])]
    return Layout(path, str(keys["heading"]), _source(keys["cells"], f"{path}: cells"), tuple(columns), tuple(rows))


def _column(node: Any, where: str) -> Column:
    own, source = _split(node, ("heading",), ("words",), where)
    return Column(str(own["heading"]), _words(own, where), source)


def _line(node: Any, headings: list[str], where: str) -> Line:
    own, source = _split(node, ("label",), ("words", "at"), where)
    exceptions = own.get("at", {})
    for heading in exceptions:
        if heading not in headings:
            raise UserError(f"{where}: at: no column '{heading}'.{nearest(str(heading), headings)}")
    at = {heading: _source(exception, f"{where}: at: {heading}") for heading, exception in exceptions.items()}
    return Line(str(own["label"]), _words(own, where), source, at)


def _words(own: Mapping[str, Any], where: str) -> dict[str, str]:
    words = own.get("words", {})
    if not isinstance(words, dict):
        raise UserError(f"{where}: words: expected such as {{shots: 4 shots}}, got {words!r}")
    return {str(word): str(value) for word, value in words.items()}


def _split(node: Any, needed: tuple[str, ...], further: tuple[str, ...], where: str) -> tuple[dict[str, Any], Source]:
    """Separate the keys of a row or column from those of its source."""
    if not isinstance(node, dict):
        raise UserError(f"{where}: expected keys {', '.join(needed)}; got {node!r}")
    own = {key: value for key, value in node.items() if key in (*needed, *further)}
    for key in needed:
        if key not in own:
            raise UserError(f"{where}: key '{key}' is missing")
    return own, _source({key: value for key, value in node.items() if key not in own}, where)


def _keys(node: Any, needed: tuple[str, ...], where: str) -> dict[str, Any]:
    if not isinstance(node, dict) or set(node) != set(needed):
        raise UserError(f"{where}: expected keys {', '.join(needed)}; got {', '.join(node) if node else node!r}")
    for key in ("columns", "rows"):
        if not isinstance(node[key], list) or not node[key]:
            raise UserError(f"{where}: {key}: expected a list of at least one")
    return node


def _source(node: Any, where: str) -> Source:
    known = {entry.name: entry for entry in fields(Source)}
    if not isinstance(node, dict):
        raise UserError(f"{where}: expected keys such as {', '.join(known)}; got {node!r}")
    for key in node:
        if key not in known:
            raise UserError(f"{where}: unknown key '{key}'.{nearest(str(key), known)}\nKeys: {', '.join(known)}")
    return Source(**{key: _checked(key, value, f"{where}: {key}") for key, value in node.items()})


def _checked(key: str, value: Any, where: str) -> Any:
    """Refuse a value of the wrong kind; one label stands for a list of one."""
    if key in ("row", "overrides", "also"):
        values = [value] if key == "row" and isinstance(value, str) else value
        if not isinstance(values, list) or not all(isinstance(entry, str) for entry in values):
            raise UserError(f"{where}: expected a list of strings, got {value!r}")
        return tuple(values)
    kind: type = {"decimals": int, "spread": bool}.get(key, str)
    if type(value) is not kind:
        raise UserError(f"{where}: expected {kind.__name__}, got {value!r}")
    return value
