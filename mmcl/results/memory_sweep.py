"""Runs that differ by memory budget, as curves of accuracy over memory (Zhou et al., ICLR 2023, table 1)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from mmcl.metrics.memory_area import accuracy_per_megabyte, memory_area
from mmcl.results.store import Result

BYTES_PER_MB = 2**20
VARIED = ("memory", "backbone")  # what a sweep over budgets varies


@dataclass(frozen=True)
class Sweep:
    """Runs that differ by their memory budget alone.

    Attributes:
        label: what the runs have in common.
        memory_mb: budget of each run in MB, ``(N,)`` ascending.
        average: average incremental accuracy of each run, fraction.
        last: last accuracy of each run, fraction.
    """

    label: str
    memory_mb: tuple[float, ...]
    average: tuple[float, ...]
    last: tuple[float, ...]

    def figures(self) -> dict[str, float]:
        """Return AUC-A and AUC-L (fraction times MB), APM-S and APM-E (percent per MB)."""
        start, end = accuracy_per_megabyte(self.memory_mb, self.average)
        return {
            "auc_average": memory_area(self.memory_mb, self.average),
            "auc_last": memory_area(self.memory_mb, self.last),
            "apm_start": start,
            "apm_end": end,
        }


def make_sweep(label: str, readout: str, points: Sequence[tuple[float, Result]]) -> Sweep | None:
    """Build a sweep from (MB, result) pairs; ``None`` below two budgets or when an accuracy is missing."""
    lines = []
    for memory_mb, result in points:
        figures = result.readouts.get(readout, {})
        average, last = figures.get("average_incremental_accuracy"), figures.get("last_accuracy")
        if average is None or last is None:
            return None
        lines.append((memory_mb, float(average), float(last)))
    if len({line[0] for line in lines}) < 2:
        return None
    memory, averages, lasts = zip(*sorted(lines), strict=True)
    return Sweep(label, memory, averages, lasts)


def find_sweeps(results: Sequence[Result], readout: str = "cnn") -> list[Sweep]:
    """Group finished runs that differ by memory and backbone alone into sweeps over measured megabytes."""
    groups: dict[str, list[tuple[float, Result]]] = {}
    for result in results:
        memory_mb = counted_megabytes(result)
        if result.finished and memory_mb is not None:
            groups.setdefault(result.deciding_config(*VARIED), []).append((memory_mb, result))
    labels = Counter(points[0][1].label for points in groups.values())
    sweeps = []
    for points in groups.values():
        first = points[0][1]
        label = first.label if labels[first.label] == 1 else f"{first.label} ({first.identity})"
        sweeps.append(make_sweep(label, readout, points))
    return [sweep for sweep in sweeps if sweep is not None]


def counted_megabytes(result: Result) -> float | None:
    """Return model and memory after the last task in MB, counted as the papers do, or ``None``."""
    if not result.bytes_per_task:
        return None
    last = result.bytes_per_task[-1]
    parts = [last.get("paper_model_bytes"), last.get("paper_memory_bytes")]
    return None if None in parts else sum(float(part) for part in parts if part is not None) / BYTES_PER_MB
