"""What queries looked at, on the page: shown where it is there, and nothing foreign gets in."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from mmcl.report import run_section
from mmcl.report.page import write_report
from mmcl.report.retrieved import query_of, read_retrievals, write_retrieval_page
from mmcl.results.store import find_results
from tests.report.made import dataset_content, write
from tests.report.test_page import read

PICTURE = "data:image/jpeg;base64," + base64.b64encode(b"a picture").decode()


def query(**changes: Any) -> dict[str, Any]:
    item = {"row": 17, "class": "oak <b>", "weight": 0.125, "rank": 9}
    made = {
        "name": "row 4",
        "picture": PICTURE,
        "truth": "oak <b>",
        "answers": [["oak <b>", 3.5], ["ash", -1.25]],
        "images": [{**item, "picture": PICTURE}],
        "sentences": [{**item, "text": "An oak & its lobes."}],
        "seen_images": 32,
        "seen_sentences": 16,
    }
    return {**made, **changes}


def put(folder: Path, *queries: Any, task: str = "unseen", index: int = 1) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"retrieved_{index:03d}_{task}.json"
    path.write_text(json.dumps({"schema": 1, "task": task, "readout": "mml", "queries": queries}))
    return path


def report_of(runs: Path) -> str:
    results, problems = find_results(runs)
    _, text = read(write_report(results, [], runs.parent / "report.html", problems))
    return text


def test_queries_are_shown_in_the_order_of_the_tasks(tmp_path: Path) -> None:
    run = tmp_path / "runs/mml"
    write(run, dataset_content())
    put(run, query(), query(answers=[["ash", 2.0]]), task="unseen", index=10)
    put(run, query(truth=None, images=[], picture=None), task="seen", index=2)
    text = report_of(tmp_path / "runs")
    assert text.index("<summary>seen") < text.index("<summary>unseen")
    assert text.count(f'<img src="{PICTURE}"') == 2 + 2
    assert "An oak &amp; its lobes." in text
    assert "oak &lt;b&gt;" in text
    assert "12.5&nbsp;%, rank&nbsp;9" in text
    assert text.count("ash, wrong") == 1
    assert text.count('class="answered right"') == 1
    assert "1 of 32 images" in text


def test_a_run_without_queries_leaves_the_page_as_it_was(tmp_path: Path) -> None:
    write(tmp_path / "runs/dmn", dataset_content())
    text = report_of(tmp_path / "runs")
    assert "retrieved" not in text
    assert ".thumb" not in text


@pytest.mark.parametrize(
    "broken",
    [
        query(picture="javascript:alert(1)"),
        query(picture=f'{PICTURE}" onload="x'),
        query(answers=[]),
        query(answers=[["oak", "high"]]),
        query(images=[{"row": 1}]),
        query(sentences=None),
        [],
    ],
)
def test_what_is_of_another_form_is_named_and_left_out(tmp_path: Path, broken: Any) -> None:
    run = tmp_path / "runs/mml"
    write(run, dataset_content())
    path = put(run, broken)
    found, problems = read_retrievals(run)
    assert found == []
    assert len(problems) == 1
    assert f"{path}: skipped" in report_of(tmp_path / "runs")
    path.write_text("{")
    assert read_retrievals(run)[0] == []


def test_a_page_has_room_for_some_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        write(tmp_path / "runs" / name, dataset_content())
        size = put(tmp_path / "runs" / name, query()).stat().st_size
    monkeypatch.setattr(run_section, "RETRIEVAL_BYTES", 2 * size)
    text = report_of(tmp_path / "runs")
    assert text.count("<summary>unseen") == 2
    assert f"1 runs retrieved. One alone: mmcl report {tmp_path / 'runs/c'}" in text


def test_a_memory_has_a_page_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "pages" / "memory.html"
    write_retrieval_page("Memory of <x>", {"bytes": "1 & 2"}, [query_of(query(truth=None))], path)
    reader, text = read(path)
    assert reader.seen["img"] == 2
    assert all(address == PICTURE for address in reader.addresses)
    assert "Memory of &lt;x&gt;" in text
    assert "1 &amp; 2" in text
    assert "An oak &amp; its lobes." in text
