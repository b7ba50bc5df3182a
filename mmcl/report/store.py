"""The result store: every ``result.json`` below a folder, checked. Stores merge by copying folders."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmcl.config.identity import DECIDING_TRAINER_KEYS, WITHOUT_INFLUENCE

SCHEMA = 1
TEST = "test"
GROUPS_WITHOUT_INFLUENCE = ("paths", "logger", "force", "eval_only", "hydra")
KINDS: dict[str, type] = {
    "status": str,
    "identity": str,
    "config": dict,
    "command": str,
    "readouts": dict,
    "task_sizes": list,
    "class_names": list,
    "bytes": list,
    "timing": dict,
    "provenance": dict,
}


@dataclass(frozen=True, eq=False)
class Result:
    """What one run left behind. Accuracies are fractions.

    Attributes:
        path: the ``result.json``.
        status: ``finished``, ``running`` or ``failed``.
        identity: hash of what decides the figures.
        config: the resolved configuration.
        command: the command that made it.
        readouts: figures of each readout.
        task_sizes: new classes of each task.
        task_names: names of the tasks where each is a data set of its own or a distribution of a stream; empty for
            class-incremental runs.
        class_names: names in class order.
        bytes_per_task: bytes of model and memory after each task.
        timing: wall time, and seconds and images per second of each stage.
        provenance: commit, versions, hardware, date, seed.
        confusions: counts ``(C, C)`` of each readout after the last task, true class by predicted class; of a
            sequence of data sets, the classes are those of the last one.
    """

    path: Path
    status: str
    identity: str
    config: Mapping[str, Any]
    command: str
    readouts: Mapping[str, Mapping[str, Any]]
    task_sizes: tuple[int, ...]
    class_names: tuple[str, ...]
    bytes_per_task: tuple[Mapping[str, Any], ...]
    timing: Mapping[str, Any]
    provenance: Mapping[str, Any]
    confusions: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    task_names: tuple[str, ...] = ()

    @property
    def finished(self) -> bool:
        """Whether the run reached its end."""
        return self.status == "finished"

    def name_of(self, group: str) -> str:
        """Return the name of a config group's choice (``method``, ``benchmark``, ``backbone``), or ``?``."""
        node = self.config.get(group)
        return str(node.get("name", "?")) if isinstance(node, Mapping) else "?"

    @property
    def label(self) -> str:
        """Method, benchmark with its split, and seed in one line."""
        benchmark = self.config.get("benchmark")
        sizes = benchmark if isinstance(benchmark, Mapping) else {}
        split = f" B{sizes.get('base')} Inc{sizes['increment']}" if sizes.get("increment") else ""
        return f"{self.name_of('method')} on {self.name_of('benchmark')}{split}, seed {self.seed}"

    @property
    def seed(self) -> Any:
        """The seed of the run, or ``?``."""
        return self.config.get("seed", "?")

    @property
    def evaluations(self) -> tuple[str, ...]:
        """Samples that an online stream asks after each distribution, ``test`` first; empty for other runs."""
        benchmark = self.config.get("benchmark")
        asked = benchmark.get("evaluate") if isinstance(benchmark, Mapping) else None
        if not isinstance(asked, list):
            return ()
        return (TEST, *(str(name) for name in asked if name != TEST))

    def readouts_on(self, evaluation: str = TEST) -> dict[str, Mapping[str, Any]]:
        """Return the figures of each readout on some samples; those of others bear their name behind the readout's."""
        if evaluation != TEST:
            ending = f"_{evaluation}"
            return {name.removesuffix(ending): self.readouts[name] for name in self.readouts if name.endswith(ending)}
        endings = tuple(f"_{name}" for name in self.evaluations if name != TEST)
        return {name: figures for name, figures in self.readouts.items() if not name.endswith(endings)}

    def deciding_config(self, *left_out: str) -> str:
        """Return what decides the figures, as JSON: the configuration without hardware, folders and some groups.

        A class order that follows the seed says so, instead of naming it.
        """
        left_out = (*left_out, *GROUPS_WITHOUT_INFLUENCE)
        deciding: dict[str, Any] = {key: value for key, value in self.config.items() if key not in left_out}
        benchmark = self.config.get("benchmark", {})
        deciding["benchmark"] = {key: value for key, value in benchmark.items() if key not in WITHOUT_INFLUENCE}
        for name in ("order_seed", "split_seed"):
            if name in benchmark and benchmark[name] == self.seed:
                deciding["benchmark"][name] = "seed"
        deciding["trainer"] = {key: self.config.get("trainer", {}).get(key) for key in DECIDING_TRAINER_KEYS}
        return json.dumps(deciding, sort_keys=True)


