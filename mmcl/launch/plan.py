"""The runs that tables need: each once, whichever rows share it, with what is known of it before it is started."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mmcl.config.components import build
from mmcl.config.compose_many import compose_runs
from mmcl.config.identity import identity, run_directory
from mmcl.errors import UserError
from mmcl.results.comparison import Overrides, canonical
from mmcl.results.store import Result, find_results
from mmcl.results.tables import Table

FINISHED, BEGUN, FAILED, NEW = "finished", "begun", "failed before", "new"


@dataclass(frozen=True)
class PlannedRun:
    """One run that rows of tables need.

    Attributes:
        overrides: what is typed after ``python -m mmcl.run``, without the folder of the runs.
        identity: hash of what decides its figures.
        state: ``finished``, ``begun``, ``failed before`` or ``new``.
        result: its finished ``result.json``; None otherwise.
        expected_seconds: mean of runs of the same configuration or, failing that, of the same method and benchmark
            below the folder of the runs; None where there is none.
        missing: files that its benchmark wants and that are not there.
        benchmark: name of its benchmark.
        hours: hours on one GPU as the first table that needs it estimates them; None where it takes minutes.
        config: its checked configuration.
        rows: what is made of it, as ``table: row``.
    """

    overrides: Overrides
    identity: str
    state: str
    result: Path | None
    expected_seconds: float | None
    missing: tuple[str, ...]
    benchmark: str
    hours: float | None
    config: DictConfig = field(repr=False)
    rows: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Refused:
    """Overrides of rows that make no valid configuration, and why."""

    overrides: Overrides
    rows: list[str]
    error: str


@dataclass(frozen=True)
class Plan:
    """What reproducing some tables takes.

    Attributes:
        tables: the tables.
        runs: every run once, by identity, in the order of the rows.
        needed: identities of the runs behind the overrides of a row, one for each seed.
        refused: what cannot be composed.
    """

    tables: tuple[Table, ...]
    runs: Mapping[str, PlannedRun]
    needed: Mapping[Overrides, tuple[str, ...]]
    refused: tuple[Refused, ...]

    @property
    def pending(self) -> list[PlannedRun]:
        """Runs to be started: neither finished nor without their data."""
        return [run for run in self.runs.values() if run.state != FINISHED and not run.missing]

    @property
    def without_data(self) -> list[PlannedRun]:
        """Runs that cannot be started, for want of their data."""
        return [run for run in self.runs.values() if run.state != FINISHED and run.missing]


def make_plan(tables: Sequence[Table], extra: Sequence[str], seeds: int | None, runs_dir: Path) -> Plan:
    """Compose every run of the tables and look what is done already.

    Args:
        tables: tables to reproduce.
        extra: overrides typed after those of every row; ``seed=1,2,3`` makes a run for each.
        seeds: this many seeds, from that of the row upwards; None takes what the rows and ``extra`` say.
        runs_dir: folder of the runs, and of results that were copied there from elsewhere.

    Raises:
        UserError: seeds are given in two ways, or there are none.
    """
    if seeds is not None and any(canonical(word).startswith("seed=") for word in extra):
        raise UserError("--seeds and seed= both name the seeds. Leave one of them out")
    if seeds is not None and seeds < 1:
        raise UserError(f"--seeds {seeds}: expected how many seeds, such as 3")
    wanted = list(dict.fromkeys(overrides for table in tables for overrides in table.runs))
    words = _words_of(wanted, _per_seed(extra), seeds)
    every = list(dict.fromkeys(chain.from_iterable(words.values())))
    composed = compose_runs([(*one, f"paths.runs={runs_dir}") for one in every])
    planner = _Planner(dict(zip(every, composed, strict=True)), words, runs_dir)
    for table in tables:
        for row in table.rows:
            for overrides in row.runs:
                planner.add(overrides, f"{table.name}: {row.label}", table.hours)
    return Plan(tuple(tables), planner.runs, planner.needed, tuple(planner.refused.values()))


def _words_of(
    wanted: Sequence[Overrides], typed: Sequence[Overrides], seeds: int | None
) -> dict[Overrides, list[Overrides]]:
    """Return what is typed for each run that overrides of rows stand for: one for each seed."""
    if seeds is None:
        return {overrides: [(*overrides, *words) for words in typed] for overrides in wanted}
    (words,) = typed
    plain = [(*overrides, *words) for overrides in wanted]
    # what cannot be composed is told when it is composed with a seed
    first = [0 if isinstance(config, UserError) else int(config.seed) for config in compose_runs(plain)]
    return {
        overrides: [(*overrides, *words, f"seed={seed + step}") for step in range(seeds)]
        for overrides, seed in zip(wanted, first, strict=True)
    }


class _Planner:
    def __init__(
        self,
        composed: Mapping[Overrides, DictConfig | UserError],
        words: Mapping[Overrides, Sequence[Overrides]],
        runs_dir: Path,
    ) -> None:
        self.composed, self.words = composed, words
        results = find_results(runs_dir)[0] if runs_dir.is_dir() else []
        self.finished = {entry.identity: entry for entry in results if entry.finished}
        self.seconds = _seconds_of(results)
        self.runs: dict[str, PlannedRun] = {}
        self.needed: dict[Overrides, tuple[str, ...]] = {}
        self.refused: dict[Overrides, Refused] = {}

    def add(self, overrides: Overrides, row: str, hours: float | None) -> None:
        """Add the runs of a row; those that other rows need, too, are there already."""
        if overrides not in self.needed and overrides not in self.refused:
            try:
                self.needed[overrides] = tuple(self._planned(words, hours) for words in self.words[overrides])
            except UserError as error:
                self.refused[overrides] = Refused(overrides, [], str(error))
        if overrides in self.refused:
            self.refused[overrides].rows.append(row)
        for name in self.needed.get(overrides, ()):
            if row not in self.runs[name].rows:
                self.runs[name].rows.append(row)

    def _planned(self, words: Overrides, hours: float | None) -> str:
        config = self.composed[words]
        if isinstance(config, UserError):
            raise config
        name = identity(config)
        if name not in self.runs:
            done = None if config.force else self.finished.get(name)
            state = FINISHED if done else NEW if config.force else _state_of(run_directory(config), name)
            expected = self._expected(config)
            missing = () if done else _missing(_benchmark_node(config))
            result, benchmark = done.path if done else None, str(config.benchmark.name)
            self.runs[name] = PlannedRun(words, name, state, result, expected, missing, benchmark, hours, config)
        return name

    def _expected(self, config: DictConfig) -> float | None:
        folder = run_directory(config).parent
        same = self.seconds.get(folder.resolve())
        return same or self.seconds.get((str(config.benchmark.name), str(config.method.name)))


def _seconds_of(results: Sequence[Result]) -> dict[Any, float]:
    """Return the mean seconds of finished runs by the folder of their configuration, and by benchmark and method."""
    found: dict[Any, list[float]] = {}
    for result in results:
        seconds = result.timing.get("wall_seconds")
        if result.finished and isinstance(seconds, (int, float)):
            keys = (result.path.parent.parent.resolve(), (result.name_of("benchmark"), result.name_of("method")))
            for key in keys:
                found.setdefault(key, []).append(float(seconds))
    return {key: fmean(values) for key, values in found.items()}


def _per_seed(extra: Sequence[str]) -> list[Overrides]:
    """Return what is typed after a row for each of its runs: one for each value of ``seed=1,2,3``."""
    runs: list[Overrides] = [()]
    for override in extra:
        key, _, value = override.partition("=")
        typed = [f"{key}={seed}" for seed in value.split(",")] if canonical(key) == "seed" else [override]
        runs = [(*run, part) for run in runs for part in typed]
    return runs


def _state_of(directory: Path, name: str) -> str:
    owner, result = (_read(directory / file) for file in ("identity.json", "result.json"))
    if owner.get("identity") != name:
        return NEW
    return FAILED if result.get("status") == "failed" else BEGUN


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _benchmark_node(config: DictConfig) -> str:
    """Return the benchmark's keys as JSON, the same for every seed, which needs no other files."""
    node: dict[str, Any] = OmegaConf.to_container(config.benchmark, resolve=True)  # type: ignore[assignment]
    return json.dumps({key: 0 if key in ("order_seed", "split_seed") else value for key, value in node.items()})


@cache
def _missing(node: str) -> tuple[str, ...]:
    """Return the files that a benchmark wants and cannot bring itself."""
    keys = json.loads(node)
    if keys.get("download"):
        return ()
    try:
        items = build(OmegaConf.create(keys)).describe_data()
    except UserError as error:
        return (str(error),)
    return tuple(str(item.path) for item in items if not item.present)
