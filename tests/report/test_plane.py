"""Planes of accuracy, bytes and time: which runs are in one, which points are on the front, what is drawn."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmcl.report.figures import as_file
from mmcl.report.label_places import Box, place_labels
from mmcl.report.plane import Plane, find_planes, plane_picture
from mmcl.report.plane_points import front, shown_readouts
from mmcl.results.store import Result, find_results
from tests.report.made import content, write

COSTS = st.lists(st.tuples(*[st.integers(0, 4)] * 3), max_size=30)
MEMORY = {"size": None, "per_class": None, "bytes": 1000, "select": "herding"}
BOXES = st.builds(Box, *[st.floats(20, 280)] * 2, *[st.floats(2, 12)] * 2)


@given(COSTS)
def test_front_is_what_brute_force_leaves(costs: list[tuple[int, ...]]) -> None:
    def beats(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
        return all(a <= b for a, b in zip(one, other, strict=True)) and one != other

    assert front(costs) == [not any(beats(other, one) for other in costs) for one in costs]


@given(COSTS.filter(bool))
def test_some_point_is_on_the_front_and_each_cheapest_one_is(costs: list[tuple[int, ...]]) -> None:
    on_it = front(costs)
    assert on_it[costs.index(min(costs))]


@given(st.lists(BOXES, min_size=1, max_size=12))
def test_labels_stay_in_the_frame_and_off_each_other_where_there_is_room(marks: list[Box]) -> None:
    frame = Box(0, 0, 900, 900)
    places = place_labels(marks, [(30.0, 10.0)] * len(marks), frame)
    assert all(place.within(frame) for place in places)
    pairs = [(one, other) for index, one in enumerate(places) for other in places[:index]]
    assert all(one.overlap(other) == 0 for one, other in pairs)


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (["cnn", "nme", "nme_ft"], ["cnn", "nme"]),
        (["text", "dynamic", "static", "fused"], ["fused"]),
        (["text", "tip"], ["tip"]),
        (["text"], ["text"]),
        (["nme"], ["nme"]),
    ],
)
def test_a_method_is_shown_by_its_own_readout(names: list[str], shown: list[str]) -> None:
    assert shown_readouts(names) == shown


def test_seeds_of_a_configuration_are_one_point(tmp_path: Path) -> None:
    for seed, last in ((1, 0.5), (2, 0.7)):
        _run(tmp_path, "memo", seed=seed, last=last, seconds=10.0 * seed)
    (plane,) = find_planes(_with_two_others(tmp_path))
    own, second = (point for point in plane.points if point.method == "memo")
    assert (own.readout, second.readout, own.second, second.second) == ("cnn", "nme", False, True)
    assert own.seeds == 2
    assert own.last == pytest.approx(0.6)
    assert own.seconds == pytest.approx(15.0)
    assert own.accuracy_spread == pytest.approx(0.1 * 2**0.5)
    assert own.kept_bytes == 2**20 + 2**19


def test_the_newest_of_two_runs_of_one_seed_counts(tmp_path: Path) -> None:
    _run(tmp_path, "memo", name="older", last=0.1, date="2030-01-01")
    _run(tmp_path, "memo", name="newer", last=0.9, date="2031-01-01")
    (plane,) = find_planes(_with_two_others(tmp_path))
    assert [point.last for point in plane.points if point.label == "memo" and not point.second] == [0.9]


def test_two_methods_make_no_plane(tmp_path: Path) -> None:
    for method in ("der", "wa"):
        _run(tmp_path, method)
    assert find_planes(find_results(tmp_path)[0]) == []


def test_other_benchmarks_make_other_planes_named_by_what_differs(tmp_path: Path) -> None:
    for increment in (2, 5):
        for order in ("iid", "ci"):
            for method in ("der", "wa", "memo"):
                _run(tmp_path, method, benchmark={"increment": increment, "order": order}, name=f"{increment}{order}")
    titles = [plane.title for plane in find_planes(find_results(tmp_path)[0])]
    assert titles == [f"digits B0 Inc{size} (order={order})" for size in (2, 5) for order in ("ci", "iid")]


def test_a_budget_has_a_plane_of_its_own_with_those_that_take_none(tmp_path: Path) -> None:
    for method in ("der", "wa", "memo"):
        _run(tmp_path, method, memory=MEMORY, bytes=900)
    _run(tmp_path, "der", memory={**MEMORY, "bytes": None, "size": 5}, bytes=5000, name="free")
    _run(tmp_path, "ncm", memory={"name": "none"}, bytes=800)
    _run(tmp_path, "slca", memory={"name": "none"}, bytes=1200)
    everything, within = find_planes(find_results(tmp_path)[0])
    assert (within.title, within.budget) == ("digits B0 Inc2, 1,000 bytes", 1000)
    assert {point.label for point in within.points} == {"der", "memo", "ncm", "wa"}
    assert everything.budget is None
    assert {"der (size=5)", "slca"} < {point.label for point in everything.points}


def test_what_ignores_the_budget_is_a_bound_and_on_no_front(tmp_path: Path) -> None:
    for method, kept in (("der", 1000), ("wa", 1100), ("memo", 900), ("joint", 9000)):
        _run(tmp_path, method, memory=MEMORY, bytes=kept, last=0.99 if method == "joint" else 0.6)
    (plane,) = find_planes(find_results(tmp_path)[0])
    assert {point.method for point in plane.points if point.beyond} == {"joint"}
    assert {point.method for point in plane.points if point.on_front} == {"memo"}
    texts, titles = _read(plane)
    assert "joint, beyond the budget" in texts
    assert len(titles) == len(plane.points)


def test_one_budget_for_all_is_one_plane(tmp_path: Path) -> None:
    for method in ("er", "mir", "gdumb"):
        _run(tmp_path, method, config={"total_bytes": 688}, bytes=680)
    (plane,) = find_planes(find_results(tmp_path)[0])
    assert plane.budget == 688


def test_labels_tell_configurations_apart(tmp_path: Path) -> None:
    settings: list[dict[str, Any]] = [{"lr": lr, "net": {"width": width}} for lr in (1, 2) for width in (4, 8)]
    for index, config in enumerate(settings):
        _run(tmp_path, "memo", config=config, name=str(index))
    (plane,) = find_planes(_with_two_others(tmp_path))
    labels = {point.label for point in plane.points if point.method == "memo"}
    assert labels == {f"memo (lr={lr}, net.width={width})" for lr in (1, 2) for width in (4, 8)}


def test_more_memory_is_one_family_from_few_bytes_to_many(tmp_path: Path) -> None:
    for size in (20, 5, 10):
        _run(tmp_path, "memo", memory={**MEMORY, "bytes": None, "size": size}, bytes=100 * size, name=str(size))
    (plane,) = find_planes(_with_two_others(tmp_path))
    points = [point for point in plane.points if point.method == "memo" and not point.second]
    assert [point.label for point in points] == ["memo (size=5)", "memo (size=10)", "memo (size=20)"]
    assert {point.family for point in points} == {"memo"}


def test_a_plane_of_evaluations_is_about_unseen_classes(tmp_path: Path) -> None:
    for method in ("mml", "reco", "rac"):
        benchmark = {"evaluations": ["seen", "unseen", "wrong_memory"], "split_seed": 1993}
        _run(tmp_path, method, benchmark=benchmark, task_names=["seen", "unseen", "wrong_memory"])
    (plane,) = find_planes(find_results(tmp_path)[0])
    assert plane.axis == "accuracy on unseen (%)"
    assert {point.accuracy for point in plane.points if not point.second} == {0.7}


def test_times_of_several_machines_decide_nothing(tmp_path: Path) -> None:
    for method, seconds, cpus in (("der", 9.0, 2), ("wa", 1.0, 2), ("memo", 5.0, 64)):
        _run(tmp_path, method, seconds=seconds, cpus=cpus)
    (plane,) = find_planes(find_results(tmp_path)[0])
    assert "several machines" in plane.readout
    assert [point.method for point in plane.points if point.on_front] == ["der", "memo", "wa"]


def test_a_faster_run_beats_an_equal_one(tmp_path: Path) -> None:
    for method, seconds in (("der", 9.0), ("wa", 1.0), ("memo", 5.0)):
        _run(tmp_path, method, seconds=seconds)
    (plane,) = find_planes(find_results(tmp_path)[0])
    assert {point.method for point in plane.points if point.on_front} == {"wa"}


def test_runs_without_accuracy_make_no_plane(tmp_path: Path) -> None:
    for method in ("der", "wa", "memo"):
        _run(tmp_path, method, readouts={"cnn": {}})
    assert find_planes(find_results(tmp_path)[0]) == []


def test_unfinished_and_unmeasured_runs_are_passed_over(tmp_path: Path) -> None:
    _run(tmp_path, "memo", status="failed")
    made = content()
    write(tmp_path / "unmeasured", {**made, "bytes": []})
    assert {point.method for plane in find_planes(_with_two_others(tmp_path, "bic")) for point in plane.points} == {
        "bic",
        "der",
        "wa",
    }


@pytest.mark.parametrize(("budget", "words"), [(None, "model and memory kept (MiB)"), (2**21, "time of a run (s)")])
def test_picture_shows_every_point_and_names_every_method(tmp_path: Path, budget: int | None, words: str) -> None:
    for index, method in enumerate(("der", "wa", "memo")):
        _run(tmp_path, method, seconds=10.0 * (index + 1), memory={**MEMORY, "bytes": budget})
    (plane,) = find_planes(find_results(tmp_path)[0])
    texts, titles = _read(plane)
    assert {"der", "wa", "memo", words} <= set(texts)
    assert len(titles) == len(plane.points) == 6


def test_picture_is_drawn_where_no_time_is_known_and_all_is_equal(tmp_path: Path) -> None:
    for method in ("der", "wa", "memo"):
        _run(tmp_path, method, seconds=None)
    (plane,) = find_planes(find_results(tmp_path)[0])
    assert len(_read(plane)[1]) == 6


def _read(plane: Plane) -> tuple[list[str], list[str]]:
    """Return the words and the titles of marks of a picture that is well-formed and has no broken number."""
    picture = plane_picture(plane)
    assert not re.search(r"\b(nan|inf)\b", picture)
    root = ElementTree.fromstring(as_file(picture))
    tag = "{http://www.w3.org/2000/svg}"
    return [text.text or "" for text in root.iter(f"{tag}text")], [t.text or "" for t in root.iter(f"{tag}title")]


def _with_two_others(folder: Path, *further: str) -> list[Result]:
    for method in ("der", "wa", *further):
        _run(folder, method)
    results, problems = find_results(folder)
    assert not problems
    return results


def _run(  # noqa: PLR0913 - one for each part of a result that planes look at
    folder: Path,
    method: str,
    *,
    seed: int = 1993,
    last: float = 0.6,
    seconds: float | None = 75.0,
    bytes: int = 2**20 + 2**19,  # noqa: A002 - what it is called in a result
    memory: dict[str, Any] | None = None,
    benchmark: dict[str, Any] | None = None,
    config: dict[str, Any] | None = None,
    cpus: int = 2,
    date: str = "2030-01-01",
    name: str = "",
    **changes: Any,
) -> None:
    """Write a result of a method."""
    made = content(**changes)
    made["config"] = {
        "seed": seed,
        "method": {"name": method, **(config or {})},
        "benchmark": {**made["config"]["benchmark"], "order_seed": seed, **(benchmark or {})},
        "memory": memory or {"size": 5, "bytes": None},
    }
    made["readouts"] = json.loads(json.dumps(made["readouts"]))
    if made["readouts"]["cnn"]:
        made["readouts"]["cnn"]["last_accuracy"] = last
    made["bytes"] = [{"task": 2, "model_bytes": bytes, "memory_bytes": 0}]
    made["timing"] = {"wall_seconds": seconds, "stages": []}
    made["provenance"] = {"date": date, "hardware": {"machine": "x", "cpus": cpus}}
    write(folder / method / f"{name}seed{seed}", made)
