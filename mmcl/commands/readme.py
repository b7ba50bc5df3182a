"""The command ``mmcl readme``: the result tables of the README are those of the kept results, or it says which not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from mmcl.errors import UserError

console = Console(highlight=False, soft_wrap=True)


def add_readme_command(commands: Any) -> None:
    """Add ``readme`` to the commands of ``mmcl``."""
    readme = commands.add_parser("readme", help="write the README's result tables from kept results (in a checkout)")
    readme.add_argument("--check", action="store_true", help="write nothing; say which lines are stale")
    readme.set_defaults(action=lambda parsed: _check() if parsed.check else _write())


def _files() -> tuple[Path, str, str]:
    """Return the README, its text, and the text it should have."""
    from mmcl.config.locate import shipped_folder
    from mmcl.report.readme import KeptResults, make_tables, refreshed

    experiments = shipped_folder("experiments")
    path = experiments.parent / "README.md"
    if not path.is_file():
        raise UserError(f"{path}: no such file. The README is only in a checkout of the repository: type it there")
    text = path.read_text(encoding="utf-8")
    return path, text, refreshed(text, make_tables(experiments / "readme", KeptResults(experiments / "results")))


def _write() -> None:
    from mmcl.report.readme import stale_lines
    from mmcl.whole_files import write_whole

    path, text, fresh = _files()
    if fresh != text:
        write_whole(path, lambda part: part.write_text(fresh, encoding="utf-8"))
    for line in stale_lines(text, fresh):
        console.print(line, markup=False)
    console.print(f"{path}: {'written' if fresh != text else 'up to date'}", markup=False)


def _check() -> int:
    from mmcl.report.readme import stale_lines

    path, text, fresh = _files()
    if fresh == text:
        console.print(f"{path}: up to date", markup=False)
        return 0
    for line in stale_lines(text, fresh):
        console.print(line, markup=False)
    console.print(f"{path}: stale. Type: mmcl readme", markup=False)
    return 1
