"""Every file in ``conf/benchmark`` gives exactly the keys of the class that it names."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from mmcl.benchmarks.base import Benchmark
from mmcl.config.components import locate

FILES = sorted((Path(__file__).parents[2] / "conf" / "benchmark").glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_keys_mirror_the_class(path: Path) -> None:
    loaded = OmegaConf.load(path)
    node = loaded.get("benchmark", loaded)
    component = locate(node["_target_"])
    assert issubclass(component, Benchmark)
    assert set(node) == {field.name for field in fields(component.Config)}
    assert all(field.metadata["help"] for field in fields(component.Config))
    assert node["name"] == path.stem
    node["data"], node["order_seed"] = "data", 1993  # interpolations of the whole configuration
    OmegaConf.merge(OmegaConf.structured(component.Config), node)
    assert f"# python -m mmcl.run +method=memo benchmark={path.stem}" in path.read_text()
