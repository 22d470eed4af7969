"""Lets one import write to a store at a time, and rolls back imports that did not finish.

`storage.exchange.imports` writes an import in slices. Its row in `imports` says `writing` until all of them are written, and
queries leave out the rows of such an import. A lock on a file beside the database shows whether the process that writes it is
still running: the operating system releases the lock when a process ends for any reason.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from storage.core import file_modes
from storage.core.database import Database, StoreError, StoreLocked, to_json

try:
    import fcntl
except ImportError:
    # Windows has no such locks: unfinished imports are then rolled back by the next import, not when the store is opened.
    fcntl = None  # type: ignore[assignment]  # there is no such module on Windows

log = logging.getLogger("rankloop.store")

SLICE_S = 0.015
"""Seconds for which a slice should hold the write lock."""

MIN_SLICE_ROWS, MAX_SLICE_ROWS = 20, 500

LOCK_WAIT_S = 10.0
"""Seconds that an import waits for another one to end."""

LOCK_POLL_S = 0.05

MAX_SLICE_PAUSE_S = 0.2


@contextmanager
def import_lock(store: Database, *, wait_s: float = LOCK_WAIT_S) -> Iterator[None]:
    """Holds the lock of imports while the block runs, after rolling back imports that did not finish.

    Another import, or the undo of one, is waited for `wait_s` seconds.

    Raises:
        StoreLocked: another import is being written.
    """
    with open(_lock_file(store), "ab") as file:
        _lock(store, file.fileno(), time.monotonic() + wait_s)
        roll_back_all(store)
        # Closing the file releases the lock.
        yield


def roll_back_interrupted(store: Database) -> None:
    """Deletes the unfinished imports whose processes have ended. Called when a store is opened; does nothing inside an import."""
    if fcntl is None or store.value("SELECT 1 FROM unfinished_imports") is None:
        return
    try:
        with open(_lock_file(store), "ab") as file:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            roll_back_all(store)
    except BlockingIOError:
        return
    except (OSError, StoreError) as error:
        log.warning("%s: an interrupted import could not be rolled back yet; its rows stay invisible: %s", store.path, error)


def roll_back_all(store: Database) -> None:
    """Rolls back every unfinished import. The caller holds the lock."""
    for row in store.rows("SELECT id, source FROM imports WHERE state = 'writing'").fetchall():
        roll_back(store, row["id"])
        log.warning("%s: the import of %s was interrupted; it was rolled back", store.path, row["source"])


def roll_back(store: Database, import_id: int, progress: Callable[[int, int], None] | None = None) -> None:
    """Deletes the rows of an unfinished import in slices, so that others can write in between. Does nothing to a finished one.

    `progress` is called with the number of deleted rows and the number of all.
    """
    if store.value("SELECT state FROM imports WHERE id = ?", [import_id]) != "writing":
        return
    raw = store.connection.conn
    total, done = (_count(store, import_id) if progress else 0), 0
    # Parents and children are deleted together. The checks would scan whole tables, because children have no index on completions.
    raw.execute("PRAGMA foreign_keys=OFF")
    try:
        pace = Pace(store)
        for find, deletes in _SLICES:
            after = 0
            while ids := _delete_slice(pace, find, deletes, import_id, after):
                after = ids[-1]
                done += len(ids)
                if progress:
                    progress(done, total)
        with store.atomic() as connection:
            for sql in _LAST:
                connection.conn.execute(sql, [import_id])
    finally:
        raw.execute("PRAGMA foreign_keys=ON")


class Pace:
    """Holds the write lock for a short time, then pauses: other processes poll for the lock and must find it free."""

    def __init__(self, store: Database):
        self.store = store
        self.rows = MIN_SLICE_ROWS
        """Rows for the next slice, so that it takes about `SLICE_S` on this machine at this time."""

    @contextmanager
    def slice(self) -> Iterator[None]:
        """One transaction, and a pause after it that is twice as long."""
        with self.store.atomic():
            # The time spent waiting for the lock does not count: other writers wait only while it is held.
            started = time.monotonic()
            yield
        held = time.monotonic() - started
        self.rows = min(MAX_SLICE_ROWS, max(MIN_SLICE_ROWS, 1 + int(self.rows * min(2.0, SLICE_S / held))))
        # Otherwise the next commit of somebody else would copy the pages of this slice into the database.
        self.store.value("PRAGMA wal_checkpoint(PASSIVE)")
        time.sleep(min(MAX_SLICE_PAUSE_S, 2 * held))


@contextmanager
def synced_at_the_end(store: Database) -> Iterator[None]:
    """Commits in the block need not survive a power cut, because an unfinished import is rolled back anyway. Shortens each slice."""
    raw = store.connection.conn
    raw.execute("PRAGMA synchronous=NORMAL")
    try:
        yield
    finally:
        raw.execute("PRAGMA synchronous=FULL")


_OF_SLICE = "(SELECT value FROM json_each(:ids))"

_SLICES = (
    (
        "SELECT id FROM completion_labels WHERE import_id = :import AND id > :after ORDER BY id LIMIT :most",
        (
            f"DELETE FROM completions WHERE id IN (SELECT completion_id FROM completion_labels WHERE id IN {_OF_SLICE})",
            f"DELETE FROM completion_labels WHERE id IN {_OF_SLICE}",
        ),
    ),
    (
        "SELECT id FROM judgments WHERE import_id = :import AND id > :after ORDER BY id LIMIT :most",
        (
            f"DELETE FROM aspect_ratings WHERE judgment_id IN {_OF_SLICE}",
            f"DELETE FROM ideal_answers WHERE judgment_id IN {_OF_SLICE}",
            f"DELETE FROM presentations WHERE id IN (SELECT presentation_id FROM judgments WHERE id IN {_OF_SLICE})",
            f"DELETE FROM judgments WHERE id IN {_OF_SLICE}",
        ),
    ),
    (
        "SELECT id FROM comparisons WHERE import_id = :import AND id > :after ORDER BY id LIMIT :most",
        (
            "DELETE FROM completions WHERE id IN "
            f"(SELECT completion_id FROM comparison_completions WHERE comparison_id IN {_OF_SLICE})",
            f"DELETE FROM gold_answers WHERE comparison_id IN {_OF_SLICE}",
            f"DELETE FROM comparison_completions WHERE comparison_id IN {_OF_SLICE}",
            f"DELETE FROM comparisons WHERE id IN {_OF_SLICE}",
        ),
    ),
    (
        "SELECT id FROM prompts WHERE import_id = :import AND id > :after ORDER BY id LIMIT :most",
        (f"DELETE FROM prompts WHERE id IN {_OF_SLICE}",),
    ),
)  # fmt: skip
"""The query for a slice's ids, and the statements that delete it: children first, because their triggers read the parents.

