"""Every file in ``conf/benchmark`` gives exactly the keys of the class that it names."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from mmcl.benchmarks.base import Benchmark
from mmcl.config.components import locate

FOLDER = Path(__file__).parents[2] / "conf" / "benchmark"
FILES = sorted(FOLDER.rglob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(FOLDER).as_posix())
def test_keys_mirror_the_class(path: Path) -> None:
    loaded = OmegaConf.load(path)
    node = loaded.get("benchmark", loaded)
    component = locate(node["_target_"])
    assert issubclass(component, Benchmark)
    assert set(node) == {field.name for field in fields(component.Config)}
    assert all(field.metadata["help"] for field in fields(component.Config))
    assert node["name"] == path.stem
    whole = {"data": "data", "order_seed": 1993, "file": None}  # interpolations of the whole configuration
    node.update({key: value for key, value in whole.items() if key in node})
    OmegaConf.merge(OmegaConf.structured(component.Config), node)
    choice = path.relative_to(FOLDER).with_suffix("").as_posix()
    assert re.search(rf"^# python -m mmcl\.run \+method=\w+ benchmark={choice}( |$)", path.read_text(), re.MULTILINE)
