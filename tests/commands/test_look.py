"""``mmcl ls`` and ``mmcl show``: one page about each component."""

from __future__ import annotations

import pytest
from rich.console import Console

from mmcl.cli import main
from mmcl.commands import look
from mmcl.commands.look import arguments, benchmarks_for, method_of, prose, tables_by_method
from mmcl.config.components import locate
from mmcl.config.locate import options
from tests.methods.kinds import method_node

DOCSTRING = """Fit ``k`` blocks, see :mod:`mmcl.methods.losses` and :class:`~torch.nn.Linear`.

Second paragraph.

Args:
    depth: ``6 k + 2`` layers,
        in three stages.
    width: channels.

Raises:
    UserError: no such depth.
"""


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look, "console", Console(highlight=False, soft_wrap=True, width=160))


def _page(name: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["show", name])
    assert ended.value.code == 0
    return capsys.readouterr().out


def _facts(page: str) -> dict[str, list[str]]:
    """Return the lists between the description and the keys of a page."""
    found: dict[str, str] = {}
    for line in page.partition("\nkey ")[0].splitlines():
        name, _, rest = line.partition("  ")
        if name in ("readouts", "benchmarks", "tables", "methods"):
            found[name] = rest
        elif found and line.startswith("   "):
            found[list(found)[-1]] += line
    return {name: [entry.strip() for entry in text.split(",")] for name, text in found.items()}


def test_a_docstring_is_shown_without_markup_and_sections() -> None:
    assert prose(DOCSTRING) == "Fit k blocks, see mmcl.methods.losses and torch.nn.Linear.\n\nSecond paragraph."


def test_arguments_are_found_over_several_lines() -> None:
    assert arguments(DOCSTRING) == {"depth": "6 k + 2 layers, in three stages.", "width": "Channels."}
    assert arguments("Nothing to give.") == {}


@pytest.mark.parametrize(
    ("overrides", "method"),
    [
        (("+method=memo", "seed=1"), "memo"),
        (("method.lr=1", "method=der"), "der"),
        (("+experiment=memo/cifar100_b0_inc10",), "memo"),
        (("+experiment=memo/cifar100_b0_inc10", "method=wa"), "wa"),
        (("seed=1",), ""),
    ],
)
def test_the_method_of_a_run_is_typed_or_that_of_its_experiment(overrides: tuple[str, ...], method: str) -> None:
    assert method_of(overrides) == method


def test_every_run_of_every_table_is_of_a_shipped_method() -> None:
    assert set(tables_by_method()) <= set(options("method"))


def test_a_page_says_readouts_benchmarks_and_tables(capsys: pytest.CaptureFixture[str]) -> None:
    facts = _facts(_page("slca", capsys))
    assert facts["readouts"] == ["cnn"]
    assert facts["benchmarks"][0] == "shapes_classes (default)"
    assert {"cifar100_224", "class_features"} <= set(facts["benchmarks"])
    assert "memory_head/slca_four" in facts["tables"]
    assert _facts(_page("dmn", capsys))["readouts"] == ["text", "dynamic", "static", "fused"]


def test_the_page_of_a_benchmark_says_which_methods_go_through_it(capsys: pytest.CaptureFixture[str]) -> None:
    methods = _facts(_page("modes2d", capsys))["methods"]
    assert {"memory_head", "er", "vanilla"} <= set(methods)
    assert "memo" not in methods


def test_a_network_trained_on_images_is_not_offered_features() -> None:
    memo, slca = (locate(method_node(name)["_target_"]) for name in ("memo", "slca"))
    assert "class_features" in benchmarks_for(slca)
    assert set(benchmarks_for(slca)) - set(benchmarks_for(memo)) == {"class_features"}


def test_arguments_of_a_factory_have_meanings(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Channels of the first stage" in _page("resnet32", capsys)


@pytest.mark.parametrize("name", ["aanets", "memory_head", "mml", "tip_adapter"])
def test_pages_of_methods_have_one_pattern(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    page = _page(name, capsys)
    places = [page.index(part) for part in (f"method {name}\n", "\nreadouts ", "\nkey ", "\npython -m mmcl.run ")]
    assert places == sorted(places)
    assert "``" not in page
    assert "Attributes:" not in page
    assert list(_facts(page)) == ["readouts", "benchmarks", "tables"]