def find_results(root: Path | str) -> tuple[list[Result], list[str]]:
    """Read every ``result.json`` below a folder, oldest first.

    Returns:
        The results, and one line for each file that was skipped: half-written, foreign or of another layout.
    """
    results: list[Result] = []
    problems: list[str] = []
    for path in sorted(Path(root).expanduser().rglob("result.json")):
        try:
            result = read_result(path)
        except (OSError, ValueError) as error:
            problems.append(f"{path}: skipped: {error}")
            continue
        confusions, unreadable = _read_confusions(result)
        results.append(Result(**{**vars(result), "confusions": confusions}))
        problems += unreadable
    return sorted(results, key=lambda result: str(result.provenance.get("date", ""))), problems


def read_result(path: Path | str) -> Result:
    """Read one ``result.json``, without the confusion matrices beside it.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no JSON, or not of this layout.
    """
    content = json.loads(Path(path).read_text(encoding="utf-8"))
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise ValueError(f"expected a result of schema {SCHEMA}")
    for key, kind in KINDS.items():
        if not isinstance(content.get(key), kind):
            raise ValueError(f"key '{key}': expected {kind.__name__}, got {type(content.get(key)).__name__}")
    for readout, figures in content["readouts"].items():
        _check_figures(readout, figures)
    return Result(
        path=Path(path),
        status=content["status"],
        identity=content["identity"],
        config=content["config"],
        command=content["command"],
        readouts=content["readouts"],
        task_sizes=tuple(content["task_sizes"]),
        class_names=tuple(str(name) for name in content["class_names"]),
        bytes_per_task=tuple(entry for entry in content["bytes"] if isinstance(entry, dict)),
        timing=content["timing"],
        provenance=content["provenance"],
        task_names=_task_names(content),
    )


def _task_names(content: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the tasks, or nothing where the key is missing or a task has no name."""
    names = content.get("task_names") or []
    if not isinstance(names, list) or not all(name is None or isinstance(name, str) for name in names):
        raise ValueError(f"key 'task_names': expected a list of names, got {names!r}")
    if None in names:
        return ()
    if names and len(names) != len(content["task_sizes"]):
        raise ValueError(f"key 'task_names': expected {len(content['task_sizes'])} names, got {len(names)}")
    return tuple(names)


def _check_figures(readout: str, figures: Any) -> None:
    """Refuse figures whose kinds would break a table or a picture later."""
    if not isinstance(figures, dict):
        raise ValueError(f"readout '{readout}': expected figures, got {type(figures).__name__}")
    for name, value in figures.items():
        where = f"readout '{readout}': {name}"
        if name.endswith("_matrix"):
            _check_matrix(value, where)
        elif name.endswith("_curve"):
            _check_numbers(value, where)
        elif name.endswith("_choices"):
            _check_choices(value, where)
        else:
            _check_numbers([value], where)


def _check_matrix(value: Any, where: str) -> None:
    if not isinstance(value, list) or len({len(row) if isinstance(row, list) else -1 for row in value}) > 1:
        raise ValueError(f"{where}: expected rows of one length")
    for row in value:
        _check_numbers(row, where)


def _check_choices(value: Any, where: str) -> None:
    if not isinstance(value, list) or not all(entry is None or isinstance(entry, dict) for entry in value):
        raise ValueError(f"{where}: expected a list with the choices of each task")


def _check_numbers(values: Any, where: str) -> None:
    if not isinstance(values, list) or not all(value is None or isinstance(value, (int, float)) for value in values):
        raise ValueError(f"{where}: expected numbers")


def _read_confusions(result: Result) -> tuple[dict[str, NDArray[np.int64]], list[str]]:
    confusions: dict[str, NDArray[np.int64]] = {}
    problems: list[str] = []
    for readout in result.readouts:
        path = result.path.parent / f"confusion_{readout}.csv"
        if not path.is_file():
            continue
        try:
            counts = np.loadtxt(path, delimiter=",", dtype=np.int64, ndmin=2)
        except ValueError as error:
            problems.append(f"{path}: skipped: {error}")
            continue
        if counts.shape[0] != counts.shape[1]:
            problems.append(f"{path}: skipped: expected a square matrix, got {counts.shape}")
            continue
        confusions[readout] = counts
    return confusions, problems