Each slice begins after the last id of the one before, so that it ends even where a row cannot be deleted."""

_LAST = (
    # Models and annotators of the import that other rows use by now are kept.
    "UPDATE policy_versions SET import_id = NULL WHERE import_id = ? AND id IN (SELECT policy_version_id FROM completions)",
    "DELETE FROM policy_versions WHERE import_id = ?",
    "UPDATE annotators SET import_id = NULL WHERE import_id = ? AND (id IN (SELECT annotator_id FROM judgments) "
    "OR id IN (SELECT annotator_id FROM presentations) OR id IN (SELECT annotator_id FROM completion_labels) "
    "OR id IN (SELECT annotator_id FROM accounts))",
    "DELETE FROM annotators WHERE import_id = ?",
    "DELETE FROM imports WHERE id = ?",
)


def _count(store: Database, import_id: int) -> int:
    """How many rows `_SLICES` finds."""
    return sum(int(store.value(f"SELECT count(*) FROM ({find})", {"import": import_id, "after": 0, "most": -1})) for find, _ in _SLICES)


def _delete_slice(pace: Pace, find: str, deletes: tuple[str, ...], import_id: int, after: int) -> list[int]:
    """Deletes one slice of rows with ids above `after`, and returns their ids."""
    with pace.slice():
        ids = [row["id"] for row in pace.store.rows(find, {"import": import_id, "after": after, "most": pace.rows})]
        for sql in deletes:
            pace.store.connection.conn.execute(sql, {"ids": to_json(ids)})
    return ids


def _lock(store: Database, descriptor: int, deadline: float) -> None:
    if fcntl is None:
        return
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                source = store.value("SELECT source FROM imports WHERE state = 'writing'")
                what = f"{source} is being imported" if source else "another import, or the undo of one, is running"
                raise StoreLocked(f"{store.path}: {what}. Nothing was changed: try again when it is done.") from error
            time.sleep(LOCK_POLL_S)
        except OSError as error:
            # Some network and container file systems do not support such locks.
            log.warning("%s cannot be locked (%s): make sure that only one import runs", store.path, error.strerror)
            return


def _lock_file(store: Database) -> Path:
    path = store.path.with_name(f".{store.path.name}.import")
    if not path.exists():
        file_modes.make_file(path)
    return path
