from __future__ import annotations

from pathlib import Path

import pytest

from mmcl.errors import MissingFileError, UserError
from mmcl.texts.labels import LABEL_RULES, ClassEntry, parse_labels, read_labels

BLANKS = "n1 7 marsh_heron\n\nn2 8 kettle\nn9 9 not asked for\n"


@pytest.mark.parametrize("rule", LABEL_RULES)
@pytest.mark.parametrize("separator", [" ", "\t", ",", " , "])
def test_entries_come_in_the_order_asked_for(rule: str, separator: str) -> None:
    text = BLANKS.replace(" not asked for", " x").replace(" ", separator)
    assert parse_labels(text, ["n2", "n1"], rule, "f") == (
        ClassEntry("n2", "8", "kettle"),
        ClassEntry("n1", "7", "marsh heron"),
    )


@pytest.mark.parametrize(
    ("line", "official", "whole"),
    [
        ("n1 7 great white shark", "shark", "great white shark"),
        ("n1,7,tench, Tinca tinca", "Tinca tinca", "tench, Tinca tinca"),
        ("n1,7,big bird (wild)", "big bird (wild)", "big bird (wild)"),
    ],
)
def test_the_official_rule_keeps_the_last_field_as_name(line: str, official: str, whole: str) -> None:
    assert parse_labels(line, ["n1"], "official", "f")[0].name == official
    assert parse_labels(line, ["n1"], "whole_name", "f")[0].name == whole


def test_a_name_with_a_comma_between_blanks_needs_the_other_rule() -> None:
    line = "n1 7 tench, Tinca tinca"
    with pytest.raises(UserError, match="'n1'.*benchmark.labels_rule=whole_name"):
        parse_labels(line, ["n1"], "official", "f")
    assert parse_labels(line, ["n1"], "whole_name", "f")[0].name == "tench, Tinca tinca"


def test_an_id_may_have_blanks_between_commas() -> None:
    for rule in LABEL_RULES:
        assert parse_labels("air plane,3,plane", ["air plane"], rule, "f")[0] == ("air plane", "3", "plane")


@pytest.mark.parametrize("rule", LABEL_RULES)
def test_an_unknown_id_names_the_nearest(rule: str) -> None:
    with pytest.raises(UserError, match="labels.txt has no line for 1 of 2 classes.*'n9a'.*Did you mean 'n9'"):
        parse_labels(BLANKS, ["n1", "n9a"], rule, "labels.txt")


@pytest.mark.parametrize("line", ["n1 7", "n1", "n1,,heron", "n1,7,"])
def test_a_line_without_article_or_name_is_refused(line: str) -> None:
    with pytest.raises(UserError, match="f, line 2"):
        parse_labels(f"n2 8 kettle\n{line}", ["n1", "n2"], "official", "f")


def test_two_lines_of_a_class_have_to_agree() -> None:
    assert len(parse_labels("n1 7 a\nn1  7  a\n", ["n1"], "official", "f")) == 1
    with pytest.raises(UserError, match="line 2: 'n1' has another line"):
        parse_labels("n1 7 a\nn1 7 b\n", ["n1"], "official", "f")


def test_an_unknown_rule_names_the_nearest() -> None:
    with pytest.raises(UserError, match="labels_rule=oficial.*Did you mean 'official'"):
        parse_labels(BLANKS, ["n1"], "oficial", "f")


def test_files_are_read_whatever_their_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes(b"\xef\xbb\xbfn1 7 heron\r\nn2 8 kettle\r\n")
    assert read_labels(path, ["n1", "n2"], "official") == (("n1", "7", "heron"), ("n2", "8", "kettle"))


def test_bad_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    with pytest.raises(MissingFileError, match="labels.txt is missing"):
        read_labels(path, ["n1"], "official")
    path.write_bytes(b"n1 7 \xff\xfe")
    with pytest.raises(UserError, match="labels.txt.*UTF-8"):
        read_labels(path, ["n1"], "official")
    path.write_bytes(b"")
    with pytest.raises(UserError, match="labels.txt has no line for 1 of 1"):
        read_labels(path, ["n1"], "official")
