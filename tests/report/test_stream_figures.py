"""Pictures of learners on streams show decisions, keys by their usage, and which units won."""

from __future__ import annotations

import base64
import io
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from mmcl.report.figures import as_file
from mmcl.report.stream_figures import decision_regions, unit_usage, win_shares
from mmcl.results.traces import Plane, Trace

PLACES = np.linspace(-1, 1, 5)
NAMES = ["0", "1", "red"]


def plane(*rows: int) -> Plane:
    """Return a plane whose rows, from below, have one class each."""
    return Plane(np.repeat(np.array(rows, np.uint8)[:, None], 5, axis=1), PLACES, PLACES)


def texts(picture: str) -> list[str]:
    root = ElementTree.fromstring(as_file(picture))
    return ["".join(node.itertext()) for node in root.iter("{http://www.w3.org/2000/svg}text")]


def radii(picture: str) -> list[float]:
    """Return the radii of dots in the order in which they are drawn."""
    return [float(radius) for radius in re.findall(r'<circle [^>]*r="([\d.]+)"', picture)]


def numbers(picture: str, count: int) -> set[str]:
    return {str(key) for key in range(count)} & set(texts(picture))


# ------------------------------------------------------------------ regions and keys


def test_regions_stand_side_by_side_with_one_legend() -> None:
    stages = [Trace(0, plane(0, 0, 0, 0, 0)), Trace(4, plane(0, 0, 2, 2, 2)), Trace(8, plane(2, 2, 0, 0, 0))]
    picture = decision_regions(stages, NAMES, 8)
    assert picture.count("<image") == 3
    shown = texts(picture)
    for title in ("before the stream", "after 4 of 8 distributions", "after the stream"):
        assert shown.count(title) == 1
    assert shown.count("class 0") == shown.count("red") == 1
    assert "class 1" not in shown  # predicted nowhere


def colours(picture: str) -> list[set[object]]:
    """Return the colours of each image."""
    images = [base64.b64decode(code) for code in re.findall(r"data:image/png;base64,([^\"]*)", picture)]
    return [set(Image.open(io.BytesIO(image)).convert("RGBA").getdata()) for image in images]


def test_a_class_has_its_colour_whatever_is_beside_it() -> None:
    stages = [Trace(0, plane(0, 0, 0, 0, 0)), Trace(1, plane(1, 1, 1, 1, 1)), Trace(2, plane(0, 0, 1, 1, 2))]
    first, second, all_of_them = colours(decision_regions(stages, NAMES, 2))
    assert len(first) == len(second) == 1
    assert first != second
    assert first | second < all_of_them
    assert len(all_of_them) == 3


def test_equal_regions_have_ids_of_their_own() -> None:
    picture = decision_regions([Trace(0, plane(0, 0, 0, 0, 0)), Trace(1, plane(0, 0, 0, 0, 0))], NAMES, 1)
    ids = re.findall(r'\sid="([^"]*)"', picture)
    assert len(set(ids)) == len(ids)


def test_keys_are_numbered_and_grow_with_their_usage() -> None:
    keys = np.array([[-0.5, 0.0], [0.0, 0.5], [0.5, 0.0]])
    trace = Trace(1, plane(0, 0, 1, 1, 1), keys, usage=np.array([[5.0, 100.0, 0.0]]))
    picture = decision_regions([trace], NAMES, 1)
    assert numbers(picture, 3) == {"0", "1", "2"}
    most, some, none = radii(picture)  # the larger are drawn below the smaller
    assert most > some > none > 3


def test_unused_keys_are_all_of_one_size() -> None:
    keys = np.zeros((4, 2))
    with_counts = radii(decision_regions([Trace(0, plane(0, 0, 0, 0, 0), keys, np.zeros((2, 2)))], NAMES, 1))
    without = radii(decision_regions([Trace(0, plane(0, 0, 0, 0, 0), keys)], NAMES, 1))
    assert len(with_counts) == 4
    assert set(with_counts) == set(without)
    assert len(set(without)) == 1


def test_keys_near_the_grid_are_drawn_and_farther_ones_are_told() -> None:
    keys = np.array([[1.5, 0.0], [0.0, 0.0], [50.0, 0.0], [0.0, -1e6]])
    picture = decision_regions([Trace(1, plane(0, 0, 0, 0, 1), keys)], NAMES, 2)
    assert {"after 1 of 2 distributions", "2 keys farther out"} <= set(texts(picture))
    assert len(radii(picture)) == 2


# ------------------------------------------------------------------ usage


def test_shares_are_of_the_wins_between_traces() -> None:
    usage = np.array([[[0, 0, 0]], [[30, 10, 0]], [[30, 10, 60]]], dtype=np.float64)
    assert win_shares(usage).tolist() == [[[0.75, 0.25, 0.0]], [[0.0, 0.0, 1.0]]]


def test_a_scrambled_unit_has_its_wins_since_then() -> None:
    usage = np.array([[[100, 100]], [[5, 115]]], dtype=np.float64)
    assert win_shares(usage).tolist() == [[[0.25, 0.75]]]


def test_a_bank_without_wins_has_no_shares() -> None:
    usage = np.array([[[3, 3], [1, 1]], [[3, 3], [2, 1]]], dtype=np.float64)
    assert win_shares(usage).tolist() == [[[0, 0], [1, 0]]]


@given(arrays(np.float64, array_shapes(min_dims=3, max_dims=3, min_side=2, max_side=5), elements=st.integers(0, 1000)))
def test_shares_of_each_bank_are_one_or_nothing(usage: np.ndarray) -> None:
    shares = win_shares(usage)
    assert shares.shape == (len(usage) - 1, *usage.shape[1:])
    assert (shares >= 0).all()
    totals = shares.sum(axis=2)
    assert (np.isclose(totals, 1) | (totals == 0)).all()


def stream_of(windows: int, banks: int = 1, scrambles: bool = True) -> list[Trace]:
    wins = np.random.default_rng(0).integers(0, 50, (windows, banks, 20)).cumsum(axis=0).astype(np.float64)
    start = Trace(0, usage=np.zeros((banks, 20)), scrambles=0 if scrambles else None)
    later = [Trace(1 + index, usage=row, scrambles=index if scrambles else None) for index, row in enumerate(wins)]
    return [start, *later]


@pytest.mark.parametrize("banks", [1, 5])
def test_long_streams_stay_readable_and_small(banks: int) -> None:
    picture = unit_usage(stream_of(300, banks))
    shown = texts(picture)
    assert "distributions met" in shown
    assert ("unit" if banks == 1 else "unit, bank after bank") in shown
    assert len(shown) < 40
    assert len(picture) < 200_000


def test_scrambles_have_a_picture_where_they_were_counted() -> None:
    assert "scrambles" in texts(unit_usage(stream_of(3)))
    assert "scrambles" not in texts(unit_usage(stream_of(3, scrambles=False)))


def test_traces_far_apart_fill_the_windows_between_them() -> None:
    traces = stream_of(8)
    shown = texts(unit_usage([traces[0], traces[4], traces[8]]))
    assert {"0", "8"} <= set(shown)
