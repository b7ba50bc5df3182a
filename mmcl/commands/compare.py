"""The command ``mmcl compare``: two runs side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

if TYPE_CHECKING:  # drawing takes a moment to import
    from mmcl.results.run_comparison import Difference, Pair, ReadoutComparison, RunComparison

SHOWN_CLASSES = 5  # of those that gained most, and of those that lost most
console = Console(highlight=False, soft_wrap=True)


def add_compare_command(commands: Any) -> None:
    """Add ``compare`` to the commands of ``mmcl``."""
    compare = commands.add_parser("compare", help="say what differs between two runs: settings, figures, classes")
    compare.add_argument("first", metavar="RUN_A", help="directory, result.json or first digits of an identity")
    compare.add_argument("second", metavar="RUN_B")
    compare.add_argument("--runs", default="runs", help="folder in which identities are looked for")
    compare.add_argument(
        "--html", default=None, metavar="FILE", help="write a page with all classes and a picture, too"
    )
    compare.set_defaults(action=lambda parsed: _compare(parsed.first, parsed.second, parsed.runs, parsed.html))


def _compare(first: str, second: str, runs: str, html: str | None) -> None:
    from mmcl.results.run_comparison import compare_runs
    from mmcl.results.store import find_run

    compared = compare_runs(find_run(first, runs), find_run(second, runs))
    _print_runs(compared)
    _print_differences("decides figures", compared.deciding or None)
    _print_differences("commit, versions, hardware", compared.provenance)
    _print_differences("decides no figure", compared.other)
    for readout in compared.readouts:
        _print_readout(readout, compared.word)
    if not compared.readouts:
        console.print("The runs have no readout in common.\n")
    _print_bytes_and_time(compared)
    if html is not None:
        from mmcl.report.run_comparison_page import write_comparison

        console.print(str(write_comparison(compared, html)), markup=False)


def _print_runs(compared: RunComparison) -> None:
    from mmcl.report.formats import minute

    for letter, run in (("A", compared.first), ("B", compared.second)):
        told = [run.label, run.status, f"identity {run.identity}", minute(run.date), str(run.path.parent)]
        console.print(f"{letter}  {', '.join(part for part in told if part)}", markup=False)
    for note in compared.notes:
        console.print(f"   {note}", markup=False)
    console.print()


def _print_differences(title: str, entries: Sequence[Difference] | None) -> None:
    if entries is None:
        console.print(f"{title}: the same in both\n")
    elif entries:
        _print_grid((title, "A", "B"), [(entry.key, entry.first, entry.second) for entry in entries], "left")


def _print_readout(readout: ReadoutComparison, word: str) -> None:
    from mmcl.report.formats import thinned
    from mmcl.report.run_comparison_page import changed_words, title_of

    figures = [(title_of(pair.name), pair) for pair in readout.figures]
    curve = [(f"{word} {pair.name}", pair) for _, pair in thinned(readout.curve)]
    _print_pairs(readout.name, [*figures, *curve])
    if not readout.classes:
        return
    console.print(changed_words(readout))
    for title, classes in (("gained most", readout.gained), ("lost most", readout.lost)):
        if classes:
            _print_pairs(title, [(pair.name, pair) for pair in classes[:SHOWN_CLASSES]])
    if not readout.gained and not readout.lost:
        console.print()


def _print_pairs(title: str, pairs: Sequence[tuple[str, Pair]]) -> None:
    from mmcl.report.formats import percent
    from mmcl.report.run_comparison_page import points

    lines = [(name, percent(pair.first), percent(pair.second), points(pair.difference)) for name, pair in pairs]
    _print_grid((title, "A", "B", "B - A"), lines, "right")


def _print_bytes_and_time(compared: RunComparison) -> None:
    from mmcl.report.formats import in_bytes, in_time

    parts: dict[str, tuple[Sequence[Pair], Callable[[Any], str]]] = {
        "bytes after the last task": (compared.sizes, in_bytes),
        "time": (compared.seconds, in_time),
    }
    for title, (pairs, write) in parts.items():
        if pairs:
            _print_grid(
                (title, "A", "B"), [(pair.name, write(pair.first), write(pair.second)) for pair in pairs], "right"
            )


def _print_grid(titles: Sequence[str], lines: Sequence[Sequence[str]], justify: Any) -> None:
    grid = Grid(box=None, pad_edge=False)
    grid.add_column(Text(titles[0]), no_wrap=True, overflow="fold")
    for title in titles[1:]:
        grid.add_column(title, justify=justify, overflow="fold")
    for line in lines:
        grid.add_row(*map(Text, line))  # brackets are no markup
    console.print(grid)
    console.print()
