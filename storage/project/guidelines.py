"""Guidelines: the versions of the text that tells annotators how to judge. A presentation records the version it was shown with."""

from __future__ import annotations

import sqlite3

from storage.core.database import Database, StoreError, now
from storage.core.records import Guidelines


def current(store: Database) -> Guidelines | None:
    """The newest version; None before the first."""
    row = store.row("SELECT * FROM guidelines ORDER BY id DESC LIMIT 1")
    return None if row is None else _from_row(row)


def publish(store: Database, text: str, by: int | None) -> Guidelines:
    """Publishes a Markdown text as the new version. If the current version has the same text, it is returned instead.

    Raises:
        StoreError: the text is empty.
    """
    text = text.strip()
    if not text:
        raise StoreError("The guidelines are empty: write what annotators should know.")
    with store.atomic():
        newest = current(store)
        if newest is not None and newest.text == text:
            return newest
        created_at = now()
        return Guidelines(store.insert("guidelines", {"text": text, "by_id": by, "created_at": created_at}), text, by, created_at)


def versions(store: Database) -> list[Guidelines]:
    """Every version, newest first."""
    return [_from_row(row) for row in store.rows("SELECT * FROM guidelines ORDER BY id DESC")]


def _from_row(row: sqlite3.Row) -> Guidelines:
    return Guidelines(row["id"], row["text"], row["by_id"], row["created_at"])
