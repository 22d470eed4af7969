"""The stored records of imports: what each brought, when and by whom, and which are being written or undone."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from storage.core import json_columns
from storage.core.database import Database, StoreError
from storage.exchange.import_writer import Report


@dataclass(frozen=True, slots=True)
class Import:
    """The stored record of one import."""

    id: int
    format: str
    source: str
    sha256: str | None
    report: Report
    by_id: int | None
    created_at: str
    undone_at: str | None


def all_imports(store: Database) -> list[Import]:
    """Every import, newest first."""
    return [from_row(row) for row in store.rows("SELECT * FROM imports WHERE state = 'whole' ORDER BY id DESC")]


def is_written(store: Database) -> bool:
    """Whether an import is being written, or was broken off and is not deleted yet."""
    return store.value("SELECT 1 FROM unfinished_imports") is not None


def is_being_undone(store: Database, import_id: int) -> bool:
    """Whether a part of an undo is still to be done."""
    return store.value("SELECT undoing FROM imports WHERE id = ?", [import_id]) is not None


def get(store: Database, import_id: int) -> Import:
    """One import.

    Raises:
        StoreError: there is none with this id.
    """
    row = store.row("SELECT * FROM imports WHERE id = ? AND state = 'whole'", [import_id])
    if row is None:
        raise StoreError(f"There is no import {import_id} in {store.path}: see `rankloop import --list`.")
    return from_row(row)


def from_row(row: sqlite3.Row) -> Import:
    """The import in a row of its table."""
    return Import(
        row["id"],
        row["format"],
        row["source"],
        row["sha256"],
        _report(row),
        row["by_id"],
        row["created_at"],
        row["undone_at"],
    )


def _report(row: sqlite3.Row) -> Report:
    """The report of an import; an empty one if the row cannot be read."""
    what = f"The report of import {row['id']}"
    try:
        values = json_columns.from_json(row["report"], dict, what)
        if any(type(value) is not type(getattr(Report(), name, None)) for name, value in values.items()):
            raise json_columns.Unreadable(f"{what} cannot be read: it is not what rankloop writes there. Restore a backup.")
        return Report(**values)
    except json_columns.Unreadable as error:
        json_columns.log.warning("%s", error)
        return Report()
