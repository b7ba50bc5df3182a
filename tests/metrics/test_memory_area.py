from __future__ import annotations

import subprocess
import sys
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmcl.errors import UserError
from mmcl.metrics.memory_area import accuracy_per_megabyte, memory_area
from mmcl.metrics.memory_area_metric import MemoryArea

point = st.tuples(st.floats(1, 1e4), st.floats(0, 1))
points = st.lists(point, min_size=2, max_size=8, unique_by=lambda run: run[0])


@given(points, st.randoms())
def test_the_area_is_numpy_s_whatever_the_order(runs: list[tuple[float, float]], random: Random) -> None:
    memory_mb, accuracy = np.array(sorted(runs)).T
    expected = np.sum(np.diff(memory_mb) * (accuracy[1:] + accuracy[:-1]) / 2)
    random.shuffle(runs)
    assert memory_area(*zip(*runs, strict=True)) == pytest.approx(expected, rel=1e-9, abs=1e-9)
    metric = MemoryArea()
    for run in runs:
        metric.update(*run)
    assert metric.compute().item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_accuracy_per_megabyte_is_taken_at_both_ends() -> None:
    per_megabyte = accuracy_per_megabyte([20.0, 5.0, 10.0], [0.8, 0.5, 0.1])
    assert per_megabyte == pytest.approx((10.0, 4.0))
    assert accuracy_per_megabyte([5.0], [0.5]) == pytest.approx((10.0, 10.0))


def test_too_few_budgets_say_what_to_run() -> None:
    with pytest.raises(UserError, match="2 or more budgets.*memory.size="):
        memory_area([7.6], [0.5])
    with pytest.raises(UserError, match="1 or more budgets above 0 MB"):
        accuracy_per_megabyte([0.0], [0.5])
    with pytest.raises(UserError, match="2 budgets but 1 accuracies"):
        memory_area([7.6, 12.4], [0.5])


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_a_metric_without_runs_says_what_to_run() -> None:
    with pytest.raises(UserError, match="2 or more budgets"):
        MemoryArea().compute()


def test_tables_need_no_torch() -> None:
    code = "import sys, mmcl.metrics.memory_area; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
