"""Tuning: points of a grid, the choice by validation samples, the table that is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from mmcl.cli import main
from mmcl.errors import UserError
from mmcl.launch.tune import find_searches, load_search, points, typed
from mmcl.results.tables import load_table

TABLE = {"title": "t", "paper": "none", "source": "none", "tolerance": 0.0, "cost": "seconds", "data": []}


def search(**changes: Any) -> dict[str, Any]:
    """A search over one method in one setting."""
    return {
        "table": TABLE,
        "choose_by": "head_validation",
        "readout": "head",
        "trials": 2,
        "seeds": [1],
        "settings": {"MODES CI": ["benchmark.order=ci"]},
        "methods": {"Linear": {"overrides": ["+method=vanilla"], "grids": {"method.lr": [0.1, 0.00001]}}},
        **changes,
    }


def written(folder: Path, node: dict[str, Any]) -> str:
    """The path of a search file."""
    path = folder / "search.yaml"
    path.write_text(yaml.safe_dump(node))
    return str(path)


def test_points_are_drawn_without_repetition_and_always_alike() -> None:
    grid = {"a": [1, 2, 3], "b": [None, "x"]}
    drawn = points(grid, 4)
    assert drawn == points(grid, 4)
    assert len({tuple(typed(point)) for point in drawn}) == 4
    assert len(points(grid, 100)) == 6
    assert typed({"b": None, "a": 1}) == ["a=1", "b=null"]


def test_the_best_setting_by_validation_becomes_a_table(tmp_path: Path) -> None:
    table = tmp_path / "tuned.yaml"
    with pytest.raises(SystemExit) as stop:
        main(
            ["tune", written(tmp_path, search()), str(table), "trainer=cpu", "benchmark.data_seed=1", "--runs"]
            + [str(tmp_path / "runs")]
        )
    assert stop.value.code == 0
    (row,) = load_table(table).rows
    # a rate of 0.00001 moves nothing in one pass over a thousand samples
    assert row.overrides == ("+method=vanilla", "benchmark.order=ci", "method.lr=0.1")
    assert row.label == "Linear, MODES CI"
    assert "best of 2 settings" in row.note


def test_test_samples_cannot_choose(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="head_validation"):
        load_search(written(tmp_path, search(choose_by="head")))


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    node = search()
    del node["seeds"]
    with pytest.raises(UserError, match="'seeds' is missing"):
        load_search(written(tmp_path, node))


def test_an_unknown_search_names_the_known_ones() -> None:
    with pytest.raises(UserError, match="Searches: "):
        load_search("no_such_search")


@pytest.mark.parametrize("name", sorted(find_searches()))
def test_every_point_of_a_shipped_search_is_a_sound_configuration(name: str) -> None:
    from mmcl.config.compose import compose_run

    found = load_search(name)
    for contestant in found.contestants:
        compose_run([*contestant.overrides, *typed(points(contestant.grids, 1)[0])])
