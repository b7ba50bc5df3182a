"""What one run left behind: its ``result.json``, checked, and the confusion matrices beside it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmcl.config.identity import DECIDING_TRAINER_KEYS, WITHOUT_INFLUENCE

SCHEMA = 1
TEST = "test"
GROUPS_WITHOUT_INFLUENCE = ("paths", "logger", "force", "eval_only", "objective", "hydra")
KEPT_PARTS = ("model_bytes", "head_bytes", "buffer_bytes", "memory_bytes")
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


class Unread(Mapping[str, Any]):
    """A part of a result that is parsed when it is first looked at; most parts of most results never are.

    Args:
        text: a JSON object.
    """

    def __init__(self, text: str) -> None:
        self._text = text

    @cached_property
    def _content(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self._text)
        return content

    def __getitem__(self, key: str) -> Any:
        return self._content[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._content)

    def __len__(self) -> int:
        return len(self._content)

    def __repr__(self) -> str:
        return repr(self._content)


class Confusions(NamedTuple):
    """The confusion matrices of a run by readout, and one line for each file that was skipped."""

    counts: Mapping[str, NDArray[np.int64]]
    problems: tuple[str, ...]


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
    task_names: tuple[str, ...] = ()

    @property
    def confusions(self) -> Mapping[str, NDArray[np.int64]]:
        """Counts ``(C, C)`` of each readout after the last task, true class by predicted class.

        Read when asked for, from ``confusion_<readout>.csv``. Of a sequence of data sets, the classes are those of the
        last one. Files that cannot be read are left out; ``confusion_problems`` names them.
        """
        return self._confusions.counts

    @property
    def confusion_problems(self) -> tuple[str, ...]:
        """One line for each matrix that is no square of counts."""
        return self._confusions.problems

    @cached_property
    def _confusions(self) -> Confusions:
        return _read_confusions(self.path.parent, tuple(self.readouts))

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
    def date(self) -> str:
        """When the run wrote its result, ISO 8601; empty where it does not say."""
        return str(self.provenance.get("date", ""))

    @property
    def kept_bytes(self) -> int | None:
        """Bytes of model, heads, buffers and memory after the last task; None where none were counted."""
        last = self.bytes_per_task[-1] if self.bytes_per_task else {}
        counts = [last[part] for part in KEPT_PARTS if isinstance(last.get(part), int)]
        return sum(counts) if counts else None

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


def decides(key: str) -> bool:
    """Return whether a dotted key of the configuration may change figures."""
    group, _, name = key.partition(".")
    if group == "trainer":
        return name in DECIDING_TRAINER_KEYS
    return group not in GROUPS_WITHOUT_INFLUENCE and not (group == "benchmark" and name in WITHOUT_INFLUENCE)


def read_result(path: Path | str) -> Result:
    """Read one ``result.json``.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no JSON, or not of this layout.
    """
    content = json.loads(Path(path).read_text(encoding="utf-8"))
    check_content(content)
    return make_result(Path(path), content)


def make_result(path: Path, content: Mapping[str, Any]) -> Result:
    """Return the result of a file whose content was checked."""
    names = content.get("task_names") or ()
    return Result(
        path=path,
        status=content["status"],
        identity=content["identity"],
        config=content["config"],
        command=content["command"],
        readouts=content["readouts"],
        task_sizes=tuple(content["task_sizes"]),
        class_names=tuple(map(str, content["class_names"])),
        bytes_per_task=tuple(entry for entry in content["bytes"] if isinstance(entry, dict)),
        timing=content["timing"],
        provenance=content["provenance"],
        task_names=() if None in names else tuple(names),
    )


def check_content(content: Any) -> None:
    """Refuse what is not the content of a ``result.json`` of this layout.

    Raises:
        ValueError: it says which key is of another kind than expected.
    """
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise ValueError(f"expected a result of schema {SCHEMA}")
    for key, kind in KINDS.items():
        _check_kind(f"key '{key}'", content.get(key), kind)
    for group in ("benchmark", "trainer"):
        _check_kind(f"key 'config.{group}'", content["config"].get(group, {}), dict)
    _check_command(content["command"])
    if not all(isinstance(size, int) for size in content["task_sizes"]):
        raise ValueError("key 'task_sizes': expected numbers of classes")
    _check_task_names(content.get("task_names") or [], len(content["task_sizes"]))
    stages = content["timing"].get("stages", [])
    if not isinstance(stages, list) or not all(isinstance(stage, dict) for stage in stages):
        raise ValueError("key 'timing.stages': expected a list of stages")
    for readout, figures in content["readouts"].items():
        _check_figures(readout, figures)


def _check_kind(where: str, value: Any, kind: type) -> None:
    if not isinstance(value, kind):
        raise ValueError(f"{where}: expected {kind.__name__}, got {type(value).__name__}")


def _check_command(command: str) -> None:
    """Refuse a command with a quotation that does not end."""
    if set(command) & set("\"'\\"):  # others need no slow look
        try:
            shlex.split(command)
        except ValueError as error:
            raise ValueError(f"key 'command': {error}") from error


def _check_task_names(names: Any, tasks: int) -> None:
    """Refuse names that are no text; a task without a name has None."""
    if not isinstance(names, list) or not all(name is None or isinstance(name, str) for name in names):
        raise ValueError(f"key 'task_names': expected a list of names, got {names!r}")
    if names and None not in names and len(names) != tasks:
        raise ValueError(f"key 'task_names': expected {tasks} names, got {len(names)}")


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


def _read_confusions(run: Path, readouts: tuple[str, ...]) -> Confusions:
    found: dict[str, NDArray[np.int64]] = {}
    problems: list[str] = []
    for readout in readouts:
        path = run / f"confusion_{readout}.csv"
        if not path.is_file():
            continue
        try:
            counts = np.loadtxt(path, delimiter=",", dtype=np.int64, ndmin=2)
        except (OSError, ValueError) as error:
            problems.append(f"{path}: skipped: {error}")
            continue
        if counts.shape[0] != counts.shape[1]:
            problems.append(f"{path}: skipped: expected a square matrix, got {counts.shape}")
            continue
        found[readout] = counts
    return Confusions(found, tuple(problems))
