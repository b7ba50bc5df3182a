"""Result tables of a README, made from kept results as ``experiments/readme/*.yaml`` lays them out."""

from __future__ import annotations

import difflib
import re
import statistics
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from mmcl.errors import UserError, nearest
from mmcl.report.readme_layout import Column, Layout, Line, Source, load_layout
from mmcl.report.written import markdown_table, markdown_text
from mmcl.results.comparison import Comparison, Pick, compare, pick_from
from mmcl.results.store import find_results
from mmcl.results.tables import Row, Table, find_tables, load_table

PAPER_TABLES = "paper_tables"
SEEDS = "seeds"
PAPER_MIB = "paper_mib"  # of model and memory after the last task, counted as papers count
FIGURES_OF_RUNS = (SEEDS, PAPER_MIB)
MANY = 3  # data sets that are named; more are counted
BEGIN = "<!-- mmcl readme: "
END = "<!-- end -->"
BLOCK = re.compile(rf"^({re.escape(BEGIN)}(\S+) -->\n)(.*?)^({re.escape(END)})$", re.MULTILINE | re.DOTALL)


class KeptResults:
    """Results that ``mmcl keep`` copied into folders below one folder."""

    def __init__(self, root: Path) -> None:
        """Read them all.

        Raises:
            UserError: there are none, or some cannot be read.
        """
        results, problems = find_results(root)
        if problems or not results:
            found = "\n".join(problems) or "no result.json below it"
            raise UserError(f"{root}: {found}\nExpected kept results. Type: mmcl keep RUNS {root}/NAME")
        self.root = root
        self._results = results
        self._picks: dict[str, Pick] = {}

    def pick(self, folder: str = "") -> Pick:
        """Return the rule that finds the runs of given overrides in one of the folders, or in all of them.

        Raises:
            UserError: nothing is kept in the folder.
        """
        if folder not in self._picks:
            inside = [result for result in self._results if result.path.is_relative_to(self.root / folder)]
            if not inside:
                folders = sorted({result.path.parents[1].relative_to(self.root).as_posix() for result in self._results})
                raise UserError(f"no kept results '{folder}'.{nearest(folder, folders)}\nKept: {', '.join(folders)}")
            self._picks[folder] = pick_from(inside)
        return self._picks[folder]


def make_tables(layouts: Path, kept: KeptResults) -> dict[str, str]:
    """Return every table of a README as Markdown, by name: those with a layout, and the list of paper tables.

    Args:
        layouts: folder of the layouts, ``NAME.yaml``.
        kept: the results.

    Raises:
        UserError: a layout is wrong, or names what is not there.
    """
    found = [load_layout(path) for path in sorted(layouts.glob("*.yaml"))]
    return {layout.name: fill(layout, kept) for layout in found} | {PAPER_TABLES: paper_tables(kept)}


def refreshed(readme: str, tables: Mapping[str, str]) -> str:
    """Return a README in which every table between marks is the fresh one.

    Raises:
        UserError: a mark names no table or has no end, or a table has no mark.
    """
    marked = [name for _, name, _, _ in BLOCK.findall(readme)]
    if readme.count(BEGIN) != len(marked) or any(BEGIN in body for _, _, body, _ in BLOCK.findall(readme)):
        raise UserError(
            f"a table has no end. Put '{END}' on a line of its own behind each that begins '{BEGIN}NAME -->'"
        )
    for name in marked:
        if name not in tables:
            raise UserError(f"no table '{name}'.{nearest(name, tables)}\nTables: {', '.join(tables)}")
    without = sorted(set(tables) - set(marked))
    if without:
        raise UserError(
            f"no place for {', '.join(without)}. Write '{BEGIN}{without[0]} -->' and '{END}' where it belongs"
        )
    return BLOCK.sub(lambda block: f"{block[1]}{tables[block[2]]}\n{block[4]}", readme)


def stale_lines(readme: str, fresh: str) -> list[str]:
    """Return the lines that differ, as ``-`` what stands there and ``+`` what the results give; empty when none do."""
    difference = difflib.unified_diff(readme.splitlines(), fresh.splitlines(), lineterm="", n=0)
    return [line for line in difference if not line.startswith(("---", "+++"))]


