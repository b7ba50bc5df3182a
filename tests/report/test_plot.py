"""The plotter keeps values inside their frame, and the pictures made with it show what they are given."""

from __future__ import annotations

import base64
import io
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mmcl.report import figures, heatmaps
from mmcl.report.plot import Entry, Scale, legend, limits, shortened, text_width, ticks

FINITE = st.floats(-1e6, 1e6)


def texts(picture: str) -> list[str]:
    return ["".join(node.itertext()) for node in ElementTree.fromstring(picture).iter("text")]


def images(picture: str) -> list[Image.Image]:
    codes = re.findall(r"data:image/png;base64,([^\"]*)", picture)
    return [Image.open(io.BytesIO(base64.b64decode(code))) for code in codes]


@given(FINITE, st.floats(1e-3, 1e6), st.integers(3, 8), st.booleans())
def test_ticks_are_few_round_numbers_of_their_range(low: float, span: float, count: int, whole: bool) -> None:
    found = ticks(low, low + span, count, whole)
    assert len(found) <= count + 1
    assert all(low - 1e-6 * span <= value <= low + span + 1e-6 * span for value in found)
    assert found == sorted(set(found))
    if whole:
        assert all(value == int(value) for value in found)
    elif not whole:
        assert len(found) >= count // 3


@given(st.lists(FINITE, min_size=1, max_size=20))
def test_all_values_have_a_place_within_their_limits(values: list[float]) -> None:
    scale = Scale(*limits(values), 10.0, 90.0)
    assert all(10.0 <= scale(value) <= 90.0 for value in values)


def test_a_legend_takes_as_many_lines_as_it_needs_and_cuts_what_no_line_holds() -> None:
    entries = [Entry("a method with a long name", "#000") for _ in range(4)]
    parts, height = legend(entries, 0, 0, 200)
    assert height == 4 * 16
    assert legend(entries, 0, 0, 2000)[1] == 16
    (words,) = re.findall(r">([^<]+)</text>", "".join(legend([Entry("x" * 500, "#000")], 0, 0, 200)[0]))
    assert words.endswith("…")
    assert text_width(words) <= 200
    assert shortened("short", 200) == "short"


def test_curves_have_their_values_under_the_pointer_and_breaks_where_one_is_missing() -> None:
    picture = figures.accuracy_curves({"A & <b>": ([10, 20, 30, 40], [90.0, None, 70.0, 60.0])})
    assert "A &amp; &lt;b&gt;: 90.00" in picture
    assert picture.count("<circle") == 3 + 1  # and one of the legend
    ElementTree.fromstring(picture)
    (path,) = re.findall(r'd="(M[^"]*)" fill="none" stroke="#0072b2" stroke-width="1.7"/>.*?<circle', picture)[:1]
    assert path.count("M") == 2


def test_printed_curves_are_dashed() -> None:
    curve = ([1, 2], [50.0, 40.0])
    assert "stroke-dasharray" not in figures.accuracy_curves({"A": curve})
    assert texts(figures.accuracy_curves({"A": curve}, {"A": curve}))[-1] == "A, printed"


@pytest.mark.parametrize("count", [1, 12345])
def test_pictures_of_one_and_of_very_many_tasks_are_small(count: int) -> None:
    curve = (range(count), [50.0] * count)
    entries = [{"task": task, "model_bytes": 2**20, "memory_bytes": task} for task in range(count)]
    for picture in (figures.accuracy_curves({"A": curve}), figures.bytes_per_task(entries)):
        ElementTree.fromstring(picture)
        assert len(picture) < 200_000
    assert str(count - 1) in figures.bytes_per_task(entries)


def test_bytes_are_stacked_in_a_unit_that_suits_them() -> None:
    assert "MiB" in texts(figures.bytes_per_task([{"model_bytes": 2**20}]))
    shown = texts(figures.bytes_per_task([{"model_bytes": 512, "memory_bytes": 512}]))
    assert {"KiB", "model", "memory"} <= set(shown)
    assert "teacher" not in shown
    figures.bytes_per_task([{}])


def test_lines_of_tasks_begin_after_their_task() -> None:
    picture = figures.task_accuracies([[0.9, None], [0.5, 0.8]])
    assert "0: 90.00" in picture
    assert "0: 50.00" in picture
    assert "1: 80.00" in picture
    assert picture.count("<circle") == 3 + 2


def test_bars_are_as_long_as_their_numbers_and_missing_ones_are_left_out() -> None:
    picture = figures.row_bars(["a", "b", "c"], {"time (s)": [2.0, 4.0, None]})
    lengths = [float(length) for length in re.findall(r'd="M[\d.]+ [\d.]+h([\d.]+)v', picture)]
    assert lengths[1] == pytest.approx(2 * lengths[0], rel=1e-3)
    assert len(lengths) == 2
    assert texts(picture)[3:] == ["time (s)", "2.00", "4.00"]


@pytest.mark.parametrize(
    ("value", "words"),
    [(0.0, "0"), (0.0123456, "0.0123"), (5.6, "5.60"), (99.96, "100"), (12345.6, "12346"), (-2.0, "-2.00")],
)
def test_numbers_have_about_three_digits(value: float, words: str) -> None:
    assert figures.short_number(value) == words


def test_confusions_are_shares_of_the_true_class() -> None:
    picture = heatmaps.confusion_matrix(np.array([[8, 0], [5, 5]]), (1, 1))
    pixels = np.asarray(images(picture)[0])
    assert pixels.tolist() == [[63, 0], [32, 32]]


@pytest.mark.parametrize("classes", [1, 100, 1000])
def test_confusions_of_many_classes_stay_small_and_keep_their_diagonal(classes: int) -> None:
    counts = np.eye(classes, dtype=np.int64) * 50
    picture = heatmaps.confusion_matrix(counts, (classes,))
    drawn = np.asarray(images(picture)[0])
    assert drawn.shape == (min(classes, 500),) * 2
    assert (np.diag(drawn) == 63).all()
    assert drawn.sum() == np.diag(drawn).sum()
    assert len(picture) < 60_000


def test_accuracies_of_few_tasks_are_written_and_those_of_later_tasks_are_transparent() -> None:
    picture = heatmaps.accuracy_matrix([[0.9, None], [0.25, 0.8]])
    assert {"90", "25", "80"} <= set(texts(picture))
    assert images(picture)[0].convert("RGBA").getpixel((1, 0))[3] == 0
    assert images(picture)[0].convert("RGBA").getpixel((0, 0))[3] == 255
    many = heatmaps.accuracy_matrix([[0.9] * 40] * 40)
    assert "90" not in texts(many)
