"""The page tells streams in their own words, and finds their pictures."""

from __future__ import annotations

from pathlib import Path

from mmcl.report.page import write_report
from mmcl.results.keep import keep_results
from mmcl.results.store import find_results
from mmcl.results.tables import Row, Table
from tests.report.made import write
from tests.report.made_streams import STREAM_RUN, stream_content, write_stream
from tests.report.test_page import Reader, read


def page_of(folder: Path, *tables: Table) -> tuple[Reader, str]:
    results, problems = find_results(folder)
    return read(write_report(results, tables, folder / "report.html", problems))


def test_a_stream_is_no_sequence_of_classes(tmp_path: Path) -> None:
    write_stream(tmp_path / "run")
    reader, text = page_of(tmp_path)
    assert reader.seen["svg"] == 2 + 5  # regions and usage; curve, matrix, its lines, confusion, bytes
    assert len(set(reader.ids)) == len(reader.ids)
    for words in ("classes seen", "classes of task", "images/s", "after task", "each data set"):
        assert words not in text
    for words in ("decision regions", "after 2 of 4 distributions", "distributions met", "after distribution"):
        assert words in text
    assert "<td>part 3</td>" in text
    assert '<td data-sort="512">0.50 KiB</td>' in text


def test_validation_is_kept_apart_from_test_readouts(tmp_path: Path) -> None:
    write_stream(tmp_path / "run")
    _, text = page_of(tmp_path)
    assert "head_validation" not in text
    tests, validation = text.split("<h3>Validation</h3>")
    assert "98.76" not in tests
    assert "<td>98.76</td>" in validation
    assert "first 2 of 4 distributions" in validation
    assert "<td>70.00</td>" in tests


def test_readouts_are_told_from_those_of_other_samples(tmp_path: Path) -> None:
    result = write_stream(tmp_path / "run")
    assert list(result.readouts_on()) == list(result.readouts_on("validation")) == ["head"]
    assert result.readouts_on("validation")["head"]["last_accuracy"] == 0.9876
    assert result.readouts_on("train") == {}
    assert result.evaluations == ("test", "validation")


def test_one_distribution_has_neither_curve_nor_matrix(tmp_path: Path) -> None:
    write_stream(tmp_path / "run", distributions=1)
    reader, text = page_of(tmp_path)
    assert reader.seen["svg"] == 2 + 2
    assert "accuracy matrix" not in text
    assert "asked no longer" not in text


def test_hundreds_of_distributions_have_short_tables(tmp_path: Path) -> None:
    write(tmp_path / "run", stream_content(distributions=301))
    reader, text = page_of(tmp_path)
    assert reader.seen["tr"] < 100
    assert text.count("<td>part 300</td>") == 2  # the last one, of bytes and of time
    assert text.count("of 301 lines") == 2


def test_runs_that_stopped_early_and_damaged_traces_do_not_stop_the_page(tmp_path: Path) -> None:
    write_stream(tmp_path / "run")
    damaged = tmp_path / "run" / "traces" / "002.npz"
    damaged.write_bytes(b"PK")
    write(tmp_path / "failed", stream_content(status="failed", readouts={}, timing={}, bytes=[]))
    _, text = page_of(tmp_path)
    assert f"{damaged}: skipped" in text
    assert "decision regions" in text


def test_a_table_of_streams_shows_dots_instead_of_curves(tmp_path: Path) -> None:
    write_stream(tmp_path / "run")
    row = Row("Memory Head, CI", STREAM_RUN, "head", {})
    _, text = page_of(tmp_path, Table("s", "Streams", "Paper", "none", 0.2, "", (), (row,)))
    assert "Accuracy after the stream" in text
    assert "Accuracy over classes" not in text
    assert "<td>70.00</td>" in text


def test_kept_results_have_the_pictures_of_start_middle_and_end(tmp_path: Path) -> None:
    write_stream(tmp_path / "runs" / "a", distributions=8)
    (path,) = keep_results(tmp_path / "runs", tmp_path / "kept")
    kept = sorted((path.parent / "traces").iterdir())
    assert [trace.name for trace in kept] == ["000.npz", "004.npz", "008.npz"]
    assert kept[1].read_bytes() == (tmp_path / "runs/a/traces/004.npz").read_bytes()
    _, text = page_of(tmp_path / "kept")
    for title in ("before the stream", "after 4 of 8 distributions", "after the stream"):
        assert title in text
    assert "between kept traces" in text
    (again,) = keep_results(tmp_path / "kept", tmp_path / "again")
    assert sorted(trace.name for trace in (again.parent / "traces").iterdir()) == [trace.name for trace in kept]


def test_results_without_traces_are_kept_as_before(tmp_path: Path) -> None:
    write(tmp_path / "runs" / "a", stream_content())
    (path,) = keep_results(tmp_path / "runs", tmp_path / "kept")
    assert [entry.name for entry in path.parent.iterdir()] == ["result.json"]
