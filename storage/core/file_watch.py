"""Detects that the files of an open database were deleted or replaced.

SQLite continues to write to a deleted or replaced file without an error, and the data is lost when the process ends. One
check takes three calls of `stat`, some microseconds. A file that is overwritten in place (`cp` onto it) remains the same
file and is not detected.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from storage.core import file_modes

log = logging.getLogger("rankloop.store")

DATABASE_SUFFIXES = ("", "-wal", "-shm")

RESCUE_RETRY_S = 60.0
"""Seconds between two attempts to copy a store whose files were deleted or replaced."""

Identity = tuple[int, int] | None
"""Device and inode; None if there is no file."""


class OpenFiles:
    """A database's three files as a connection has opened them. If they are deleted or replaced, their contents are copied once."""

    def __init__(self, database: Path):
        self.database = database
        # SQLite creates the -wal and -shm files beside the file itself, not beside a link to it.
        real = os.path.realpath(database)
        self._paths = (str(database), *(real + side for side in DATABASE_SUFFIXES[1:]))
        self._opened = self._identities()
        self._rescue_lock = threading.Lock()
        self._rescued: Path | None = None
        self._rescue_failed_at = float("-inf")
        self._unchanged_at = time.time()

    def unchanged(self) -> bool:
        return self._identities() == self._opened

    def changes(self) -> str:
        """A description such as `rankloop.db-wal is gone` or `... is another file now`; empty if nothing changed."""
        parts = []
        for side, opened, current in zip(DATABASE_SUFFIXES, self._opened, self._identities(), strict=True):
            if opened != current:
                parts.append(f"{self.database.name}{side} {'is gone' if current is None else 'is another file now'}")
        return " and ".join(parts)

    def note_unchanged(self) -> None:
        """Records that the files are unchanged: an earlier copy is out of date, and only newer copies by other processes are complete."""
        self._unchanged_at, self._rescued = time.time(), None

    def rescue(self, idle_connection: Callable[[], sqlite3.Connection]) -> str:
        """Copies the contents that the open connections still read, once, and returns instructions for the user.

        Args:
            idle_connection: returns an open connection without a transaction, or raises sqlite3.Error if there is none.
        """
        if not self._rescue_lock.acquire(blocking=False):
            return "The data saved until then are being copied: leave rankloop running and try again in a minute."
        try:
            if self._rescued is None and time.monotonic() - self._rescue_failed_at > RESCUE_RETRY_S:
                try:
                    self._rescued = rescued_since(self.database, self._unchanged_at) or rescue(idle_connection(), self.database)
                except (OSError, sqlite3.Error) as error:
                    self._rescue_failed_at = time.monotonic()
                    log.error("%s: %s; a copy could not be written: %s", self.database, self.changes(), error)
                else:
                    log.error("%s: %s; the data saved until then are in %s", self.database, self.changes(), self._rescued)
            if self._rescued is None:
                return (
                    "A copy could not be written: free disk space for the data folder and leave rankloop running; it retries every minute."
                )
            return (
                f"The data saved until then are in {self._rescued.name} in the data folder: stop rankloop, then "
                f"`rankloop restore {self._rescued.name} --force`."
            )
        finally:
            self._rescue_lock.release()

    def _identities(self) -> tuple[Identity, ...]:
        return tuple(map(_identity, self._paths))


def _identity(path: str) -> Identity:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def rescue(open_connection: sqlite3.Connection, database: Path) -> Path:
    """Copies the contents that an open connection reads into a new file beside the database, and checks the copy.

    Raises:
        OSError, sqlite3.Error: the copy cannot be written, or the contents are damaged.
    """
    file_modes.make_folder(database.parent)
    at = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%S")
    rescued = database.with_name(f"{database.stem}-rescued-{at}-{os.getpid()}{database.suffix}")
    unfinished = rescued.with_name(f".{rescued.name}.part")
    try:
        file_modes.make_file(unfinished)
        with closing(sqlite3.connect(unfinished, isolation_level=None)) as copy:
            open_connection.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")
            if (found := copy.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
                raise sqlite3.DatabaseError(found)
        with open(unfinished, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(unfinished, rescued)
    finally:
        unfinished.unlink(missing_ok=True)
    return rescued


def rescued_since(database: Path, moment: float) -> Path | None:
    """The newest copy that another process made after this moment (seconds since 1970); it contains everything acknowledged before."""
    newer = [path for path in rescued(database) if path.stat().st_mtime > moment]
    return newer[-1] if newer else None


def rescued(database: Path) -> list[Path]:
    """The rescued copies beside this database, oldest first."""
    return sorted(database.parent.glob(f"{database.stem}-rescued-*{database.suffix}"))
