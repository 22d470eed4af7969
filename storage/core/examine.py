"""Examines a store's file without opening it as a `Database`, so that nothing is migrated and no file is created."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from storage.core import json_columns, schema_check
from storage.core.database import StoreError
from storage.core.migrations import NAMES


@dataclass(frozen=True, slots=True)
class Examination:
    """The state of a store's file, found without opening it as a `Database`."""

    version: str
    """The last migration that was applied."""
    pending: tuple[str, ...]
    """Migrations that will be applied at the next start."""
    damage: str
    """SQLite's report of damage; empty if there is none."""
    foreign: str = ""
    """Tables, indexes, triggers and views that differ from those of the migrations; empty if there are none."""
    unreadable: tuple[str, ...] = ()
    """JSON columns with values that are invalid, with the number of rows."""


def examine(path: Path) -> Examination:
    """Examines a store without changing it: no migration is applied and no file is created.

    Raises:
        StoreError: the file is not a store, or cannot be read.
    """
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as raw:
            raw.execute("PRAGMA trusted_schema=OFF")
            raw.execute("SELECT 1 FROM _sqlite_migrations")
            applied = schema_check.applied(raw)
            foreign = "" if schema_check.unknown(applied) else schema_check.foreign_objects(raw)
            damage = raw.execute("PRAGMA quick_check").fetchone()[0]
            unreadable = () if foreign or damage != "ok" else tuple(json_columns.unreadable(raw))
    except sqlite3.Error as error:
        raise StoreError(f"{path}: {error}: restore a backup, or name another folder with --data.") from error
    pending = tuple(name for name in NAMES if name not in applied)
    return Examination(applied[-1] if applied else "nothing", pending, "" if damage == "ok" else damage, foreign, unreadable)
