"""Sentences about classes from Wikipedia articles and prompt templates, as the text memory of MML has them.

Kang et al., "Memory-Modular Classification: Learning to Generalize with Memory Replacement", TMLR 2025. An article is
a text file ``desc_<article>.txt`` with headings such as ``== Habitat ==``. The paper says little about the texts; the
rules here are those of the published code.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mmcl.errors import MissingFileError, UserError
from mmcl.texts.labels import read_labels

LEAD = "summary"
LEFT_OUT = ("External links", "References", "Further reading", "Bibliography")
# After "." or "?" and before whitespace or a capital, but neither inside "e.g." or "U.S." nor behind an initial.
SENTENCE_END = re.compile(r"(?<!\w\.\w.)(?<![A-Z]\.)(?<=[.?])(?=[\sA-Z])")


class ClassTexts(NamedTuple):
    """Sentences about C classes.

    ``sentences`` has P texts, grouped by class; ``classes`` P labels in ``range(C)``; ``names`` what the classes are
    called, in the order of the labels.
    """

    sentences: tuple[str, ...]
    classes: tuple[int, ...]
    names: tuple[str, ...]


def read_class_texts(
    labels: Path, articles: Path, targets: Mapping[str, int], templates: Sequence[str], *, rule: str, limit: int | None
) -> ClassTexts:
    """Read and cut the texts of the classes of a split.

    Args:
        labels: label file, see :func:`mmcl.texts.labels.read_labels`.
        articles: folder of the ``desc_<article>.txt``.
        targets: label of each class id, ``0`` to ``C - 1``; rows come in its order.
        templates: such as ``"a photo of a {}."``; their sentences stand before those of the article.
        rule: how a line of the label file is split, key of ``mmcl.texts.labels.LABEL_RULES``.
        limit: most sentences of a class, the first ones; None keeps all.

    Returns:
        The sentences with the label of their class. (The published code labels them by position in the mapping, which
        permutes classes where the mapping is not in the order of its labels.)

    Raises:
        UserError: a missing or unreadable file, or a class that the label file does not know.
    """
    entries = read_labels(labels, list(targets), rule)
    _refuse_missing([article_path(articles, entry.article) for entry in entries])
    texts = []
    for entry in entries:
        sections = read_article(article_path(articles, entry.article))
        texts.append(prompt_text(entry.name, templates) + article_text(sections))
    sentences, classes = sentence_rows(texts, list(targets.values()), limit)
    by_label = sorted(zip(targets.values(), (entry.name for entry in entries), strict=True))
    return ClassTexts(sentences, classes, tuple(name for _, name in by_label))


def article_path(folder: Path, article: str) -> Path:
    """Return where an article lies."""
    return folder / f"desc_{article}.txt"


def read_article(path: Path) -> dict[str, str]:
    """Read the sections of an article, see :func:`parse_sections`.

    Raises:
        UserError: the file is missing, or neither UTF-8 nor GBK.
    """
    _refuse_missing([path])
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error}. Expected a text file.") from error
    return parse_sections(decode_article(content, str(path)))


def decode_article(content: bytes, where: str) -> str:
    r"""Decode UTF-8, or GBK where that fails; every line ends in ``\n`` then.

    Raises:
        UserError: neither; ``where`` names the file.
    """
    for encoding in ("utf-8-sig", "gbk"):
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        return text.replace("\r\n", "\n").replace("\r", "\n")
    raise UserError(f"{where} is neither UTF-8 nor GBK. Save it as UTF-8, or bring a good copy.")


def parse_sections(text: str) -> dict[str, str]:
    r"""Split an article at its headings, lines that begin with ``==``, of whatever level.

    What stands before the first heading is the section ``summary``. Lines are stripped, empty ones dropped, the others
    joined by ``\n``. A heading that comes again replaces the text and keeps the first place; so does a heading
    ``summary`` with the lead.

    Returns:
        Texts by heading, in the order of the article.
    """
    sections: dict[str, str] = {}
    heading, lines = LEAD, list[str]()
    for line in filter(None, map(str.strip, text.split("\n"))):
        if line.startswith("=="):
            sections[heading] = "\n".join(lines)
            heading, lines = line.strip("= "), []
        else:
            lines.append(line)
    sections[heading] = "\n".join(lines)
    return sections


def article_text(sections: Mapping[str, str]) -> str:
    r"""Join the sections of an article by ``\n``, the lead first, without its lists of sources and links.

    Sections below a list that is left out have headings of their own and stay.
    """
    rest = (text for heading, text in sections.items() if heading not in (LEAD, *LEFT_OUT))
    return sections[LEAD] + "\n" + "\n".join(rest)


def prompt_text(name: str, templates: Sequence[str]) -> str:
    """Fill templates with a class name, a line each.

    A blank follows the name, "a photo of a tench .", as in the texts that MML's published features were made of.
    """
    return "\n".join(template.format(name + " ") for template in templates)


def split_sentences(text: str) -> list[str]:
    """Split a text into sentences, stripped, none empty; line ends inside a sentence stay.

    A sentence ends at "." or "?" before whitespace or an ASCII capital, unless "e.g." or an initial such as "J." stands
    there. "!" ends none, and titles such as "Dr." are not protected.
    """
    return [sentence for piece in SENTENCE_END.split(text) if (sentence := piece.strip())]


def sentence_rows(
    texts: Sequence[str], labels: Sequence[int], limit: int | None
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Split the texts of C classes and give each sentence the label of its class.

    Args:
        texts: one of each class.
        labels: one of each class.
        limit: most sentences of a class, the first ones; None keeps all.

    Returns:
        P sentences, grouped by class in the order of ``texts``, and their P labels.

    Raises:
        UserError: a limit below 1.
    """
    if limit is not None and limit < 1:
        raise UserError(f"benchmark.max_sentences={limit}: expected at least 1, or null for all sentences of a class.")
    split = [split_sentences(text)[:limit] for text in texts]
    sentences = tuple(sentence for own in split for sentence in own)
    return sentences, tuple(label for label, own in zip(labels, split, strict=True) for _ in own)


def _refuse_missing(paths: Sequence[Path]) -> None:
    missing = [path for path in paths if not path.is_file()]
    if missing:
        others = f" and {len(missing) - 1} more are" if len(missing) > 1 else " is"
        raise MissingFileError(
            f"{missing[0]}{others} missing. Expected a text file for every class; its label file says which. Put the "
            "article there; an empty file stands for a class without one."
        )
