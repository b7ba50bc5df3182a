"""The command ``mmcl exemplars``: pictures and numbers of what a run keeps of its classes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table as Grid

from mmcl.errors import UserError
from mmcl.whole_files import write_whole

if TYPE_CHECKING:  # the libraries that draw take a second to import
    from mmcl.report.exemplars import Record

Verbs = Any  # what argparse calls subparsers
WRITERS = ("lucir", "icarl_cosine", "mnemonics", "aanets")  # methods that write records
console = Console(highlight=False, soft_wrap=True)


def add_exemplars_command(commands: Verbs) -> None:
    """Add ``exemplars`` to the commands of ``mmcl``."""
    exemplars = commands.add_parser("exemplars", help="draw what a run keeps of its classes, and how it changed")
    exemplars.add_argument("run", type=Path, metavar="RUN", help="directory of a run that kept exemplars")
    exemplars.add_argument("--out", type=Path, metavar="FOLDER", help="folder of the pictures; RUN otherwise")
    exemplars.set_defaults(action=lambda parsed: _exemplars(parsed.run.expanduser(), parsed.out))


def _exemplars(run: Path, out: Path | None) -> None:
    """Draw the first and the last recorded task."""
    from mmcl.report.exemplars import choices, figures_of

    records = _records(run)
    folder = out.expanduser() if out else run
    chosen = [choices(record) for record in records]
    figures = [figures_of(record, of_record) for record, of_record in zip(records, chosen, strict=True)]
    _print_figures(figures)
    for name, content in _pictures(records, chosen).items():
        _write(folder / name, content)
    _write(folder / "exemplars.json", json.dumps(figures, indent=1).encode())


def _write(path: Path, content: bytes) -> None:
    write_whole(path, lambda part: part.write_bytes(content))
    console.print(str(path), markup=False)


def _records(run: Path) -> list[Record]:
    """Read the first and the last record; one where there is no other."""
    from mmcl.report.exemplars import UNREADABLE, read_record, record_files

    if not run.is_dir():
        raise UserError(f"{run}: no such folder. Name the directory of a run, such as: mmcl exemplars runs/RUN")
    files = record_files(run)
    if not files:
        below = sorted({path.parent for path in run.glob("*/exemplars_*.npz")})
        hint = (
            f"Type: mmcl exemplars {below[0]}"
            if below
            else f"Methods that write them: {', '.join(WRITERS)}, such as python -m mmcl.run +method={WRITERS[2]}"
        )
        raise UserError(f"{run}: no exemplars_*.npz, which runs write after a task. {hint}")
    records = []
    for path in files if len(files) == 1 else (files[0], files[-1]):
        try:
            records.append(read_record(path))
        except UNREADABLE as error:
            raise UserError(
                f"{path}: damaged: {error}. Delete it to draw the others, or run again with force=true"
            ) from error
    return records


def _pictures(records: Sequence[Record], chosen: Sequence[Any]) -> dict[str, bytes]:
    from mmcl.report.exemplar_figures import drift_histograms, exemplar_map, image_grid

    # after a later task that left these exemplars alone, the grid would be the first one's again
    known = {image.tobytes() for image in records[0].images_after}
    changed = [record for record in records[1:] if not {image.tobytes() for image in record.images_after} <= known]
    pictures = {"exemplars.png": image_grid([records[0], *changed])}
    moved = [record for record in records if len(record.drift)]
    if moved:
        pictures["exemplars_drift.png"] = drift_histograms(moved)
    pictures["exemplars_tsne.png"] = exemplar_map(records, chosen)
    return pictures


def _print_figures(figures: Sequence[dict[str, Any]]) -> None:
    grid = Grid(box=None, pad_edge=False)
    for title in ("after task", "classes seen", "choice", "exemplars", "silhouette", "margin"):
        grid.add_column(title, justify="left" if title == "choice" else "right")
    for entry in figures:
        for name, numbers in entry["choices"].items():
            choice = f"kept ({entry['mode']})" if name == "kept" else name
            values = [_number(numbers["silhouette"]), _number(numbers["margin"])]
            grid.add_row(str(entry["task"]), str(entry["classes_seen"]), choice, str(numbers["exemplars"]), *values)
    console.print(grid)
    console.print("Of exemplars; the smaller, the nearer to a boundary between classes.", markup=False)
    for entry in figures:
        drift = entry["drift"]
        if drift["exemplars"]:
            words = f"median {drift['median']:.3g}, largest {drift['largest']:.3g} (L2, normalised pixels)"
            console.print(f"task {entry['task']}: {drift['exemplars']} exemplars moved: {words}", markup=False)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
