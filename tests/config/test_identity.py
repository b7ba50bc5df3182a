"""Who a run is: what decides its figures, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from mmcl.config.compose import compose_run
from mmcl.config.identity import identity, run_directory
from mmcl.config.locate import options

BASE = ["+method=memo", "trainer=cpu"]


def _identity(*overrides: str) -> str:
    return identity(compose_run([*BASE, *overrides]))


@pytest.mark.parametrize(
    "override",
    [
        "paths.data=/elsewhere",
        "paths.runs=/elsewhere",
        "trainer=ddp_cpu",
        "trainer.devices=4",
        "trainer.progress=false",
        "trainer.checkpoint_every_n_epochs=0",
        "logger=wandb",
        "force=true",
        "benchmark.workers=3",
        "benchmark.steps_per_block=1",
    ],
)
def test_paths_and_hardware_are_no_part_of_it(override: str) -> None:
    assert _identity(override) == _identity()


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "trainer.precision=bf16-mixed",
        "trainer.matmul_precision=high",
        "memory.size=7",
        "memory.select=random",
        "backbone.width=8",
        "backbone=resnet20",
        "benchmark.increment=5",
        "benchmark.order_seed=1",
        "benchmark.exact=true",
        "method=der",
    ],
)
def test_what_decides_figures_is_part_of_it(override: str) -> None:
    assert _identity(override) != _identity()


@pytest.mark.parametrize("name", options("method"))
def test_every_key_of_a_method_is_part_of_it(name: str) -> None:
    config = compose_run([f"+method={name}"])
    known = {identity(config)}
    for key in _leaves(config.method):
        other = config.copy()
        OmegaConf.update(other, f"method.{key}", _another(OmegaConf.select(config.method, key)))
        known.add(identity(other))
    assert len(known) == 1 + len(_leaves(config.method))


def test_directories_of_runs_that_differ_by_seed_lie_together() -> None:
    directories = [run_directory(compose_run([*BASE, f"seed={seed}", "paths.runs=/r"])) for seed in (1, 2)]
    assert [path.name for path in directories] == ["seed1", "seed2"]
    assert directories[0].parent == directories[1].parent
    assert directories[0].parent.parent == Path("/r/digits/memo")
    fixed = [run_directory(compose_run([*BASE, f"seed={seed}", "benchmark.order_seed=5"])) for seed in (1, 2)]
    assert fixed[0].parent == fixed[1].parent
    assert fixed[0].parent.name != directories[0].parent.name


def test_a_named_directory_is_used_as_it_is() -> None:
    assert run_directory(compose_run([*BASE, "paths.run=~/mine"])) == Path("~/mine").expanduser()


def _leaves(node: DictConfig, prefix: str = "") -> list[str]:
    keys: list[str] = []
    for key in map(str, node):
        inner = node[key]
        keys += _leaves(inner, f"{prefix}{key}.") if isinstance(inner, DictConfig) else [prefix + key]
    return keys


def _another(value: Any) -> Any:
    if isinstance(value, bool) or value is None:
        return "1" if value is None else not value
    return [*value, 1] if OmegaConf.is_list(value) else f"{value}x" if isinstance(value, str) else value + 1
