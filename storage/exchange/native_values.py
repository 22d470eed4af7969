"""What a column of a native export may hold. SQLite itself would take anything for most of them, and pages would stumble later."""

from __future__ import annotations

from datetime import datetime
from typing import Any

LARGEST_ID = 1 << 53
"""Browsers hold no larger whole number."""


def problem(column: str, declared: str, value: Any) -> str | None:
    """What is wrong with a value in a column that is declared so, in words; None if nothing is."""
    if value is None:
        return None
    if declared == "TEXT":
        return _text_problem(column, value)
    if declared == "REAL":
        return None if type(value) in (int, float) else f"{column} must be a number"
    if type(value) is not int:
        # The sequence behind the tickets declares no types: its name is text.
        return None if declared == "" and isinstance(value, str) else f"{column} must be a whole number"
    if column == "id" or column.endswith(("_id", "_ms")) or column in ("ticket", "seq"):
        return None if 0 <= value < LARGEST_ID else f"{column} must be from 0 to {LARGEST_ID - 1}, not {value}"
    return None if -(1 << 63) <= value < 1 << 63 else f"{column} is larger than a column holds"


def _text_problem(column: str, value: Any) -> str | None:
    if not isinstance(value, str):
        return f"{column} must be text"
    try:
        value.encode()
    except UnicodeEncodeError:
        return f"{column} has half a surrogate pair, which UTF-8 cannot hold"
    if column.endswith("_at"):
        try:
            datetime.fromisoformat(value)
        except ValueError:
            return f"{column} must be a time, not {value[:40]!r}"
    return None
