"""Checks the values of a native export by column. SQLite itself accepts any value in most columns, and pages would fail later."""

from __future__ import annotations

from datetime import datetime
from typing import Any

MAX_ID = 1 << 53
"""JavaScript numbers are exact up to this integer."""


def problem(column: str, declared: str, value: Any) -> str | None:
    """The reason why a value is not allowed in a column of this declared type; None if it is allowed."""
    if value is None:
        return None
    if declared == "TEXT":
        return _text_problem(column, value)
    if declared == "REAL":
        return None if type(value) in (int, float) else f"{column} must be a number"
    if type(value) is not int:
        # `sqlite_sequence`, which numbers the queue positions, declares no types: its `name` is text.
        return None if declared == "" and isinstance(value, str) else f"{column} must be a whole number"
    if column == "id" or column.endswith(("_id", "_ms")) or column in ("position", "ticket", "seq"):
        return None if 0 <= value < MAX_ID else f"{column} must be from 0 to {MAX_ID - 1}, not {value}"
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
