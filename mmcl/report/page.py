"""The report: one HTML file with all tables, pictures and runs, which opens offline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from mmcl.report.console import HEADINGS
from mmcl.report.formats import filters
from mmcl.report.plane import find_planes, plane_picture
from mmcl.report.run_list import SECTIONS, addresses_of, common_folder, run_lines, with_section
from mmcl.report.run_section import run_views
from mmcl.report.table_figures import sweep_picture
from mmcl.report.table_section import VERDICTS, table_views
from mmcl.results.comparison import ComparedTable, compare, overrides_of, pick_from
from mmcl.results.memory_sweep import find_sweeps
from mmcl.results.result import Result
from mmcl.results.tables import Table
from mmcl.whole_files import write_whole


def write_report(
    results: Sequence[Result],
    tables: Sequence[Table],
    path: Path | str,
    problems: Sequence[str] = (),
    sections: int = SECTIONS,
) -> Path:
    """Write one page about these results, each table that has a run behind it, and every sweep over budgets.

    Args:
        results: what ``find_results`` returned.
        tables: tables to compare with; those without any run are only named.
        path: the HTML file to write.
        problems: lines to show about files that could not be read.
        sections: how many runs get a section with pictures; all of them are listed.

    Returns:
        The path written.
    """
    pick = pick_from(results)
    compared = [compare(table, pick) for table in tables]
    return write_page(compared, results, path, problems, sections)


def write_page(
    compared: Sequence[ComparedTable],
    results: Sequence[Result],
    path: Path | str,
    problems: Sequence[str] = (),
    sections: int = SECTIONS,
) -> Path:
    """Write one page about tables whose rows are already joined with their runs; see ``write_report``."""
    measured = [table for table in compared if table.measured]
    shown = with_section(results, measured, sections)
    addresses = addresses_of(shown)
    views, unreadable = run_views(shown, addresses)
    sweeps = find_sweeps(results)
    page = _template().render(
        tables=table_views(measured, addresses),
        missing=[table.table for table in compared if not table.measured],
        verdicts=VERDICTS,
        planes=[(plane, Markup(plane_picture(plane))) for plane in find_planes(results)],
        sweeps=sweeps,
        sweep_picture=Markup(sweep_picture({sweep.label: sweep for sweep in sweeps})) if sweeps else "",
        lines=run_lines(results, measured, addresses),
        folder=common_folder(results),
        runs=views,
        problems=[*problems, *unreadable],
        headings=HEADINGS,
        overrides_of=overrides_of,
    )
    path = Path(path).expanduser()
    write_whole(path, lambda part: part.write_text(page, encoding="utf-8"))
    return path


def _template() -> Template:
    loader = PackageLoader("mmcl.report", ".")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(filters())
    return environment.get_template("page.html")
