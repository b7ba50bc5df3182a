"""A table's results as one picture: dots of methods, a line for each setting or data set."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from mmcl.cli import main
from mmcl.errors import UserError
from mmcl.report.table_figures import table_pictures, write_figure
from mmcl.results.comparison import ComparedTable, compare, pick_from
from mmcl.results.store import find_results
from mmcl.results.tables import Row, Table
from tests.report.made import DATASET_RUN, dataset_result, datasets_table, write
from tests.report.made_streams import stream_content

NAMESPACES = ("http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink")
COLUMNS = {"title": "T", "paper": "P", "source": "none", "tolerance": 0.2, "cost": "none", "data": []}


def overrides(method: str, order: str) -> tuple[str, ...]:
    return (f"+method={method}", f"benchmark.order={order}")


def rows(*settings: tuple[str, str], **printed: float) -> tuple[Row, ...]:
    return tuple(
        Row(f"{method}, small, {order.upper()}", overrides(method, order), "head", printed, "log" if printed else None)
        for method, order in settings
    )


def compared(folder: Path, *wanted: Row, accuracies: dict[tuple[str, str], list[float]]) -> ComparedTable:
    """Return a table joined with streams that were run once for each accuracy."""
    for (method, order), values in accuracies.items():
        for seed, value in enumerate(values):
            command = " ".join(["python -m mmcl.run", *overrides(method, order), f"seed={seed}"])
            config = {**stream_content()["config"], "seed": seed}
            write(folder / method / order / str(seed), stream_content(command, last=value, config=config))
    results, problems = find_results(folder)
    assert not problems
    return compare(Table("streams", "T", "P", "none", 0.2, "none", (), wanted), pick_from(results))


def drawn(path: Path) -> tuple[list[str], str]:
    """Return the texts of an SVG file that stands alone, and all of it."""
    text = path.read_text(encoding="utf-8")
    root = ElementTree.fromstring(text)
    assert root.attrib["style"].startswith("color: #")  # which currentColor is
    for address in NAMESPACES:
        text = text.replace(address, "")
    assert "http" not in text
    return ["".join(node.itertext()) for node in root.iter(f"{{{NAMESPACES[0]}}}text")], text


def test_methods_are_dots_on_the_lines_of_their_settings(tmp_path: Path) -> None:
    table = compared(
        tmp_path,
        *rows(("er", "ci"), ("mir", "ci"), ("er", "iid"), ("gdumb", "iid")),
        accuracies={("er", "ci"): [0.5], ("mir", "ci"): [0.6], ("er", "iid"): [0.7]},
    )
    shown, _ = drawn(write_figure(table, tmp_path / "new" / "f.svg"))
    assert shown.count("CI") == shown.count("IID") == 1
    assert shown.count("er, small") == shown.count("mir, small") == 1
    assert not any("gdumb" in text for text in shown)  # not measured
    assert "printed" not in shown


def test_bars_show_the_spread_over_seeds(tmp_path: Path) -> None:
    wanted = rows(("er", "ci"), ("mir", "ci"))
    single = {("er", "ci"): [0.5], ("mir", "ci"): [0.9]}
    _, without = drawn(write_figure(compared(tmp_path / "a", *wanted, accuracies=single), tmp_path / "a.svg"))
    several = {("er", "ci"): [0.5, 0.6, 0.7], ("mir", "ci"): [0.9]}
    _, bars = drawn(write_figure(compared(tmp_path / "b", *wanted, accuracies=several), tmp_path / "b.svg"))
    assert without.count('class="spread"') == 0
    assert bars.count('class="spread"') == 1


def test_printed_values_are_told_from_ours(tmp_path: Path) -> None:
    table = compared(tmp_path, *rows(("er", "ci"), last_accuracy=51.0), accuracies={("er", "ci"): [0.5]})
    assert "printed" in drawn(write_figure(table, tmp_path / "f.svg"))[0]
    assert list(table_pictures(table)) == [
        "Accuracy after the stream, ours filled and printed hollow"
    ]  # one row has no bars


def test_data_sets_are_lines(tmp_path: Path) -> None:
    found = dataset_result(tmp_path / "run", *DATASET_RUN)
    table = compare(datasets_table(Row("DMN, fused", DATASET_RUN, "fused", {})), pick_from([found]))
    shown, _ = drawn(write_figure(table, tmp_path / "f.svg"))
    assert {"Pets", "DTD", "Cars", "DMN, fused"} <= set(shown)
    assert "mean" not in shown


def test_many_methods_on_many_streams_are_a_small_file(tmp_path: Path) -> None:
    settings = [(f"m{method}", f"o{order}") for method in range(10) for order in range(8)]
    accuracies = {setting: [0.5 + index / 1000, 0.6] for index, setting in enumerate(settings)}
    path = write_figure(compared(tmp_path, *rows(*settings), accuracies=accuracies), tmp_path / "f.svg")
    assert path.stat().st_size < 200_000


def test_nothing_measured_is_no_figure(tmp_path: Path) -> None:
    table = compared(tmp_path, *rows(("er", "ci")), accuracies={})
    with pytest.raises(UserError, match="mmcl reproduce streams"):
        write_figure(table, tmp_path / "f.svg")
    assert not (tmp_path / "f.svg").exists()


def test_the_command_draws_a_table_from_a_folder_of_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compared(tmp_path / "runs", *rows(("er", "ci")), accuracies={("er", "ci"): [0.5, 0.6]})
    row = {"label": "ER, CI", "overrides": list(overrides("er", "ci")), "readout": "head", "printed": {}}
    (tmp_path / "table.yaml").write_text(yaml.safe_dump({**COLUMNS, "rows": [row]}))
    named = ["figure", str(tmp_path / "table.yaml"), "--runs", str(tmp_path / "runs")]
    with pytest.raises(SystemExit) as ended:
        main([*named, str(tmp_path / "f.svg")])
    assert ended.value.code == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "f.svg")
    assert {"ER", "CI"} <= set(drawn(tmp_path / "f.svg")[0])
    with pytest.raises(SystemExit) as ended:
        main([*named, str(tmp_path / "f.png")])
    assert ended.value.code == 2
    assert "f.svg" in capsys.readouterr().err
