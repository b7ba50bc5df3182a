"""Two runs side by side as one HTML file that opens offline."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from mmcl.report import figures
from mmcl.report.console import HEADINGS
from mmcl.report.formats import in_bytes, in_time, minute, percent
from mmcl.results.run_comparison import ReadoutComparison, RunComparison, asks_data_sets
from mmcl.whole_files import write_whole

SHOWN_CLASSES = 10  # of those that gained most, and of those that lost most


def write_comparison(compared: RunComparison, path: Path | str) -> Path:
    """Write a comparison of two runs and return the path.

    Raises:
        UserError: the file cannot be written.
    """
    environment = Environment(loader=PackageLoader("mmcl.report", "."), autoescape=True, undefined=StrictUndefined)
    environment.filters.update(percent=percent, points=points, bytes=in_bytes, seconds=in_time, minute=minute)
    page = environment.get_template("run_comparison.html").render(
        compared=compared,
        runs={"A": compared.first, "B": compared.second},
        settings={
            "What decides figures": compared.deciding,
            "Commit, versions and hardware": compared.provenance,
            "What decides no figure": compared.other,
        },
        picture=Markup(curves_picture(compared)),
        title_of=title_of,
        changed=changed_words,
        shown=SHOWN_CLASSES,
    )
    target = Path(path).expanduser()
    write_whole(target, lambda part: part.write_text(page, encoding="utf-8"))
    return target


def points(value: float | None) -> str:
    """Write a difference of fractions in percent points, with its sign."""
    return "" if value is None else f"{100 * value:+.2f}"


def title_of(figure: str) -> str:
    """Return the words for a figure."""
    return HEADINGS.get(figure, figure.replace("_", " "))


def changed_words(readout: ReadoutComparison) -> str:
    """Say how many classes and images changed; nothing where classes are not compared."""
    if not readout.classes:
        return ""
    same = len(readout.classes) - len(readout.gained) - len(readout.lost)
    words = f"Of {len(readout.classes)} classes {len(readout.gained)} gained, {len(readout.lost)} lost, {same} did not"
    if readout.changed is not None:
        return f"{words}; {readout.changed} of {readout.images} samples are answered differently."
    if readout.at_least is not None:
        return f"{words}; at least {readout.at_least} of {readout.images} samples are answered differently."
    return f"{words}. The runs had different samples of them."


def curves_picture(compared: RunComparison) -> str:
    """Draw the accuracies of both runs over tasks; of data sets, a line of dots for each."""
    curves: dict[str, list[float | None]] = {}
    drawn = [readout for readout in compared.readouts if readout.curve]
    names = list(dict.fromkeys(pair.name for readout in drawn for pair in readout.curve))
    for readout in drawn:
        own = {pair.name: pair for pair in readout.curve}
        for letter, side in (("A", "first"), ("B", "second")):
            values = [getattr(own[name], side) if name in own else None for name in names]
            curves[f"{readout.name} {letter}"] = [None if value is None else 100 * value for value in values]
    if not names:
        return ""
    if asks_data_sets(compared.first):
        return figures.dataset_accuracies(names, curves)
    over = "distributions met" if compared.first.task_names else "classes seen"
    places = [float(name.split()[0]) if over == "classes seen" else index + 1.0 for index, name in enumerate(names)]
    return figures.accuracy_curves({label: (places, curve) for label, curve in curves.items()}, over=over)
