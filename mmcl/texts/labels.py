"""Label files: what a class is called, and which Wikipedia article is about it.

The format is that of MML (Kang et al., TMLR 2025), one class a line: ``n01440764 449 tench`` or
``n01440764,449,tench``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from mmcl.errors import MissingFileError, UserError, nearest

FORM = "Expected a line 'id article name' or 'id,article,name' for every class."


class ClassEntry(NamedTuple):
    """A class in a label file: its id, which names its folder, the name of its article, and what it is called."""

    class_id: str
    article: str
    name: str


def official_fields(line: str, _wanted: Collection[str]) -> list[str]:
    """Split a line as the published code does: at commas if there are any, else at whitespace; the last is the name.

    A name of several words has to be written with underscores, and a name with a comma loses what stands before it.
    The ids do not matter to this rule.
    """
    return [field.strip() for field in (line.split(",") if "," in line else line.split())]


def whole_name_fields(line: str, wanted: Collection[str]) -> list[str]:
    """Split a line in three, so that a name keeps its blanks and commas.

    Args:
        line: not empty.
        wanted: the ids; what stands before the first comma is one of them, or the line is split at whitespace.
    """
    fields = line.split(",", 2)
    return [field.strip() for field in (fields if fields[0].strip() in wanted else line.split(None, 2))]


LABEL_RULES: dict[str, Callable[[str, Collection[str]], list[str]]] = {
    "official": official_fields,
    "whole_name": whole_name_fields,
}


def read_labels(path: Path, class_ids: Sequence[str], rule: str) -> tuple[ClassEntry, ...]:
    """Read the entries of classes from a label file, UTF-8.

    Args:
        path: the file.
        class_ids: the C classes asked for, each once; lines about others are passed over.
        rule: key of ``LABEL_RULES``; ``official`` as the published code splits a line, ``whole_name`` for names with
            blanks or commas.

    Returns:
        C entries in the order of ``class_ids``.

    Raises:
        UserError: the file is missing or cannot be read, or what :func:`parse_labels` raises.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise MissingFileError(f"{path} is missing. {FORM}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}. {FORM} Save it as UTF-8.") from error
    return parse_labels(text, class_ids, rule, str(path))


def parse_labels(text: str, class_ids: Sequence[str], rule: str, where: str) -> tuple[ClassEntry, ...]:
    """Find the entries of classes in the text of a label file.

    Args:
        text: whole file.
        class_ids: as :func:`read_labels` takes them.
        rule: as :func:`read_labels` takes it.
        where: name of the file in messages.

    Raises:
        UserError: an unknown rule, a class without a line or with two that differ, or a line without a name.
    """
    if rule not in LABEL_RULES:
        raise UserError(
            f"benchmark.labels_rule={rule}: expected one of {', '.join(LABEL_RULES)}.{nearest(rule, LABEL_RULES)}"
        )
    wanted = set(class_ids)
    found: dict[str, ClassEntry] = {}
    unknown: dict[str, None] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        fields = LABEL_RULES[rule](line, wanted)
        if fields[0] not in wanted:
            unknown[fields[0]] = None
            continue
        entry = _entry(fields, f"{where}, line {number}: {line.strip()!r}")
        if found.setdefault(entry.class_id, entry) != entry:
            raise UserError(f"{where}, line {number}: {entry.class_id!r} has another line that differs; keep one.")
    absent = [class_id for class_id in class_ids if class_id not in found]
    if absent:
        hint = nearest(absent[0], unknown)
        raise UserError(
            f"{where} has no line for {len(absent)} of {len(wanted)} classes, such as {absent[0]!r}.{hint} {FORM} "
            "For names with blanks or commas type benchmark.labels_rule=whole_name."
        )
    return tuple(found[class_id] for class_id in class_ids)


def _entry(fields: Sequence[str], where: str) -> ClassEntry:
    if len(fields) < 3 or not all((fields[1], fields[-1])):
        raise UserError(f"{where} does not name an article and a class. {FORM}")
    return ClassEntry(fields[0], fields[1], fields[-1].replace("_", " "))
