"""How the page writes numbers; each function returns an empty text for what is missing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mmcl.report import figures
from mmcl.report.console import number, signed, spread

UNITS = {"KiB": 2.0**10, "MiB": 2.0**20}
MAX_ROWS = 100  # of a table about one run; longer ones show some rows
SHOWN_ROWS = 25


def filters() -> dict[str, Callable[..., Any]]:
    """Return the filters of the templates by name."""
    return {
        "number": lambda value, figure: number(figure, value),
        "signed": lambda value, figure: signed(figure, value),
        "spread": lambda value, figure: spread(figure, value),
        "percent": percent,
        "choice": choice,
        "bytes": in_bytes,
        "bare_bytes": bare_bytes,
        "sentence": sentence,
        "short": short,
        "seconds": in_time,
        "minute": minute,
        "thinned": thinned,
    }


def percent(value: Any) -> str:
    """Write a fraction in percent."""
    return "" if value is None else f"{100 * value:.2f}"


def choice(value: Any) -> str:
    """Write a setting that was chosen."""
    return f"{value:g}" if isinstance(value, float) else "" if value is None else str(value)


def in_bytes(value: Any) -> str:
    """Write bytes in MiB or, where that is little, KiB."""
    if value is None:
        return ""
    if value >= figures.SMALL_BYTES:
        return f"{value / 2**20:.2f} MiB"
    return f"{value / 2**10:.2f} KiB" if value else "0"


def bare_bytes(value: Any, unit: str) -> str:
    """Write bytes as a bare number in a unit, so that a column can be sorted."""
    return "" if value is None else short(value / UNITS[unit])


def sentence(words: str) -> str:
    """Write words as a sentence; where a table says that there is none, what it says about that."""
    words = words.removeprefix("none: ").strip()
    return words[:1].upper() + words[1:] + ("" if words.endswith((".", "?", "!")) else ".")


def short(value: Any) -> str:
    """Write a number with about three digits."""
    return "" if value is None else figures.short_number(value)


def in_time(value: Any) -> str:
    """Write seconds in the units that suit them."""
    if value is None:
        return ""
    minutes, seconds = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{value:.1f} s"


def minute(date: Any) -> str:
    """Write a date to the minute: ``2030-01-01 12:30``."""
    return str(date or "")[:16].replace("T", " ")


def thinned(entries: Sequence[Any]) -> list[tuple[int, Any]]:
    """Return entries with their positions: all of them or, of very many, some at equal distances and the last."""
    step = 1 if len(entries) <= MAX_ROWS else -(-len(entries) // SHOWN_ROWS)
    rows = list(enumerate(entries))
    return rows[step - 1 :: step] if len(rows) % step == 0 else [*rows[step - 1 :: step], rows[-1]]
