"""Accuracy over memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmcl.results.memory_sweep import Sweep, find_sweeps
from tests.report.made import content, result

POINT = st.tuples(st.floats(1, 1e3), st.floats(0, 1), st.floats(0, 1))


@given(st.lists(POINT, min_size=2, max_size=8, unique_by=lambda point: point[0]))
def test_areas_are_the_trapezoids_of_numpy(points: list[tuple[float, float, float]]) -> None:
    memory, average, last = (np.array(column) for column in zip(*sorted(points), strict=True))
    figures = Sweep("", tuple(memory), tuple(average), tuple(last)).figures()
    widths = np.diff(memory)
    assert figures["auc_average"] == pytest.approx(float(widths @ (average[1:] + average[:-1]) / 2))
    assert figures["auc_last"] == pytest.approx(float(widths @ (last[1:] + last[:-1]) / 2))
    assert figures["apm_start"] == pytest.approx(100 * average[0] / memory[0])
    assert figures["apm_end"] == pytest.approx(100 * average[-1] / memory[-1])


def test_runs_that_differ_by_memory_form_a_sweep(tmp_path: Path) -> None:
    def made(name: str, size: int, seed: int = 1) -> object:
        config = {**content()["config"], "seed": seed, "memory": {"size": size}, "paths": {"run": name}}
        config["benchmark"] = {**config["benchmark"], "data": f"data of machine {name}"}
        entry = {"paper_model_bytes": 2**20, "paper_memory_bytes": size * 2**20}
        return result(tmp_path / name, "+method=memo", config=config, bytes=[entry])

    results = [made("a", 3), made("b", 1), made("c", 5, seed=2)]
    (sweep,) = find_sweeps(results)  # type: ignore[arg-type]
    assert sweep.memory_mb == (2.0, 4.0)
    assert sweep.figures()["auc_last"] == pytest.approx(2 * 0.6)


def test_runs_without_counted_bytes_form_no_sweep(tmp_path: Path) -> None:
    results = [result(tmp_path / name, "+method=memo", bytes=[]) for name in "ab"]
    assert find_sweeps(results) == []
