"""The page in a real browser: no errors, no network, tables that sort, pictures that show, on laptop and phone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmcl.report.page import write_report
from mmcl.results.store import find_results
from mmcl.results.tables import Row, SweepPoint, Table
from tests.report.browser import LAPTOP, PHONE, opened, running_browser
from tests.report.made import DATASET_RUN, content, dataset_content, datasets_table, write
from tests.report.made_streams import STREAM_RUN, write_stream

LONG = "A label that is so long that no column of any table could ever hold it on one line, " * 2 + "x" * 60
LISTED = "[...document.querySelectorAll('#list tbody tr:not([hidden])')].map(row => row.cells[{}].textContent)"
CONTRAST = """() => {
  const numbers = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map(Number);
  const light = (colour) => numbers(colour).map((value) => value / 255)
    .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4))
    .reduce((sum, value, index) => sum + value * [0.2126, 0.7152, 0.0722][index], 0);
  const back = (node) => {
    const colour = getComputedStyle(node).backgroundColor;
    return colour.endsWith(", 0)") && node.parentElement ? back(node.parentElement) : colour;
  };
  // Numbers on coloured cells and dots have colours of their own.
  const own = (node) => node.getAttribute("fill") || /fill: #/.test(node.getAttribute("style"));
  const ink = (node) => getComputedStyle(node)[node.tagName === "text" ? "fill" : "color"];
  return [...document.querySelectorAll("p, td, th, h1, h2, h3, a, pre, summary, figcaption, text, span, dt")]
    .filter((node) => node.textContent.trim() && !own(node))
    .map((node) => [light(ink(node)), light(back(node))])
    .map(([a, b]) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05));
}"""
UNFOLD = """() => {
  for (const fold of document.querySelectorAll("details")) fold.open = true;
  for (const button of document.querySelectorAll(".unfold")) button.click();
}"""
SIZES = """[...document.querySelectorAll('figure svg, figure img')]
  .map((node) => node.getBoundingClientRect()).map((box) => [box.width, box.height])"""


def seeded(folder: Path, method: str, *lasts: float) -> tuple[str, ...]:
    """Write a run of a method for each last accuracy, and return their overrides."""
    for seed, last in enumerate(lasts):
        made = content(f"python -m mmcl.run +method={method} seed={seed}")
        made["config"] |= {"seed": seed, "method": {"name": method}}
        made["identity"] = f"{method}{seed}"
        made["readouts"]["cnn"]["last_accuracy"] = last
        made["timing"]["wall_seconds"] = 10.0 ** (3 * last)
        write(folder / f"{method}{seed}", made, "\n".join(",".join("123456") for _ in range(6)))
    return (f"+method={method}",)


def unusual_page(folder: Path) -> Path:
    """Write a page about runs of all kinds, a failed one, rows that were not run, and labels that try to break it."""
    runs = folder / "runs"
    rows = (
        Row(
            "MEMO",
            seeded(runs, "memo", 0.6, 0.7),
            "cnn",
            {"last_accuracy": 64.0, "accuracy_curve": (90.0, 70.0, 60.0)},
            "paper",
        ),
        Row('<script>alert("x")</script> & </td>', seeded(runs, "der", 0.09), "cnn", {"last_accuracy": 64.0}, "log"),
        Row(LONG, seeded(runs, "wa", 0.55), "cnn", {}, note=LONG),
        Row("Not run", ("+method=bic",), "cnn", {"last_accuracy": 11.0}, "unverified"),
        Row("Printed", None, "cnn", {"last_accuracy": 12.0}, "paper"),
    )
    for size in (1, 2):
        sizes = [{"task": 0, "paper_model_bytes": 0, "paper_memory_bytes": size * 2**20, "memory_bytes": size * 2**20}]
        config = {**content()["config"], "memory": {"size": size}}
        write(
            runs / f"size{size}",
            content(f"python -m mmcl.run +method=memo memory.size={size}", config=config, bytes=sizes),
        )
    sweep = tuple(SweepPoint(size, ("+method=memo", f"memory.size={size}")) for size in (1, 2))
    write(runs / "dmn", dataset_content(" ".join(["python -m mmcl.run", *DATASET_RUN])))
    (runs / "dmn" / "confusion_fused.csv").write_text("5,1\n0,6\n")
    write_stream(runs / "stream")
    write(runs / "failed", content("python -m mmcl.run +method=rmm", status="failed", readouts={}, timing={}, bytes=[]))
    many = [{"task": task, "memory_bytes": task} for task in range(10_000, 10_500)]
    write(runs / "many", content("python -m mmcl.run +method=many", bytes=many, readouts={}, task_sizes=[1] * 10_500))
    np.savetxt(runs / "memo0" / "confusion_cnn.csv", np.eye(200, dtype=int), delimiter=",", fmt="%d")
    results, problems = find_results(runs)
    tables = [
        Table("one/a", "Class-incremental <b>", "Paper", "table 1", 2.0, "", (), rows, LONG),
        datasets_table(Row("DMN", DATASET_RUN, "fused", {"accuracy_curve": (86.0, None, 60.0)}, "log")),
        Table("streams", "Streams", "Paper", "none", 0.2, "", (), (Row("Memory Head, CI", STREAM_RUN, "head", {}),)),
        Table("sweep", "Sweep", "Paper", "none", 0.2, "", (), (Row("MEMO", None, "cnn", {}, sweep=sweep),)),
        Table("absent", LONG, "Paper", "none", 0.2, "", (), (Row("BiC", ("+method=bic",), "cnn", {}),)),
    ]
    return write_report(results, tables, folder / "report.html", [*problems, f"{LONG}/result.json: skipped"])


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with running_browser() as started:
        yield started


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unusual_page(tmp_path_factory.mktemp("browser"))


@pytest.mark.parametrize("viewport", [LAPTOP, PHONE], ids=["laptop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_of_it_shows_without_errors_network_or_sideways_scrolling(
    browser: Any, report: Path, viewport: dict[str, int], scheme: str
) -> None:
    with opened(browser, report, viewport, scheme) as shown:
        shown.page.evaluate(UNFOLD)
        sizes = shown.page.evaluate(SIZES)
        assert len(sizes) > 25
        assert shown.page.locator("#planes figure svg").count() >= 1
        assert shown.page.locator("#planes tbody tr", has_text="memo").count() >= 1
        assert min(min(size) for size in sizes) > 20
        assert shown.page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
        assert min(shown.page.evaluate(CONTRAST)) >= 4.5
        assert shown.page.locator("script").count() == 1
    assert shown.wrong == []
    assert [address for address in shown.requested if not address.startswith("data:")] == [report.resolve().as_uri()]


def test_light_and_dark_differ(browser: Any, report: Path) -> None:
    backs = []
    for scheme in ("light", "dark"):
        with opened(browser, report, scheme=scheme) as shown:
            backs.append(shown.page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert backs == ["rgb(255, 255, 255)", "rgb(22, 22, 22)"]


def sort_by(page: Any, table: str, header: str) -> str:
    """Press a header with the keyboard and return what its order is then said to be."""
    button = page.locator(f"{table} th", has_text=header).first.locator("button")
    button.focus()
    page.keyboard.press("Enter")
    return str(button.locator("xpath=..").get_attribute("aria-sort"))


def test_tables_sort_both_ways_by_numbers_times_and_words(browser: Any, report: Path) -> None:
    with opened(browser, report) as shown:
        page = shown.page

        def column(index: int) -> list[str]:
            return [str(words) for words in page.evaluate(LISTED.format(index))]

        assert sort_by(page, "#list", "last") == "ascending"
        values = [float(words) for words in column(6) if words]
        assert values == sorted(values)
        assert {9.0, 70.0} <= set(values)
        assert column(6)[-1] == ""
        assert sort_by(page, "#list", "last") == "descending"
        assert [float(words) for words in column(6) if words] == values[::-1]
        assert column(6)[-1] == ""  # what is missing comes last, whichever way
        assert sort_by(page, "#list", "time") == "ascending"
        assert page.locator("#list th[aria-sort]").count() == 1
        times = [words for words in column(8) if words]
        assert times[0] == "1.9 s"
        assert times[-1] == "2 min 6 s"
        sort_by(page, "#list", "method")
        assert column(0) == sorted(column(0))


def test_rows_take_what_they_unfold_with_them(browser: Any, report: Path) -> None:
    with opened(browser, report) as shown:
        table = "#table-one-a table.rows"
        sort_by(shown.page, table, "last")
        rows = shown.page.locator(f"{table} tbody")
        assert [rows.nth(index).locator("td").first.inner_text()[:8] for index in (0, 2)] == ["<script>", "MEMO"]
        assert not rows.nth(0).locator(".more").is_visible()
        button = rows.nth(0).locator(".unfold")
        button.focus()
        shown.page.keyboard.press("Enter")
        assert button.get_attribute("aria-expanded") == "true"
        assert "+method=der" in rows.nth(0).locator(".more").inner_text()


def test_commands_are_copied(browser: Any, report: Path) -> None:
    with opened(browser, report) as shown:
        command = shown.page.locator("#table-one-a > .command")
        command.locator("button").click()
        shown.page.wait_for_function(
            "document.querySelector('#table-one-a > .command button').textContent === 'Copied'"
        )
        assert shown.page.evaluate("navigator.clipboard.readText()") == "mmcl reproduce one/a"


def test_links_open_the_section_that_they_name(browser: Any, report: Path) -> None:
    with opened(browser, report) as shown:
        section = shown.page.locator("#run-der0")
        assert section.get_attribute("open") is None
        shown.page.locator("#list a[href='#run-der0']").click()
        shown.page.wait_for_function("document.getElementById('run-der0').open")
        assert section.locator("figure svg").first.is_visible()
    with opened(browser, report) as shown:
        for link in shown.page.locator("nav a").all():
            assert shown.page.locator(str(link.get_attribute("href"))).count() == 1


def test_the_list_of_runs_is_filtered_and_shows_so_many_at_once(browser: Any, tmp_path: Path) -> None:
    made = content()
    for index in range(250):
        seeded_run = {**made, "command": f"python -m mmcl.run +method=memo seed={index}", "identity": f"i{index}"}
        path = tmp_path / "runs" / str(index) / "result.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({**seeded_run, "config": {**made["config"], "seed": index}}))
    results, _ = find_results(tmp_path / "runs")
    with opened(browser, write_report(results, [], tmp_path / "report.html", sections=3)) as shown:
        page = shown.page
        assert len(page.evaluate(LISTED.format(2))) == 200
        assert page.inner_text("#count") == "200 of 250 shown"
        page.click("#all")
        assert len(page.evaluate(LISTED.format(2))) == 250
        page.fill("#filter", "MEMO seed=24")
        page.wait_for_function("document.getElementById('count').textContent === '11 shown'")
        assert {int(seed) for seed in page.evaluate(LISTED.format(2))} == {24, *range(240, 250)}
    assert shown.wrong == []


def test_a_page_without_results_opens(browser: Any, tmp_path: Path) -> None:
    with opened(browser, write_report([], [], tmp_path / "report.html"), PHONE) as shown:
        assert "python -m mmcl.run +method=memo" in shown.page.inner_text("body")
        assert shown.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert shown.wrong == []
