"""Guidelines: what annotators are told, version after version. Each presentation keeps the one that was on display."""

from __future__ import annotations

import sqlite3

from storage.core.database import Database, StoreError, now
from storage.core.records import Guidelines


def current(store: Database) -> Guidelines | None:
    """The version that holds now; None before the first."""
    row = store.row("SELECT * FROM guidelines ORDER BY id DESC LIMIT 1")
    return None if row is None else _from_row(row)


def publish(store: Database, text: str, by: int | None) -> Guidelines:
    """Makes this Markdown text the guidelines. The same text again is no new version.

    Raises:
        StoreError: the text is empty.
    """
    text = text.strip()
    if not text:
        raise StoreError("The guidelines are empty: write what annotators should know.")
    with store.atomic():
        known = current(store)
        if known is not None and known.text == text:
            return known
        created_at = now()
        return Guidelines(store.insert("guidelines", {"text": text, "by_id": by, "created_at": created_at}), text, by, created_at)


def versions(store: Database) -> list[Guidelines]:
    """Every version, newest first."""
    return [_from_row(row) for row in store.rows("SELECT * FROM guidelines ORDER BY id DESC")]


def _from_row(row: sqlite3.Row) -> Guidelines:
    return Guidelines(row["id"], row["text"], row["by_id"], row["created_at"])
