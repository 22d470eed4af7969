"""Whether the pages of a database are sound, looked at while the program already works.

SQLite reads the whole file for it, some seconds for each gigabyte, so nobody waits longer than a moment for the result.
"""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from threading import Thread

from storage.core.database import DAMAGED, Database

log = logging.getLogger("rankloop.store")

WAIT_S = 2.0
"""How long a start waits for the result, in seconds. A later one is told in the log and on the pages."""


def start_quick_check(store: Database, *, wait_s: float = WAIT_S) -> str:
    """What is wrong with the file, if that is known within so many seconds; it goes to `store.damage` in any case."""
    thread = Thread(target=_look, args=(store,), name="soundness", daemon=True)
    thread.start()
    thread.join(wait_s)
    return store.damage


def _look(store: Database) -> None:
    try:
        with closing(sqlite3.connect(f"{store.path.absolute().as_uri()}?mode=ro", uri=True)) as raw:
            found = raw.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.DatabaseError as error:
        found = str(error)
    if found != "ok":
        store.damage = " ".join(found.split())
        log.error("%s is damaged (%s): %s", store.path, store.damage, DAMAGED)
