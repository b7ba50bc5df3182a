"""The report is one HTML file that opens offline."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from mmcl.report.page import write_report
from mmcl.report.run_list import with_section
from mmcl.results.store import find_results
from mmcl.results.tables import Row, SweepPoint, Table
from tests.report.made import DATASET_RUN, content, dataset_content, datasets_table, write

VOID = {"meta", "br", "img", "link", "input", "hr"}


class Reader(HTMLParser):
    """Collects tags, ids and addresses, and checks that tags close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: dict[str, int] = {}
        self.ids: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen[tag] = self.seen.get(tag, 0) + 1
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def read(page: Path) -> tuple[Reader, str]:
    text = page.read_text(encoding="utf-8")
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    return reader, text


def make_report(folder: Path) -> Path:
    confusion = "\n".join(",".join("1" for _ in range(6)) for _ in range(6))
    write(folder / "runs/memo", content(), confusion)
    write(
        folder / "runs/der",
        content("python -m mmcl.run +method=der", status="failed", readouts={}, timing={}, identity="feed"),
    )
    results, problems = find_results(folder / "runs")
    memo = Row(
        "MEMO <b>",
        ("+method=memo",),
        "cnn",
        {"accuracy_curve": (90.0, 80.0, 70.0), "last_accuracy": 70.0},
        "log",
    )
    table = Table("a", "A table", "Paper", "table 1", 2.0, "", (), (memo, Row("GEM", None, "cnn", {})))
    missing = Table("b", "Not run", "Paper", "table 2", 2.0, "", (), (Row("DER", ("+method=der",), "cnn", {}),))
    return write_report(results, [table, missing], folder / "out/report.html", [*problems, "a/result.json: skipped"])


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_report(tmp_path_factory.mktemp("report"))


def test_page_is_well_formed_and_needs_no_network(report: Path) -> None:
    reader, text = read(report)
    assert reader.seen["svg"] == 1 + 7 + 1  # the table, the whole run, the bytes of the failed run
    assert len(set(reader.ids)) == len(reader.ids) > 0
    assert all(address.startswith(("#", "data:")) for address in reader.addresses)
    text = re.sub(r'"data:image/png;base64,[^"]*"', "", text)
    assert not re.search(r"(https?:)?//\w", text)
    assert not re.search(r"url\((?!#)", text)


def test_page_shows_comparison_commands_and_problems(report: Path) -> None:
    _, text = read(report)
    assert "MEMO &lt;b&gt;" in text
    assert '<td class="outside">-10.00</td>' in text
    assert "<pre>python -m mmcl.run +method=der</pre>" in text
    assert "mmcl reproduce b" in text
    assert "a/result.json: skipped" in text
    assert "prefers-color-scheme: dark" in text
    assert "1 min 15 s" in text


def test_data_sets_have_columns_dots_and_the_latest_confusion_matrix(tmp_path: Path) -> None:
    confusion = "5,1\n0,6\n"
    folder = tmp_path / "runs/dmn"
    command = " ".join(["python -m mmcl.run", *DATASET_RUN])
    write(folder, dataset_content(command))
    (folder / "confusion_fused.csv").write_text(confusion)
    results, _ = find_results(tmp_path / "runs")
    tuned = Row("DMN, oracle", DATASET_RUN, "fused", {"acc_oracle_curve": (86.0, 47.0, 60.0)}, "log", note="A note.")
    table = datasets_table(tuned, Row("DMN, fixed", DATASET_RUN, "fused", {}))
    reader, text = read(write_report(results, [table], tmp_path / "report.html"))
    assert reader.seen["svg"] == 1 + 3  # the table; dots, confusion matrix and bytes of the run
    assert "<th>Pets</th><th>DTD</th><th>Cars</th><th>mean</th>" in text
    assert (
        '<td class="stacked">87.00<span class="printed">86.00</span><span class="within">+1.00</span></td>'
        in re.sub(' data-sort="[^"]*"', "", text)
    )
    assert '<span class="outside">+6.00</span>' in text
    assert "Accuracy on each data set, ours filled and printed hollow" in text
    assert "fused: confusion matrix of stanford_cars" in text
    assert "fused, chosen on the test labels" in text
    assert "<td>weight_dynamic</td><td>0.3</td><td>0.3</td><td>0.3</td>" in text
    for word in ("forgetting", "average incremental", "accuracy matrix", "classes seen"):
        assert word not in text


