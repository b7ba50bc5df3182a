"""Traces of streams are read in order, and what is damaged is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmcl.results.traces import pictured, read_trace, read_traces, with_usage
from tests.report.made_streams import GRID, UNITS, write_trace


def test_traces_come_in_the_order_of_the_stream(tmp_path: Path) -> None:
    for windows in (1000, 2, 0, 11):
        write_trace(tmp_path, windows)
    (tmp_path / "traces" / ".003.npz.part").write_bytes(b"half")
    traces, problems = read_traces(tmp_path)
    assert [trace.windows for trace in traces] == [0, 2, 11, 1000]
    assert problems == []
    assert traces[2].scrambles == 22
    assert traces[2].usage is not None
    assert traces[2].usage.tolist() == [[30, 30, 30, 20]]
    assert traces[2].keys is not None
    assert traces[2].keys.shape == (UNITS, 2)


def test_a_run_without_traces_has_none(tmp_path: Path) -> None:
    assert read_traces(tmp_path) == ([], [])


def test_keys_of_all_banks_follow_each_other(tmp_path: Path) -> None:
    keys = np.arange(12.0).reshape(3, 2, 2)
    trace = read_trace(write_trace(tmp_path, 1, keys=keys, mu=np.ones((3, 2))), 1)
    assert trace.keys is not None
    assert trace.keys.tolist() == keys.reshape(6, 2).tolist()


@pytest.mark.parametrize("changes", [{"keys": np.zeros((1, UNITS, 3))}, {"regions": None}, {"keys": None}])
def test_keys_that_are_no_places_of_the_picture_are_left_out(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert read_trace(write_trace(tmp_path, 1, **changes), 1).keys is None


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"regions": np.zeros((GRID, GRID + 1), np.uint8)}, "regions"),
        ({"keys": np.full((1, UNITS, 2), np.nan)}, "keys"),
        ({"mu": np.ones((1, UNITS + 1))}, "mu"),
        ({"xs": None}, "xs"),
        ({"mu": np.array(["a"])}, "mu"),
    ],
)
def test_damaged_traces_are_told_and_left_out(tmp_path: Path, changes: dict[str, Any], name: str) -> None:
    write_trace(tmp_path, 0)
    damaged = write_trace(tmp_path, 1, **changes)
    traces, (problem,) = read_traces(tmp_path)
    assert [trace.windows for trace in traces] == [0]
    assert str(damaged) in problem
    assert name in problem


def test_files_cut_short_are_told_and_left_out(tmp_path: Path) -> None:
    path = write_trace(tmp_path, 0)
    path.write_bytes(path.read_bytes()[:200])
    traces, (problem,) = read_traces(tmp_path)
    assert traces == []
    assert str(path) in problem


@given(st.lists(st.integers(), max_size=20))
def test_start_middle_and_end_of_themselves_are_themselves(items: list[int]) -> None:
    chosen = pictured(items)
    assert pictured(chosen) == chosen
    assert len(chosen) == min(len(items), 3)
    if items:
        assert (chosen[0], chosen[-1]) == (items[0], items[-1])


def test_usage_is_compared_between_equal_shapes_alone(tmp_path: Path) -> None:
    write_trace(tmp_path, 0)
    assert with_usage(read_traces(tmp_path)[0]) == []
    write_trace(tmp_path, 1, mu=None)
    write_trace(tmp_path, 2)
    assert [trace.windows for trace in with_usage(read_traces(tmp_path)[0])] == [0, 2]
    write_trace(tmp_path, 3, mu=np.ones((1, 2)), keys=None)
    assert with_usage(read_traces(tmp_path)[0]) == []
