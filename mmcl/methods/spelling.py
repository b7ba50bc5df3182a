"""Settings that are one of a few words."""

from __future__ import annotations

from collections.abc import Sequence

from mmcl.errors import UserError, nearest


def check_spelling(key: str, value: str, known: Sequence[str]) -> None:
    """Refuse a value of ``method.<key>`` that is none of the known words.

    Raises:
        UserError: names them and the nearest.
    """
    if value not in known:
        raise UserError(f"method.{key}={value}: expected {' or '.join(known)}.{nearest(value, known)}")