def test_a_table_of_both_kinds_draws_curves_of_classes_alone(tmp_path: Path) -> None:
    write(tmp_path / "runs/memo", content())
    write(tmp_path / "runs/dmn", dataset_content())
    results, _ = find_results(tmp_path / "runs")

    def pictures(*methods: str) -> int:
        rows = [Row(name, (f"+method={name}",), "cnn" if name == "memo" else "fused", {}) for name in methods]
        table = Table("q", "Quick", "Paper", "none", 2.0, "", (), tuple(rows))
        _, text = read(write_report(results, [table], tmp_path / "report.html"))
        return text.count("Accuracy over classes")

    assert pictures("memo", "dmn") == pictures("memo") == pictures("dmn") + 1


def test_page_without_results_says_what_to_type(tmp_path: Path) -> None:
    _, text = read(write_report([], [], tmp_path / "report.html"))
    assert "python -m mmcl.run +method=memo" in text


def test_sweeps_are_shown(tmp_path: Path) -> None:
    points = []
    for size in (1, 2):
        overrides = ("+method=memo", f"memory.size={size}")
        config = {**content()["config"], "memory": {"size": size}}
        sizes = [{"paper_model_bytes": 0, "paper_memory_bytes": size * 2**20}]
        write(
            tmp_path / f"runs/{size}",
            content(f"python -m mmcl.run {' '.join(overrides)}", config=config, bytes=sizes),
        )
        points.append(SweepPoint(size, overrides))
    table = Table("s", "Sweep", "Paper", "table 1", 2.0, "", (), (Row("M", None, "cnn", {}, sweep=tuple(points)),))
    results, _ = find_results(tmp_path / "runs")
    _, text = read(write_report(results, [table], tmp_path / "report.html"))
    assert "Average incremental accuracy over memory" in text
    assert "AUC-A" in text
    assert "memo on digits B0 Inc2, seed 1993" in text


def test_rows_say_where_they_are_from_and_how_they_run_again(report: Path) -> None:
    _, text = read(report)
    row = text[text.index("MEMO &lt;b&gt;") : text.index("GEM</button>")]
    for words in ("abc", "unknown hardware", "2030-01-01 00:00", '<a href="#run-0123456789abcdef">seed 1993</a>'):
        assert words in row
    assert "<pre>mmcl reproduce a --rows &#39;MEMO &lt;b&gt;&#39;\npython -m mmcl.run +method=memo</pre>" in row
    assert '<span class="outside">outside</span>' in row
    assert '<span class="none">printed only</span>' in text


def test_of_many_runs_some_have_a_section_and_all_are_listed(tmp_path: Path) -> None:
    for seed in range(7):
        config = {**content()["config"], "seed": seed}
        command = f"python -m mmcl.run +method=memo seed={seed}"
        changes = {"identity": f"id{seed}", "provenance": {"date": f"2030-01-0{seed + 1}"}}
        write(tmp_path / f"runs/{seed}", content(command, config=config, **changes))
    results, _ = find_results(tmp_path / "runs")
    reader, text = read(write_report(results, [], tmp_path / "report.html", sections=2))
    assert [name for name in reader.ids if name.startswith("run-")] == ["run-id5", "run-id6"]
    assert reader.addresses.count("#run-id6") == 1
    assert "All 7 runs are listed. 2 of them have a section" in text
    assert "mmcl report RUN" in text
    listed = text[text.index('id="list"') : text.index("</table>", text.index('id="list"'))]
    assert listed.count("<tr>") == 1 + 7
    assert "seed=3" in listed
    assert listed.index("2030-01-07") < listed.index("2030-01-01")


def test_an_older_run_with_pictures_has_a_section_too(tmp_path: Path) -> None:
    for index, name in enumerate(("old", "pictured", "newer", "newest")):
        made = content(identity=name, provenance={"date": f"2030-01-0{index + 1}"})
        write(tmp_path / name, made)
    (tmp_path / "pictured" / "exemplars.png").write_bytes(b"picture")
    results, _ = find_results(tmp_path)
    assert [result.identity for result in with_section(results, [], 2)] == ["pictured", "newest"]
    assert [result.identity for result in with_section(results, [], 3)] == ["pictured", "newer", "newest"]


def test_a_confusion_matrix_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    write(tmp_path / "runs/memo", content(), "1,2\n3,x\n")
    results, problems = find_results(tmp_path / "runs")
    _, text = read(write_report(results, [], tmp_path / "report.html", problems))
    assert "confusion_cnn.csv" in text
    assert "cnn: confusion matrix" not in text


def test_same_results_give_the_same_page_and_leave_nothing_else(report: Path) -> None:
    first = report.read_bytes()
    assert make_report(report.parent.parent).read_bytes() == first
    assert [path.name for path in report.parent.iterdir()] == ["report.html"]
