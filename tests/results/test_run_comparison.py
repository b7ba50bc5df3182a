"""Two runs side by side; see ``mmcl.results.run_comparison``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mmcl.cli import main
from mmcl.report.run_comparison_page import changed_words, write_comparison
from mmcl.results.predicted import Answers
from mmcl.results.run_comparison import (
    Difference,
    Pair,
    RunComparison,
    changed_answers,
    compare_runs,
    differences,
    least_changed,
    unique,
)
from mmcl.results.store import find_run
from tests.report.made import content, dataset_content, write
from tests.report.made_streams import stream_content

NAMES = list("abcdef")
DIAGONAL = np.diag([10] * 6)


def matrix(counts: np.ndarray) -> str:
    return "".join(",".join(map(str, row)) + "\n" for row in counts.tolist())


def compared(folder: Path, first: dict[str, Any], second: dict[str, Any], *confusions: np.ndarray) -> RunComparison:
    texts = [matrix(counts) for counts in confusions] or [None, None]
    for name, made, text in zip("ab", (first, second), texts, strict=True):
        write(folder / name, made, text)
    return compare_runs(find_run(str(folder / "a")), find_run(str(folder / "b")))


def keep_answers(run: Path, truths: list[int], answers: list[int]) -> None:
    (run / "predictions").mkdir(parents=True)
    arrays = {"cnn.truths": np.array(truths, np.uint8), "cnn.answers": np.array(answers, np.uint8)}
    np.savez(run / "predictions/task_002.npz", **arrays)


def test_keys_that_differ_are_named_by_dots_and_missing_ones_are_empty() -> None:
    first = {"seed": 1, "method": {"lr": 0.1, "inner": {"steps": [1, 2]}, "empty": {}}, "same": None}
    second = {"seed": 1, "method": {"lr": 0.1, "inner": {"steps": [1]}, "empty": {}, "more": "x"}, "same": None}
    assert differences(first, second) == (
        Difference("method.inner.steps", "[1, 2]", "[1]"),
        Difference("method.more", "", "x"),
    )


def test_a_missing_key_differs_from_one_that_is_empty_or_null() -> None:
    assert len(differences({"text": "", "none": None, "group": {}}, {})) == 3


def test_settings_that_decide_figures_stand_apart(tmp_path: Path) -> None:
    config = {
        "seed": 2,
        "method": {"name": "memo"},
        "benchmark": {"name": "digits", "base": 0, "increment": 2, "workers": 4},
        "trainer": {"devices": 2, "precision": "16-mixed"},
        "paths": {"runs": "elsewhere"},
    }
    pair = compared(tmp_path, content(), content(config=config, provenance={"commit": "def", "date": "2031"}))
    assert [entry.key for entry in pair.deciding] == ["seed", "trainer.precision"]
    assert [entry.key for entry in pair.other] == ["benchmark.workers", "paths.runs", "trainer.devices"]
    assert Difference("commit", "abc", "def") in pair.provenance


def test_figures_and_curves_of_readouts_that_both_have(tmp_path: Path) -> None:
    readouts = content()["readouts"]
    changed = {**readouts["cnn"], "last_accuracy": 0.7, "accuracy_curve": [0.9, 0.8]}
    pair = compared(tmp_path, content(), content(readouts={"cnn": changed, "bic": changed}, status="running"))
    (readout,) = pair.readouts
    assert {figure.name: figure.difference for figure in readout.figures}["last_accuracy"] == pytest.approx(0.1)
    assert "forward_transfer" not in {figure.name for figure in readout.figures}
    assert readout.curve == (Pair("2 classes", 0.9, 0.9), Pair("4 classes", 0.7, 0.8), Pair("6 classes", 0.6, None))
    assert pair.notes[:3] == (
        "Only A has the readout nme.",
        "B is running: its figures are of 2 of 3 tasks.",
        "Only B has the readout bic.",
    )


def test_curves_of_other_increments_are_joined_by_classes_seen(tmp_path: Path) -> None:
    readouts = {"cnn": {"accuracy_curve": [0.8, 0.5]}}
    pair = compared(tmp_path, content(), content(readouts=readouts, task_sizes=[3, 3]))
    assert [(entry.name, entry.first, entry.second) for entry in pair.readouts[0].curve] == [
        ("2 classes", 0.9, None),
        ("3 classes", None, 0.8),
        ("4 classes", 0.7, None),
        ("6 classes", 0.6, 0.5),
    ]
    assert "The tasks differ: an average is over those of its own run." in pair.notes


def test_classes_are_compared_by_name_whatever_their_order(tmp_path: Path) -> None:
    better = DIAGONAL.copy()
    better[0, 0], better[0, 1] = 7, 3  # of the second run: class f
    pair = compared(tmp_path, content(), content(class_names=NAMES[::-1]), DIAGONAL, better)
    readout = pair.readouts[0]
    assert readout.lost == (Pair("f", 1.0, 0.7),)
    assert readout.gained == ()
    assert (readout.images, readout.at_least, readout.changed) == (60, 3, None)
    assert "1 lost, 5 did not; at least 3 of 60 samples" in changed_words(readout)


def test_kept_answers_say_how_many_images_changed(tmp_path: Path) -> None:
    truths = [label for label in range(6) for _ in range(10)]
    other = [5 - label for label in truths]  # the same classes in the other order
    keep_answers(tmp_path / "a", truths, truths)
    answers = list(other)
    answers[0], answers[10] = other[10], other[0]  # what the counts of answers would tell, too
    keep_answers(tmp_path / "b", other, answers)
    counts = np.zeros((6, 6), np.int64)
    np.add.at(counts, (other, answers), 1)
    pair = compared(tmp_path, content(), content(class_names=NAMES[::-1]), DIAGONAL, counts)
    assert (pair.readouts[0].changed, pair.readouts[0].at_least) == (2, 2)
    assert "2 of 60 samples are answered differently" in changed_words(pair.readouts[0])


def test_damaged_answers_are_as_good_as_none(tmp_path: Path) -> None:
    for name in "ab":
        keep_answers(tmp_path / name, [0, 1], [0, 1])
    (tmp_path / "b/predictions/task_002.npz").write_bytes(b"PK\x03\x04 half")
    pair = compared(tmp_path, content(), content(), DIAGONAL, DIAGONAL)
    assert (pair.readouts[0].changed, pair.readouts[0].at_least) == (None, 0)


def test_other_test_images_and_classes_that_were_not_asked_are_told(tmp_path: Path) -> None:
    fewer = DIAGONAL // 2
    fewer[5] = 0
    readout = compared(tmp_path, content(), content(), DIAGONAL, fewer).readouts[0]
    assert [pair.name for pair in readout.classes] == NAMES[:5]
    assert (readout.images, readout.at_least) == (None, None)
    assert "different samples" in changed_words(readout)


def test_a_matrix_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    pair = compared(tmp_path, content(), content(), DIAGONAL, DIAGONAL[:2])
    assert pair.readouts[0].classes == ()
    assert any("confusion_cnn.csv: skipped" in note for note in pair.notes)


def test_data_sets_are_compared_by_name_and_have_no_last_one(tmp_path: Path) -> None:
    two = dataset_content(
        task_names=["dtd", "oxford_pets"],
        task_sizes=[3, 2],
        class_names=list("cdeab"),
        readouts={"text": {**dataset_content()["readouts"]["text"], "accuracy_curve": [0.5, 0.9]}},
    )
    pair = compared(tmp_path, dataset_content(), two)
    assert pair.word == "on"
    assert pair.readouts[0].curve == (
        Pair("oxford_pets", 0.8, 0.9),
        Pair("dtd", 0.4, 0.5),
        Pair("stanford_cars", 0.6, None),
    )
    assert "last_accuracy" not in {figure.name for figure in pair.readouts[0].figures}
    assert any("different data sets" in note for note in pair.notes)


def test_classes_of_the_last_data_set_are_named(tmp_path: Path) -> None:
    for name, wrong in (("a", 0), ("b", 4)):
        write(tmp_path / name, dataset_content())
        (tmp_path / name / "confusion_text.csv").write_text(f"{10 - wrong},{wrong}\n0,10\n")
    readout = compare_runs(find_run(str(tmp_path / "a")), find_run(str(tmp_path / "b"))).readouts[0]
    assert readout.lost == (Pair("f", 1.0, 0.6),)


def test_streams_are_compared_on_all_their_samples(tmp_path: Path) -> None:
    pair = compared(tmp_path, stream_content(), stream_content(last=0.9))
    assert [readout.name for readout in pair.readouts] == ["head", "head_validation"]
    assert pair.word == "after"
    assert pair.readouts[0].curve[-1] == Pair("part 3", 0.7, 0.9)


@given(st.integers(1, 4), st.integers(0, 40), st.randoms(use_true_random=False))
def test_at_least_as_many_answers_changed_as_the_matrices_tell(classes: int, images: int, draw: Any) -> None:
    truths = np.array([draw.randrange(classes) for _ in range(images)], int)
    answers = [np.array([draw.randrange(classes) for _ in range(images)], int) for _ in range(2)]
    counts = [np.zeros((classes, classes), np.int64) for _ in answers]
    for matrix_of, own in zip(counts, answers, strict=True):
        np.add.at(matrix_of, (truths, own), 1)
    changed = changed_answers(Answers(truths, answers[0]), Answers(truths, answers[1]))
    assert changed == (answers[0] != answers[1]).sum()
    assert 0 <= least_changed(*counts) <= changed
    assert (least_changed(*counts) > 0) == (counts[0] != counts[1]).any()


def test_other_samples_do_not_tell_how_many_answers_changed() -> None:
    ones = np.ones(3, int)
    assert changed_answers(Answers(ones, ones), Answers(0 * ones, ones)) is None


@given(arrays(object, st.integers(0, 6), elements=st.sampled_from(["a", "b"])))
def test_names_are_unique(names: np.ndarray) -> None:
    assert len(set(unique(list(names)))) == len(names)


@pytest.mark.parametrize("made", [content, dataset_content, stream_content])
def test_the_page_has_a_picture_and_no_address(tmp_path: Path, made: Any) -> None:
    pair = compared(tmp_path, made(), made(status="failed", command="python -m mmcl.run a='<b>'"))
    page = write_comparison(pair, tmp_path / "page.html").read_text()
    assert page.count("<svg") == 1
    assert re.findall(r"""(?:src|href)=["'](?!data:|#)""", page) == []
    assert "&lt;b&gt;" in page


