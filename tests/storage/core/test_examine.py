"""Looking at a store without touching it."""

import sqlite3

import pytest

from storage.core.database import Database, StoreError
from storage.core.examine import examine


def test_reports_applied_and_pending_migrations(tmp_path):
    Database(tmp_path / "new.db").close()
    assert examine(tmp_path / "new.db").pending == ()
    with sqlite3.connect(tmp_path / "old.db") as raw:
        raw.execute("CREATE TABLE _sqlite_migrations (id INTEGER PRIMARY KEY, migration_set TEXT, name TEXT, applied_at TEXT)")
        raw.execute("INSERT INTO _sqlite_migrations (migration_set, name) VALUES ('rankloop', 'm001_loop')")
    before = (tmp_path / "old.db").read_bytes()
    found = examine(tmp_path / "old.db")
    assert (found.version, found.pending[0], found.damage) == ("m001_loop", "m002_people", "")
    assert (tmp_path / "old.db").read_bytes() == before


def test_a_file_that_is_not_a_store_is_an_error(tmp_path):
    (tmp_path / "notes.db").write_text("not a database, only a long line of plain text that is read as one" * 10)
    with pytest.raises(StoreError, match="not a database"):
        examine(tmp_path / "notes.db")
    with pytest.raises(StoreError, match="unable to open"):
        examine(tmp_path / "absent.db")
    assert not (tmp_path / "absent.db").exists()