def fill(layout: Layout, kept: KeptResults) -> str:
    """Return a table of a layout as Markdown.

    Raises:
        UserError: the layout names a table or folder that is not there, or a row or column stays empty.
    """
    rows = [[_text(layout, row, column, kept) for column in layout.columns] for row in layout.rows]
    for row, texts in zip(layout.rows, rows, strict=True):
        if not any(texts):
            raise UserError(f"{layout.path}: row '{row.label}': no kept run gives any of its figures")
    for index, column in enumerate(layout.columns):
        if not any(texts[index] for texts in rows):
            raise UserError(f"{layout.path}: column '{column.heading}': no kept run gives any of its figures")
    headings = [layout.heading, *(column.heading for column in layout.columns)]
    return markdown_table(headings, [[row.label, *texts] for row, texts in zip(layout.rows, rows, strict=True)])


def _text(layout: Layout, row: Line, column: Column, kept: KeptResults) -> str:
    """Return the text of a cell; empty where nothing was run."""
    source, words = layout.source(row, column), {**column.words, **row.words}
    where = f"{layout.path}: row '{row.label}', column '{column.heading}'"
    try:
        if source.text is not None:
            return source.text.format_map(words)
        labels = ("",) if source.overrides is not None else source.row or ()
        return ", ".join(_figure(source, label.format_map(words), kept) for label in labels)
    except KeyError as error:
        raise UserError(
            f"{where}: no word {error}. Give it to the row or the column, such as words: {{...}}"
        ) from error
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def _figure(source: Source, label: str, kept: KeptResults) -> str:
    if source.table is None or source.results is None or source.figure is None:
        raise UserError("table, results and figure are needed. Give them to the cells of the whole layout")
    table = _table(source.table)
    row = _row(table, label, source)
    if row is None:
        return ""
    (entry,) = compare(replace(table, rows=(row,)), kept.pick(source.results)).rows
    if source.figure in FIGURES_OF_RUNS:
        return _of_runs(entry, source) if entry.measured else ""
    return _of_readout(entry, source, table)


@lru_cache
def _table(name: str) -> Table:
    return load_table(name)


def _row(table: Table, label: str, source: Source) -> Row | None:
    """Return the row of a table as the kept runs were made; ``None`` where the table has none of the label."""
    readout = source.readout or ""
    if source.overrides is not None:
        return Row(label, (*source.overrides, *(source.also or ())), readout, {})
    row = next((row for row in table.rows if row.label == label), None)
    if row is None or row.overrides is None:
        return None
    return replace(row, overrides=(*row.overrides, *(source.also or ())), readout=readout or row.readout)


def _of_runs(entry: Comparison, source: Source) -> str:
    if source.figure == SEEDS:
        return str(entry.seeds)
    last = [result.bytes_per_task[-1] for result in entry.results]
    mebibytes = statistics.fmean((size["paper_model_bytes"] + size["paper_memory_bytes"]) / 2**20 for size in last)
    return f"{mebibytes:.{source.decimals}f}"


def _of_readout(entry: Comparison, source: Source, table: Table) -> str:
    ours, deviation = (figures.get(source.figure or "") for figures in (entry.measured, entry.spread))
    if source.entry is not None:
        if source.entry not in table.columns:
            return ""
        index = table.columns.index(source.entry)
        ours, deviation = (curve[index] if isinstance(curve, tuple) else None for curve in (ours, deviation))
    if not isinstance(ours, float):
        return ""
    text = f"{ours:.{source.decimals}f}"
    spread = f"{deviation:.{source.decimals}f}" if isinstance(deviation, float) and source.spread else "0"
    return f"{text} ± {spread}" if float(spread) else text


def paper_tables(kept: KeptResults) -> str:
    """Return a list of all tables with printed values: where they are printed, how many rows, how many were run."""
    tables = [table for table in map(load_table, find_tables()) if any(row.printed for row in table.rows)]
    rows: list[list[str]] = []
    shown = ""
    for paper, table in sorted(((_short(table.paper), table) for table in tables), key=lambda pair: pair[0]):
        printed = [entry for entry in compare(table, kept.pick()).rows if entry.row.printed]
        run = sum(bool(entry.measured) for entry in printed)
        source = markdown_text(table.source)
        rows.append(
            [paper if paper != shown else "", f"`{table.name}`", source, str(len(printed)), str(run), _data(table)]
        )
        shown = paper
    return markdown_table(["paper", "table", "values from", "rows", "rows run", "data"], rows)


def _short(paper: str) -> str:
    """Return the name of a paper up to its year."""
    return markdown_text(re.sub(r"(\b(?:19|20)\d\d\b).*", r"\1", paper))


def _data(table: Table) -> str:
    return ", ".join(table.data) if len(table.data) <= MANY else f"{len(table.data)} data sets"
