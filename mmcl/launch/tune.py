"""``mmcl tune SEARCH``: choose each method's settings on validation samples, with equally many trials for each.

A search is a file: methods with grids of values, settings in which they are compared, and how many points of each grid
are tried. It writes a table with the chosen values, to be run by ``mmcl reproduce`` with other seeds.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml
from sklearn.model_selection import ParameterGrid, ParameterSampler

from mmcl.config.locate import shipped_folder
from mmcl.errors import DivergedError, UserError, nearest
from mmcl.launch.jobs import Job, Outcome
from mmcl.launch.staying import run_in_staying
from mmcl.results.store import find_results
from mmcl.whole_files import write_whole

FIGURE = "last_accuracy"
# One grid, or several whose points are put together: some values go with some others only.
Grids = Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Sequence[Any]]]
TABLE_KEYS = ("title", "paper", "source", "tolerance", "cost", "data")


@dataclass(frozen=True)
class Contestant:
    """A method in one setting: what is typed for it, and the grids of what may be typed beside."""

    label: str
    overrides: tuple[str, ...]
    grids: Grids


@dataclass(frozen=True)
class Search:
    """What is tried, and what decides.

    Attributes:
        table: keys of the table that is written (title, paper, ...).
        choose_by: readout whose last accuracy decides; it must not be of test samples.
        readout: readout that the table shows.
        trials: points of each grid, drawn without repetition; all where the grid has fewer.
        seeds: seeds of the trials; the table is to be run with others.
        contestants: methods in settings.
    """

    table: Mapping[str, Any]
    choose_by: str
    readout: str
    trials: int
    seeds: tuple[int, ...]
    contestants: tuple[Contestant, ...]


@dataclass(frozen=True)
class Choice:
    """The best point of a grid by its mean validation accuracy over the seeds."""

    contestant: Contestant
    point: Mapping[str, Any]
    accuracy: float
    tried: int


def find_searches() -> dict[str, Path]:
    """Return the files of all shipped searches by name."""
    folder = shipped_folder("experiments") / "search"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_search(name: str) -> Search:
    """Read a search from a file, or a shipped one by name.

    Raises:
        UserError: no such search, a missing key, or a readout of test samples that is to choose.
    """
    known = find_searches()
    path = known.get(name, Path(name))
    if not path.is_file():
        raise UserError(f"no search '{name}'.{nearest(name, known)}\nSearches: {', '.join(known)}; or name a file.")
    node = yaml.safe_load(path.read_text(encoding="utf-8"))
    expected = ("table", "choose_by", "readout", "trials", "seeds", "settings", "methods")
    missing = [key for key in expected if not isinstance(node, dict) or key not in node]
    missing += [f"table.{key}" for key in TABLE_KEYS if not missing and key not in node["table"]]
    if missing:
        raise UserError(f"{path}: key '{missing[0]}' is missing. Keys: {', '.join(expected)}")
    if "validation" not in node["choose_by"]:
        raise UserError(
            f"{path}: choose_by={node['choose_by']}: expected a readout of validation samples, such as head_validation"
        )
    contestants = tuple(
        Contestant(f"{method}, {setting}", (*keys["overrides"], *overrides), keys["grids"])
        for setting, overrides in node["settings"].items()
        for method, keys in node["methods"].items()
    )
    return Search(node["table"], node["choose_by"], node["readout"], node["trials"], tuple(node["seeds"]), contestants)


def points(grids: Grids, trials: int, draw_seed: int = 0) -> list[dict[str, Any]]:
    """Draw points of grids without repetition; all of them where there are no more than ``trials``."""
    count = min(trials, len(ParameterGrid(grids)))
    return list(ParameterSampler(grids, count, random_state=draw_seed))


def typed(point: Mapping[str, Any]) -> list[str]:
    """Return the overrides of a point."""
    values = {key: yaml.safe_dump(value, default_flow_style=True, width=10**6) for key, value in sorted(point.items())}
    return [f"{key}={value.splitlines()[0]}" for key, value in values.items()]


def tune(name: str, extra_overrides: Sequence[str], runs_dir: Path, table_file: Path, jobs: int) -> Path:
    """Try all points, choose, and write the table. Finished trials return at once when the command is repeated.

    Args:
        name: file of a search, or the name of a shipped one.
        extra_overrides: typed after those of every trial, such as ``trainer=cpu``.
        runs_dir: folder of the trials.
        table_file: table to write.
        jobs: trials at the same time, each on one thread.

    Returns:
        The path of the table.

    Raises:
        UserError: a trial failed, but by diverging, which counts as 0; or nothing of what is asked for was measured.
    """
    search = load_search(name)
    trials = [
        (contestant, point, seed)
        for contestant in search.contestants
        for point in points(contestant.grids, search.trials)
        for seed in search.seeds
    ]
    commands = [
        [*contestant.overrides, *typed(point), f"seed={seed}", *extra_overrides, f"paths.runs={runs_dir}"]
        for contestant, point, seed in trials
    ]
    jobs_of_trials = [Job(tuple(command), name=str(index)) for index, command in enumerate(commands)]
    accuracies = [0.0] * len(trials)
    for done, outcome in enumerate(run_in_staying(jobs_of_trials, jobs), start=1):
        accuracies[int(outcome.job.name)] = _accuracy_of(outcome, search.choose_by)
        if done % 50 == 0 or done == len(trials):
            sys.stderr.write(f"{done} of {len(trials)} trials\n")
    write_table(search, list(_choices(search, trials, accuracies)), table_file, name)
    return table_file


def _accuracy_of(outcome: Outcome, readout: str) -> float:
    """Return the accuracy of a trial; a setting under which a method diverges is the worst of all."""
    if isinstance(outcome.exception, DivergedError):
        return 0.0
    if outcome.result is None:
        raise UserError(f"python -m mmcl.run {' '.join(outcome.job.overrides)}: {outcome.error}")
    return _accuracy(outcome.result, readout)


def _accuracy(path: Path, readout: str) -> float:
    results, problems = find_results(path.parent)
    figures = next((result.readouts.get(readout) for result in results if result.path == path), None)
    if figures is None or figures.get(FIGURE) is None:
        raise UserError(f"{path}: no {readout}/{FIGURE} to choose by. {'; '.join(problems)}")
    return float(figures[FIGURE])


def _choices(
    search: Search, trials: Sequence[tuple[Contestant, dict[str, Any], int]], accuracies: Sequence[float]
) -> Iterator[Choice]:
    """Yield the best point of every contestant; of equal ones the first that was drawn."""
    for contestant in search.contestants:
        scored: dict[str, tuple[dict[str, Any], list[float]]] = {}
        for (other, point, _), accuracy in zip(trials, accuracies, strict=True):
            if other is contestant:
                scored.setdefault(" ".join(typed(point)), (point, []))[1].append(accuracy)
        point, best = max(scored.values(), key=lambda entry: fmean(entry[1]))
        yield Choice(contestant, point, fmean(best), len(scored))


def write_table(search: Search, choices: Sequence[Choice], path: Path, name: str) -> None:
    """Write the table of the chosen settings, whole or not at all."""
    rows = [
        {
            "label": choice.contestant.label,
            "overrides": [*choice.contestant.overrides, *typed(choice.point)],
            "readout": search.readout,
            "printed": {},
            "note": f"best of {choice.tried} settings: {100 * choice.accuracy:.2f} on validation samples",
        }
        for choice in choices
    ]
    folder, file = shipped_folder("experiments").resolve(), path.resolve()
    table = file.relative_to(folder).with_suffix("").as_posix() if file.is_relative_to(folder) else path
    text = f"# mmcl reproduce {table}\n# Written by: mmcl tune {name}\n" + yaml.safe_dump(
        {**search.table, "rows": rows}, sort_keys=False, allow_unicode=True, width=120
    )
    write_whole(path, lambda partial: partial.write_text(text, encoding="utf-8"))
