"""What runs cost: bytes that are kept, time, images a second, and on which hardware."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from mmcl.results.result import Result


@dataclass(frozen=True)
class Costs:
    """Means over the runs of a row; None where no run says.

    Attributes:
        seconds: wall time of one run.
        images_per_second: of all stages together.
        kept_bytes: model and memory after the last task.
    """

    seconds: float | None
    images_per_second: float | None
    kept_bytes: float | None


def costs_of(results: Sequence[Result]) -> Costs:
    """Return the mean costs of some runs."""
    return Costs(
        _mean([result.timing.get("wall_seconds") for result in results]),
        _mean([images_per_second(result) for result in results]),
        _mean([result.kept_bytes for result in results]),
    )


def images_per_second(result: Result) -> float | None:
    """Return images a second over all stages that counted them."""
    counted = [
        (stage["seconds"], stage["images_per_second"])
        for stage in result.timing.get("stages", ())
        if stage.get("seconds") and stage.get("images_per_second") is not None
    ]
    seconds = sum(seconds for seconds, _ in counted)
    return sum(seconds * rate for seconds, rate in counted) / seconds if seconds else None


def hardware_of(result: Result) -> str:
    """Return the hardware of a run in words: ``2 × NVIDIA H200, 16 CPUs, 8 threads``."""
    hardware = result.provenance.get("hardware")
    if not isinstance(hardware, Mapping):
        return "unknown hardware"
    gpus = [f"{count} × {name}" for name, count in Counter(map(str, hardware.get("gpus") or ())).items()]
    cpus = [_counted(hardware.get(key), word) for key, word in (("cpus", "CPU"), ("threads", "thread"))]
    machine = [] if gpus else [str(hardware.get("machine", ""))]
    return ", ".join(part for part in (*gpus, *machine, *cpus) if part)


def _counted(count: Any, word: str) -> str:
    return "" if count is None else f"{count} {word}{'' if count == 1 else 's'}"


def _mean(values: Sequence[float | None]) -> float | None:
    known = [float(value) for value in values if value is not None]
    return fmean(known) if known else None
