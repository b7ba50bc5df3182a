"""Every shipped configuration file composes, is complete, and begins with a command that works."""

from __future__ import annotations

import re
import shlex
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import get_type_hints

import pytest
from omegaconf import OmegaConf

from mmcl.config.components import describe, locate
from mmcl.config.compose import compose_run, compose_sweep
from mmcl.config.locate import options, shipped_folder
from mmcl.config.schema import LoggerConfig, PathsConfig, RunConfig, TrainerConfig
from mmcl.launch.table_check import check_tables
from mmcl.memory.quota import MemoryConfig
from mmcl.results.tables import find_tables, load_table
from tests.methods.kinds import method_node

CONF = shipped_folder("conf")
COMMAND = "# python -m mmcl.run "


def _name(path: Path) -> str:
    return path.relative_to(path.parents[2] if path.parent.name == "memo" else path.parent.parent).as_posix()


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.yaml")), ids=_name)
def test_the_first_comment_is_a_command_that_composes(path: Path) -> None:
    lines = [line for line in path.read_text().splitlines() if not line.startswith("# @package")]
    assert lines[0].startswith(COMMAND), lines[0]
    config = compose_run(shlex.split(lines[0].removeprefix(COMMAND)))
    group, name = path.relative_to(CONF).parts[0], path.stem
    if group in ("method", "benchmark", "backbone", "trainer", "logger"):
        expected = "flowers" if name == "imagefolder" else name
        assert config[group].name == expected


@pytest.mark.parametrize("path", find_tables(), ids=lambda path: path.stem)
def test_the_first_comment_of_a_table_is_the_command_that_reproduces_it(path: Path) -> None:
    table = load_table(path)
    mmcl, reproduce, name, *typed = shlex.split(path.read_text().splitlines()[0].removeprefix("# "))
    assert (mmcl, reproduce, name) == ("mmcl", "reproduce", table.name)
    for overrides in table.runs[:1]:
        compose_sweep([*overrides, *typed])


def test_every_row_of_every_table_composes_and_no_two_are_the_same_by_accident() -> None:
    checked = check_tables(find_tables())
    assert [error for table in checked for error in table.errors] == []
    assert [warning for table in checked for warning in table.warnings] == []


@pytest.mark.parametrize("name", options("method"))
def test_a_method_file_gives_every_key_of_its_class(name: str) -> None:
    node = method_node(name)
    component = locate(node["_target_"])
    _assert_same_keys(node, component.Config)
    assert node["name"] == name
    assert "???" not in OmegaConf.to_yaml(node)
    assert name in locate(node["_target_"]).__module__.split(".")[2:]


@pytest.mark.parametrize(("group", "schema"), [("trainer", TrainerConfig), ("logger", LoggerConfig)])
def test_a_group_file_gives_every_key(group: str, schema: type) -> None:
    for name in options(group):
        node = OmegaConf.load(CONF / group / f"{name}.yaml")
        _assert_same_keys(node, schema)
        assert node["name"] == name


def test_the_root_gives_every_key_that_no_group_gives() -> None:
    node = OmegaConf.load(CONF / "config.yaml")
    groups = {"trainer", "logger", "memory", "backbone", "benchmark", "method"}
    assert {str(key) for key in node} - {"defaults", "hydra"} | groups == {field.name for field in fields(RunConfig)}
    _assert_same_keys(node["paths"], PathsConfig)


@pytest.mark.parametrize("name", ["run", "memory", *options("method")])
def test_every_key_says_what_it_means(name: str) -> None:
    schema = {"run": RunConfig, "memory": MemoryConfig}.get(name)
    if schema is None:
        schema = locate(method_node(name)["_target_"]).Config
    for key, meaning in describe(schema):
        assert re.match(r".{8,}\.$", meaning) or key in ("paths", "method", "memory"), key


def _assert_same_keys(node: object, schema: type) -> None:
    assert set(map(str, node)) == {field.name for field in fields(schema)}  # type: ignore[call-overload,arg-type]
    for key, hint in get_type_hints(schema).items():
        if is_dataclass(hint):
            _assert_same_keys(node[key], hint)  # type: ignore[index,arg-type]
