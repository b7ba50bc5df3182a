"""Every method has the same parts: a module of its name, a configuration, a test module, a docstring with sources."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from mmcl.commands.look import comment_lines, method_of
from mmcl.config.components import locate
from mmcl.config.locate import options
from mmcl.results.tables import load_table, table_names
from tests.methods.kinds import method_node

TESTS = Path(__file__).parent
# A paper has a year; what has no paper says what it bounds or is a baseline of.
SOURCE = re.compile(r"\b(19|20)\d\d\b|\b(lower|upper) bound\b|\bbaseline\b", re.IGNORECASE)
PLACE = re.compile(r"\bexperiments/[\w/]+")
METHODS = options("method")


@pytest.mark.parametrize("name", METHODS)
def test_a_method_lies_in_a_module_of_its_name(name: str) -> None:
    package, _, rest = method_node(name)["_target_"].partition(f"mmcl.methods.{name}.")
    assert (package, bool(rest)) == ("", True), (
        f"{name}: expected in mmcl/methods/{name}.py or below mmcl/methods/{name}/"
    )


@pytest.mark.parametrize("name", METHODS)
def test_a_method_has_a_test_module(name: str) -> None:
    places = [TESTS / f"test_{name}.py", TESTS / "online" / f"test_{name}.py", *(TESTS / name).glob("test_*.py")]
    assert any(place.is_file() for place in places), f"{name}: no tests/methods/test_{name}.py"


@pytest.mark.parametrize("name", METHODS)
def test_the_docstring_says_what_a_method_is_and_where_it_is_from(name: str) -> None:
    module = locate(method_node(name)["_target_"]).__module__
    text = importlib.import_module(module).__doc__ or ""
    first = text.partition("\n")[0]
    assert re.fullmatch(r"[^:]+: .+\.", first), f"{module}: expected 'Name: what it is.', got {first!r}"
    assert SOURCE.search(text), f"{module}: names no paper with its year, nor what it is a bound or baseline of"


@pytest.mark.parametrize("name", METHODS)
def test_a_configuration_begins_with_its_command_and_its_tables(name: str) -> None:
    command, *about = comment_lines("method", name)
    assert command == f"python -m mmcl.run +method={name}"
    text = " ".join(about)
    assert text.startswith(("Tables: experiments/", "No table of a paper: ")), f"conf/method/{name}.yaml: {text[:60]!r}"


def test_a_method_has_rows_in_the_tables_that_its_configuration_names() -> None:
    rows = {(name, method_of(run)) for name in table_names() for run in load_table(name).runs}
    for method in METHODS:
        text = " ".join(comment_lines("method", method))
        for place in PLACE.findall(text) if "Tables: " in text else ():
            wanted = place.removeprefix("experiments/")
            found = [name for name, of in rows if of == method and (name == wanted or name.startswith(f"{wanted}/"))]
            assert found, f"conf/method/{method}.yaml: no row of {place} is of method={method}"