def ended(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(["compare", *arguments])
    return int(stopped.value.code or 0)


def test_the_command_takes_directories_files_and_identities(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compared(tmp_path, content(), content(identity="fedcba9876543210", status="running"), DIAGONAL, DIAGONAL)
    page = tmp_path / "page.html"
    assert ended(str(tmp_path / "a"), "fedc", "--runs", str(tmp_path), "--html", str(page)) == 0
    printed = capsys.readouterr().out
    assert "identity 0123456789abcdef" in printed
    assert "B is running" in printed
    assert "decides figures: the same in both" in printed
    assert str(page) in printed
    assert page.is_file()
    assert ended(str(tmp_path / "a/result.json"), str(tmp_path / "b")) == 0


def test_what_is_no_run_is_refused_with_what_to_type(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compared(tmp_path / "runs", content(), content(identity="0123456789abcdff"))
    (tmp_path / "half.json").write_text("{")
    refused = {
        "nowhere": "no such run",
        str(tmp_path / "runs"): f"Name a run below it, such as {tmp_path / 'runs/a'}",
        str(tmp_path / "half.json"): "no result of a run",
        "abcdef": "no run below",
        "0123": "2 runs begin so: 0123456789abcdef, 0123456789abcdff",
    }
    for name, message in refused.items():
        assert ended(name, name, "--runs", str(tmp_path / "runs")) == 2
        assert message in capsys.readouterr().err


def test_of_copies_the_newest_is_meant(tmp_path: Path) -> None:
    for place, date in (("new", "2031"), ("old", "2030")):
        write(tmp_path / place, content(provenance={"date": date}))
    assert find_run("0123456789abcdef", tmp_path).path.parent.name == "new"
