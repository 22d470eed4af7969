"""Checks the integrity of a database's pages in the background.

SQLite reads the whole file for this, which takes some seconds per gigabyte, so a start waits only briefly for the result.
"""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from threading import Thread

from storage.core import sqlite_errors
from storage.core.database import Database

log = logging.getLogger("rankloop.store")

QUICK_CHECK_WAIT_S = 2.0
"""Seconds that a start waits for the result. A later result appears in the log and on the pages."""


def start_quick_check(store: Database, *, wait_s: float = QUICK_CHECK_WAIT_S) -> str:
    """Starts the check and returns SQLite's report of damage if it comes within `wait_s`; it is stored in `store.damage` in any case."""
    thread = Thread(target=_check, args=(store,), name="integrity", daemon=True)
    thread.start()
    thread.join(wait_s)
    return store.damage


def _check(store: Database) -> None:
    try:
        with closing(sqlite3.connect(f"{store.path.absolute().as_uri()}?mode=ro", uri=True)) as raw:
            report = raw.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.DatabaseError as error:
        report = str(error)
    if report != "ok":
        store.damage = " ".join(report.split())
        log.error("%s is damaged (%s): %s", store.path, store.damage, sqlite_errors.DAMAGED)
